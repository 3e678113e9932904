"""The error file: the failed records as they stood, and why in a last column `Failure Description` (S128, T100).

CSV with CRLF line ends (RFC 4180) and every cell quoted. A cell that a spreadsheet could take for a formula, or that
begins with `'`, gets a leading `'`; the scanner takes exactly one off again when a mended error file comes back.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import polars as pl
import pyarrow as pa
from polars._typing import SchemaDict

from ingestd.domain.column import ACTIVE, FAILURE_COLUMN
from ingestd.domain.plan import Limits
from ingestd.domain.rejection import ROW_REASONS
from ingestd.pipeline.cells import rewrite
from ingestd.pipeline.rules import sentence
from ingestd.pipeline.scan import BROKEN_SCHEMA

LOG_SCHEMA: Final[SchemaDict] = {
    "row_no": pl.Int64,
    "line_no": pl.Int64,
    "codes": pl.List(pl.String),
    "failure": pl.String,
}
"""One rejected record: its number after the header, its line in the file, the codes of its reasons, their sentences."""

NOTHING_BROKEN: Final = pl.DataFrame(schema=BROKEN_SCHEMA)

_ACTIVE: Final = "^[" + "".join(f"\\x{{{ord(sign):x}}}" for sign in ACTIVE) + "]"

AT_ONCE_BYTES: Final = 8 * 1024 * 1024
"""How much of the sentences is written at once: where every cell is wrong they take many times a batch's bytes."""

_CUT: Final = "; only the first {} bytes stand here"
_FACTS: Final = {"line": "line_no", "found": "found", "expected": "expected"}


class ErrorFile:
    """Writes the error file of one ingestion to `sink`, batch after batch; `rows` counts the records written."""

    def __init__(self, sink: BinaryIO, header: Sequence[str], *, cell_bytes: int = Limits().cell_bytes) -> None:
        self._sink = sink
        self._cells = [str(position) for position in range(len(header))]
        self._cell_bytes = cell_bytes
        self.rows = 0
        self._put(pl.DataFrame([[*header, FAILURE_COLUMN]], schema=[*self._cells, "failure"], orient="row"))

    def write(self, rejected: pl.DataFrame, broken: pl.DataFrame = NOTHING_BROKEN) -> None:
        """Add a batch's rejected rows (the columns of `check.Checked.rejected`) and broken records, in file order.

        A broken record's text stands whole in the first cell. What is longer than `cell_bytes` is cut, and says so.
        """
        records = rejected.select("row_no", *self._cells, "failure")
        if broken.height:
            records = pl.concat([records, self._of_broken(broken)]).sort("row_no", maintain_order=True)
        if records.height:
            self._put(self._cut(records.drop("row_no")))
            self.rows += records.height

    def _of_broken(self, broken: pl.DataFrame) -> pl.DataFrame:
        cut = broken["text"].str.len_bytes() > self._cell_bytes
        note = pl.when(cut).then(pl.lit(_CUT.format(self._cell_bytes))).otherwise(pl.lit(""))
        blank = (pl.lit(None, pl.String).alias(cell) for cell in self._cells[1:])
        return broken.select(
            "row_no",
            rewrite(broken["text"], cut, self._shorten).alias("0"),
            *blank,
            pl.concat_str(_failures(broken), note).alias("failure"),
        )

    def _cut(self, records: pl.DataFrame) -> pl.DataFrame:
        cells = pl.col(self._cells)
        too_long = records.select(cells.str.len_bytes() > self._cell_bytes).fill_null(value=False)
        long_columns = [name for name in self._cells if too_long[name].any()]
        if not long_columns:
            return records
        columns = [rewrite(records[name], too_long[name], self._shorten) for name in long_columns]
        rows = too_long.select(pl.any_horizontal(long_columns)).to_series()
        note = pl.lit(_CUT.format(self._cell_bytes))
        return records.with_columns(
            *columns, pl.when(rows).then(pl.col("failure") + note).otherwise(pl.col("failure")).alias("failure")
        )

    def _shorten(self, cells: pl.Series) -> pl.Series:
        short = (cell.encode()[: self._cell_bytes].decode(errors="ignore") for cell in cells)
        return pl.Series(list(short), dtype=pl.String)

    def _put(self, records: pl.DataFrame) -> None:
        cell = pl.all()
        for some in _slices(records):
            guarded = some.select(pl.when(cell.str.contains(_ACTIVE)).then("'" + cell).otherwise(cell).name.keep())
            piece = io.BytesIO()
            guarded.write_csv(piece, include_header=False, quote_style="always", line_terminator="\r\n")
            self._sink.write(piece.getvalue())


class RejectLog:
    """Writes which records were rejected and why, without their cells: an Arrow stream of LOG_SCHEMA.

    `reasons` counts the records by code; one with two reasons counts under both.
    """

    def __init__(self, sink: BinaryIO) -> None:
        self.reasons: Counter[str] = Counter()
        self._stream = pa.ipc.new_stream(
            sink, pl.DataFrame(schema=LOG_SCHEMA).to_arrow().schema, options=pa.ipc.IpcWriteOptions(compression="lz4")
        )

    def write(self, rejected: pl.DataFrame, broken: pl.DataFrame = NOTHING_BROKEN) -> None:
        """Add a batch's rejected rows and broken records, in file order."""
        records = rejected.select(LOG_SCHEMA.keys())
        if broken.height:
            codes, failure = pl.concat_list("code").alias("codes"), _failures(broken).alias("failure")
            records = pl.concat([records, broken.select("row_no", "line_no", codes, failure)]).sort("row_no")
        if records.height:
            for some in _slices(records):
                self._stream.write_table(some.to_arrow())
            self.reasons.update(_by_code(records))

    def close(self) -> None:
        """Finish the stream; the sink stays open."""
        self._stream.close()


def _slices(records: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Records with a column "failure", in slices of about AT_ONCE_BYTES of it."""
    sentences = int(records["failure"].str.len_bytes().sum())
    return records.iter_slices(max(1, records.height * AT_ONCE_BYTES // max(AT_ONCE_BYTES, sentences)))


def _failures(broken: pl.DataFrame) -> pl.Expr:
    """The sentences of broken records, each with its line."""
    sentences = []
    for code in broken["code"].unique():
        words = re.split(r"\{(\w+)\}", f"{ROW_REASONS[code].sentence} (line {{line}})")
        facts = [pl.lit(word) if at % 2 == 0 else pl.col(_FACTS[word]) for at, word in enumerate(words)]
        sentences.append(pl.when(pl.col("code") == code).then(pl.concat_str(facts)))
    return pl.coalesce(sentences)


def rejected_for(log: BinaryIO, code: str) -> list[int]:
    """The `row_no` of every record that a log names with a code."""
    found = []
    for batch in pa.ipc.open_stream(log):
        found += _records(batch).filter(pl.col("codes").list.contains(code))["row_no"].to_list()
    return found


def rejects(log: BinaryIO, *, after: int, limit: int) -> pl.DataFrame:
    """Up to `limit` records of a log, in file order, those whose `row_no` is greater than `after`."""
    found = []
    missing = limit
    for batch in pa.ipc.open_stream(log):
        if missing <= 0:
            break
        records = _records(batch).filter(pl.col("row_no") > after).head(missing)
        found.append(records)
        missing -= records.height
    return pl.concat([pl.DataFrame(schema=LOG_SCHEMA), *found])


def reject_counts(log: BinaryIO) -> dict[str, int]:
    """How many records a log names with each code, most frequent first; a record with two reasons counts in both."""
    counts: Counter[str] = Counter()
    for batch in pa.ipc.open_stream(log):
        counts.update(_by_code(_records(batch)))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _by_code(records: pl.DataFrame) -> dict[str, int]:
    """How many records have each code; one that has a code of two columns counts once."""
    return dict(records["codes"].list.unique().explode().value_counts().iter_rows())


def _records(batch: pa.RecordBatch) -> pl.DataFrame:
    records = pl.from_arrow(batch)
    assert isinstance(records, pl.DataFrame)
    return records


def reject(rows: pl.DataFrame, code: str, **facts: object) -> pl.DataFrame:
    """Reject rows (`row_no`, `line_no` and the cells as they stood) for one reason found after the check.

    `facts` fill in the sentence: `column`, `line`, `found`, `expected`. Gives the columns of `check.Checked.rejected`.
    """
    return rows.with_columns(failure=pl.lit(sentence(code, **facts)), codes=pl.lit([code], pl.List(pl.String)))
