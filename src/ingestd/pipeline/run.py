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
from ingestd.pipeline.ahead import ahead, side_by_side
from ingestd.pipeline.check import Check
from ingestd.pipeline.parts import Arranged, PartWriter
from ingestd.pipeline.report import ErrorFile, RejectLog, reject
from ingestd.pipeline.scan import Batch, Scan

NOTHING_LATE: Final[Mapping[int, str]] = {}

MANY_ROWS: Final = 2_000
MANY_BYTES: Final = 2 * 1024 * 1024
"""Bad rows are reported together when there are so many: a batch has few, and each report takes some queries."""

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
    pass writes the error file anew. Reading, checking (by two threads), arranging and writing go on side by side.
    """
    counts = Counts()
    report = _Report(check, sinks)
    for batch, arranged in ahead(_arranged(ahead(_judged(scan, check, late)), sinks.parts)):
        if sinks.parts is not None and arranged is not None:
            sinks.parts.put(arranged)
        report.add(batch.bad)
        accepted, bad = batch.accepted.height, batch.bad.rows
        counts = Counts(
            read=counts.read + accepted + bad + batch.blank,
            accepted=counts.accepted + accepted,
            rejected=counts.rejected + bad,
            blank=counts.blank + batch.blank,
        )
        progress(counts, batch.bytes_read)
    report.write()
    return counts


def warnings(layout: Layout, check: Check, counts: Counts) -> list[str]:
    """What is worth a warning once a file was read to its end (D42)."""
    empty = [] if counts.read > counts.blank else ["The file has a header and no rows."]
    return [*layout.warnings, *check.warnings, *empty]


@dataclass(frozen=True, slots=True)
class _Bad:
    """What is bad in a batch: rows that failed, as they stood; those rejected late; records that could not be cut."""

    failed: pl.DataFrame
    late: pl.DataFrame | None
    broken: pl.DataFrame

    @property
    def frames(self) -> list[pl.DataFrame]:
        return [self.failed, self.broken, *([] if self.late is None else [self.late])]

    @property
    def rows(self) -> int:
        return sum(frame.height for frame in self.frames)


@dataclass(frozen=True, slots=True)
class _Judged:
    """What became of a batch, without the rows as they stood; see `scan.Batch`."""

    accepted: pl.DataFrame
    bad: _Bad
    blank: int
    bytes_read: int


def _judged(scan: Scan, check: Check, late: Mapping[int, str]) -> Iterator[_Judged]:
    late_rows = pl.Series(list(late), dtype=pl.Int64)

    def judge(batch: Batch) -> _Judged:
        accepted, failed = check.sift(batch.rows)
        rejected = None
        if late or batch.unmended:
            is_late = pl.col("row_no").is_in(late_rows.implode()) | pl.col("row_no").is_in(batch.unmended)
            codes = {**late, **dict.fromkeys(batch.unmended, UNMENDED)} if batch.unmended else late
            accepted, rejected = _without_late(batch.rows, accepted, is_late, codes)
        bad = _Bad(failed if failed.height >= MANY_ROWS else _alone(failed), rejected, batch.broken)
        return _Judged(accepted, bad, batch.blank, batch.bytes_read)

    with closing(scan.batches()) as batches, closing(ahead(batches)) as coming:
        yield from side_by_side(judge, coming)


def _alone(rows: pl.DataFrame) -> pl.DataFrame:
    """The same rows without the bytes of those that stood beside them."""
    alone = pl.from_arrow(rows.to_arrow())
    assert isinstance(alone, pl.DataFrame)
    return alone


class _Report:
    """Says why rows of some batches failed, and writes them and what else is bad, some batches together."""

    def __init__(self, check: Check, sinks: Sinks) -> None:
        self._check = check
        self._sinks = sinks
        self._waiting: list[_Bad] = []
        self._rows = 0
        self._bytes = 0.0

    def add(self, bad: _Bad) -> None:
        """Take what is bad in one batch."""
        if not bad.rows:
            return
        self._waiting.append(bad)
        self._rows += bad.rows
        self._bytes += sum(frame.estimated_size() for frame in bad.frames)
        if self._rows >= MANY_ROWS or self._bytes >= MANY_BYTES:
            self.write()

    def write(self) -> None:
        """Write what was taken."""
        if not self._waiting:
            return
        rejected = self._check.describe(pl.concat(bad.failed for bad in self._waiting))
        late = [bad.late.select(rejected.columns) for bad in self._waiting if bad.late is not None]
        if late:
            rejected = pl.concat([rejected, *late]).sort("row_no")
        broken = pl.concat(bad.broken for bad in self._waiting)
        self._sinks.errors.write(rejected, broken)
        self._sinks.rejects.write(rejected, broken)
        self._waiting, self._rows, self._bytes = [], 0, 0.0


def _arranged(judged: Iterator[_Judged], parts: PartWriter | None) -> Iterator[tuple[_Judged, Arranged | None]]:
    return ((batch, None if parts is None else parts.arrange(batch.accepted)) for batch in judged)


def _without_late(
    rows: pl.DataFrame, accepted: pl.DataFrame, is_late: pl.Expr, late: Mapping[int, str]
) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    taken = accepted.filter(is_late)["row_no"]
    if taken.is_empty():
        return accepted, None
    frames = []
    for code in sorted({late[row_no] for row_no in taken}):
        of_code = [row_no for row_no in taken if late[row_no] == code]
        frames.append(reject(rows.filter(pl.col("row_no").is_in(of_code)), code))
    return accepted.filter(~is_late), _alone(pl.concat(frames))
