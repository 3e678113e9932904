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
from ingestd.pipeline.check import Check
from ingestd.pipeline.parts import Arranged, PartWriter
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
    pass writes the error file anew. Reading, checking, arranging and writing go on side by side, each by a thread.
    """
    counts = Counts()
    for batch, arranged in ahead(_arranged(ahead(_judged(scan, check, late)), sinks.parts)):
        if sinks.parts is not None and arranged is not None:
            sinks.parts.put(arranged)
        sinks.errors.write(batch.rejected, batch.broken)
        sinks.rejects.write(batch.rejected, batch.broken)
        accepted, bad = batch.accepted.height, batch.rejected.height + batch.broken.height
        counts = Counts(
            read=counts.read + accepted + bad + batch.blank,
            accepted=counts.accepted + accepted,
            rejected=counts.rejected + bad,
            blank=counts.blank + batch.blank,
        )
        progress(counts, batch.bytes_read)
    return counts


def warnings(layout: Layout, check: Check, counts: Counts) -> list[str]:
    """What is worth a warning once a file was read to its end (D42)."""
    empty = [] if counts.read > counts.blank else ["The file has a header and no rows."]
    return [*layout.warnings, *check.warnings, *empty]


@dataclass(frozen=True, slots=True)
class _Judged:
    """What became of a batch: `check.Checked` and what else `scan.Batch` says, without the rows as they stood."""

    accepted: pl.DataFrame
    rejected: pl.DataFrame
    broken: pl.DataFrame
    blank: int
    bytes_read: int


def _judged(scan: Scan, check: Check, late: Mapping[int, str]) -> Iterator[_Judged]:
    late_rows = pl.Series(list(late), dtype=pl.Int64)

    def judge(batch: Batch) -> _Judged:
        checked = check.batch(batch.rows)
        accepted, rejected = checked.accepted, checked.rejected
        if late or batch.unmended:
            is_late = pl.col("row_no").is_in(late_rows.implode()) | pl.col("row_no").is_in(batch.unmended)
            codes = {**late, **dict.fromkeys(batch.unmended, UNMENDED)} if batch.unmended else late
            accepted, rejected = _without_late(batch.rows, accepted, rejected, is_late, codes)
        return _Judged(accepted, rejected, batch.broken, batch.blank, batch.bytes_read)

    with closing(scan.batches()) as batches, closing(ahead(batches)) as coming:
        yield from map(judge, coming)


def _arranged(judged: Iterator[_Judged], parts: PartWriter | None) -> Iterator[tuple[_Judged, Arranged | None]]:
    return ((batch, None if parts is None else parts.arrange(batch.accepted)) for batch in judged)


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
