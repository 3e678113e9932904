"""The heart: a file's records, checked, go into parts; those rejected into the error file. One pass, bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import polars as pl

from ingestd.domain.ingestion import Counts
from ingestd.domain.layout import Layout
from ingestd.domain.rejection import UNMENDED
from ingestd.pipeline.ahead import ahead
from ingestd.pipeline.check import Check, Checked
from ingestd.pipeline.parts import PartWriter
from ingestd.pipeline.report import ErrorFile, RejectLog, reject
from ingestd.pipeline.scan import Batch, Scan

NOTHING_LATE: Final[Mapping[int, str]] = {}

Progress = Callable[[Counts, int], None]
"""Told after each batch: what has been counted, and the bytes read."""


@dataclass(frozen=True, slots=True)
class Sinks:
    """Where the rows go; without parts only the error file is written."""

    parts: PartWriter | None
    errors: ErrorFile
    rejects: RejectLog


def check_file(
    scan: Scan, check: Check, sinks: Sinks, progress: Progress, *, late: Mapping[int, str] = NOTHING_LATE
) -> Counts:
    """Check every record of a file once; each is accepted, rejected or blank, and counted so (D45).

    `late` gives rows (`row_no`) that were rejected after the check, and the code of their reason: with them a second
    pass writes the error file anew.
    """
    counts, late_rows = Counts(), pl.Series(list(late), dtype=pl.Int64)
    for batch, checked in ahead(_checked(scan, check)):
        accepted, rejected = checked.accepted, checked.rejected
        if late or batch.unmended:
            is_late = pl.col("row_no").is_in(late_rows.implode()) | pl.col("row_no").is_in(batch.unmended)
            codes = {**late, **dict.fromkeys(batch.unmended, UNMENDED)} if batch.unmended else late
            accepted, rejected = _without_late(batch.rows, accepted, rejected, is_late, codes)
        if sinks.parts is not None:
            sinks.parts.write(accepted)
        sinks.errors.write(rejected, batch.broken)
        sinks.rejects.write(rejected, batch.broken)
        bad = rejected.height + batch.broken.height
        counts = Counts(
            read=counts.read + accepted.height + bad + batch.blank,
            accepted=counts.accepted + accepted.height,
            rejected=counts.rejected + bad,
            blank=counts.blank + batch.blank,
        )
        progress(counts, batch.bytes_read)
    return counts


def warnings(layout: Layout, check: Check, counts: Counts) -> list[str]:
    """What is worth a warning once a file was read to its end (D42)."""
    empty = [] if counts.read > counts.blank else ["The file has a header and no rows."]
    return [*layout.warnings, *check.warnings, *empty]


def _checked(scan: Scan, check: Check) -> Iterator[tuple[Batch, Checked]]:
    with closing(scan.batches()) as batches:
        for batch in batches:
            yield batch, check.batch(batch.rows)


def _without_late(
    rows: pl.DataFrame, accepted: pl.DataFrame, rejected: pl.DataFrame, is_late: pl.Expr, late: Mapping[int, str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    taken = accepted.filter(is_late)["row_no"]
    if taken.is_empty():
        return accepted, rejected
    frames = [rejected]
    for code in sorted({late[row_no] for row_no in taken}):
        of_code = [row_no for row_no in taken if late[row_no] == code]
        frames.append(reject(rows.filter(pl.col("row_no").is_in(of_code)), code).select(rejected.columns))
    return accepted.filter(~is_late), pl.concat(frames).sort("row_no")
