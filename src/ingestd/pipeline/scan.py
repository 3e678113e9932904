"""Bytes to numbered records of text cells; those that cannot be cut are kept apart with their reason (D42 to D47).

`sniff` refuses what is no text, `grammar` says where records begin and end and which are well formed, and Polars'
parser, given only those, cuts them into cells. Memory is bounded by the size of a chunk and the limits of a line and
of an open quote; a line that never ends is skipped as it streams past.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np
import polars as pl

from ingestd.domain.column import FAILURE_COLUMN
from ingestd.domain.errors import IngestdError
from ingestd.domain.rejection import ROW_REASONS, UNMENDED
from ingestd.pipeline.ahead import ahead
from ingestd.pipeline.grammar import (
    BLANK,
    CELL_TOO_LONG,
    CR,
    FIELD_COUNT,
    GOOD,
    LF,
    LINE_TOO_LONG,
    VERDICTS,
    Flags,
    Integers,
    Records,
    cut,
)
from ingestd.pipeline.sniff import BOM, SNIFFED, refused, sniff

if TYPE_CHECKING:
    from polars._typing import SchemaDict

    from ingestd.domain.plan import Limits

CHUNK_BYTES: Final = 6 * 1024 * 1024
GUARD: Final = "'"
"""What an error file puts before a cell that a spreadsheet would take for a formula."""

HEADER_FAULTS: Final = {
    "quote_misplaced": "holds a misplaced quote. Quote a name as a whole, and write a quote inside it twice.",
    "quote_open": "opens a quote that its line does not close. Close it on the same line.",
    "encoding_invalid": "is not valid UTF-8. Save the file as UTF-8.",
    "nul_byte": "holds a NUL byte. Upload plain text in UTF-8.",
    "line_too_long": "is too long. Upload fewer columns.",
}


BROKEN_SCHEMA: Final[SchemaDict] = {
    "row_no": pl.Int64,
    "line_no": pl.Int64,
    "code": pl.String,
    "found": pl.Int64,
    "expected": pl.Int64,
    "text": pl.String,
}
"""One record that could not be cut into cells.

`code` is a key of `rejection.ROW_REASONS`, `found` and `expected` are numbers for its sentence. `text` is the record as
read without its line end, invalid bytes replaced; of one of more than `limits.cell_bytes` a little more than these.
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some consecutive records.

    `rows` has text columns named "0" to "n-1" by their place in the header, an empty cell being null whether quoted
    or not, then `row_no` (records after the header, from 1) and `line_no` (lines of the file, from 1), both Int64.
    `broken` has the columns of BROKEN_SCHEMA. `unmended` are those `row_no` that stand whole in the first cell, as an
    error file has what was broken. `blank` counts the blank lines (D42), `bytes_read` the bytes since the
    file's beginning.
    """

    rows: pl.DataFrame
    broken: pl.DataFrame
    blank: int
    bytes_read: int
    unmended: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some bytes and the records in them; without records, the beginning of a line that does not end."""

    data: bytes
    records: Records | None
    bytes_read: int


def open_scan(stream: BinaryIO, *, delimiter: str, limits: Limits, chunk_bytes: int = CHUNK_BYTES) -> Scan:
    """Read the header of `stream`, of which only `read(n)` is asked; FileRefused("file_unreadable") without one."""
    head = _read(stream, SNIFFED)
    sniff(head)
    if b"\n" not in head:
        head += _read(stream, limits.first_line_bytes - len(head))
    if b"\n" not in head:
        if b"\r" in head:
            raise refused("The lines end in CR alone. Save the file with LF or CRLF line ends.")
        if len(head) >= limits.first_line_bytes:
            raise refused(f"No line ends in the first {limits.first_line_bytes} bytes. Upload a file of lines.")
    return Scan(stream, head=head, delimiter=ord(delimiter), limits=limits, chunk_bytes=chunk_bytes)


class Scan:
    """A file whose header is read: its `header`, and its records as `batches()`, to be asked for once.

    `returned` tells whether it is an error file that has come back.

    An error file that comes back is known by its last column (S128). That column is dropped, and the quote mark that
    guarded a header or a cell is taken off again (T100).
    """

    def __init__(self, stream: BinaryIO, *, head: bytes, delimiter: int, limits: Limits, chunk_bytes: int) -> None:
        line, _, self._rest = head.partition(b"\n")
        names = _header(line.removeprefix(BOM).removesuffix(b"\r"), delimiter, limits)
        self._width = len(names)
        self.returned = len(names) > 1 and names[-1] == FAILURE_COLUMN
        self.header = tuple(name.removeprefix(GUARD) for name in names[:-1]) if self.returned else names
        self._stream = stream
        self._delimiter = delimiter
        self._limits = limits
        self._expected = {
            FIELD_COUNT: self._width,
            CELL_TOO_LONG: limits.cell_bytes,
            LINE_TOO_LONG: limits.line_bytes,
        }
        self._most_shown = min(limits.cell_bytes + 4, limits.line_bytes)  # so that it is seen to be longer
        self._chunk_bytes = chunk_bytes
        self._bytes_read = len(head)
        self._row_no = 0  # the last record's
        self._line_no = 1  # the last line's

    def batches(self) -> Generator[Batch, None, None]:
        """Read on, a chunk at a time, and yield what is decided; the next chunk is read and cut meanwhile."""
        yield from map(self._batch_of, ahead(self._pieces()))

    def _batch_of(self, piece: _Piece) -> Batch:
        if piece.records:
            return self._batch(piece.data, piece.records, piece.bytes_read)
        return self._endless(piece.data, piece.bytes_read)

    def _pieces(self) -> Iterator[_Piece]:
        data, ended = self._rest, False
        while not ended:
            data, ended = self._more(data)
            if ended and data and not data.endswith(b"\n"):
                data += b"\n"
            endless = len(data) - data.rfind(b"\n") - 1 > self._limits.line_bytes + 1  # a CR may stand before the LF
            while b"\n" in data:
                records = self._cut(data, final=ended or endless)
                if records.lines:
                    yield _Piece(data, records, self._bytes_read)
                data = data[records.consumed :]
                if not records.crowded:
                    break
            if endless:
                yield _Piece(data, None, self._bytes_read)
                data = self._skip_line()

    def _more(self, rest: bytes = b"") -> tuple[bytes, bool]:
        """Return the next chunk behind what is left of the last one, and whether it is the last."""
        chunk = _read(self._stream, self._chunk_bytes)
        self._bytes_read += len(chunk)
        return rest + chunk, len(chunk) < self._chunk_bytes

    def _cut(self, data: bytes, *, final: bool) -> Records:
        return cut(data, delimiter=self._delimiter, columns=self._width, limits=self._limits, final=final)

    def _batch(self, data: bytes, records: Records, bytes_read: int) -> Batch:
        row_no = np.arange(self._row_no + 1, self._row_no + 1 + len(records.start))
        line_no = self._line_no + 1 + records.line
        good = records.verdict == GOOD
        sizes = (records.end - records.start)[good]
        cells = _parse(_kept(data, records, good), sizes, self._width, self._delimiter)
        if cells.height != np.count_nonzero(good):  # a record lost in silence is worse than a file lost aloud
            raise IngestdError(f"{np.count_nonzero(good)} records were cut, {cells.height} were parsed")
        too_long = _rows_too_long(cells, sizes, self._limits.cell_bytes)
        if len(too_long):
            cells = cells.filter(~pl.int_range(pl.len()).is_in(too_long.tolist()))
            records.verdict[np.flatnonzero(good)[too_long]] = CELL_TOO_LONG
            good = records.verdict == GOOD
        broken = self._broken(data, records, row_no, line_no)
        self._row_no += len(row_no)
        self._line_no += records.lines
        rows = self._unguarded(cells).with_columns(row_no=pl.Series(row_no[good]), line_no=pl.Series(line_no[good]))
        unmended = tuple(rows["row_no"].filter(self._unmended(cells)).to_list()) if self.returned else ()
        return Batch(rows, broken, int(np.count_nonzero(records.verdict == BLANK)), bytes_read, unmended)

    def _broken(self, data: bytes, records: Records, row_no: Integers, line_no: Integers) -> pl.DataFrame:
        """Describe the broken records, column by column: a hostile file has nothing else."""
        bad = np.flatnonzero(records.verdict > BLANK)
        if not len(bad):
            return pl.DataFrame(schema=BROKEN_SCHEMA)
        verdict = pl.Series(records.verdict[bad])
        return pl.DataFrame(
            {
                "row_no": row_no[bad],
                "line_no": line_no[bad],
                "code": verdict.replace_strict(dict(enumerate(VERDICTS)), return_dtype=pl.String),
                "found": records.fields[bad],
                "expected": verdict.replace_strict(self._expected, default=None, return_dtype=pl.Int64),
                "text": self._texts(data, records.start[bad], records.end[bad]),
            },
            schema=BROKEN_SCHEMA,
        )

    def _endless(self, beginning: bytes, bytes_read: int) -> Batch:
        """Return the batch of one line of which only the beginning, longer than a line may be, was read."""
        self._row_no += 1
        self._line_no += 1
        code, expected = VERDICTS[LINE_TOO_LONG], self._expected[LINE_TOO_LONG]
        broken = pl.DataFrame(
            [(self._row_no, self._line_no, code, None, expected, self._text(beginning))],
            schema=BROKEN_SCHEMA,
            orient="row",
        )
        nothing = self._unguarded(pl.DataFrame(schema=dict.fromkeys(map(str, range(self._width)), pl.String)))
        return Batch(nothing.with_columns(_NO_NUMBERS), broken, 0, bytes_read)

    def _skip_line(self) -> bytes:
        """Read past the next LF; return what was read behind it."""
        while True:
            chunk, ended = self._more()
            _, found, rest = chunk.partition(b"\n")
            if found or ended:
                return rest

    def _texts(self, data: bytes, start: Integers, end: Integers) -> pl.Series:
        """Decode what an error file may carry of some records."""
        octets = np.frombuffer(data, np.uint8)
        end = end - (octets[end - 1] == LF)
        end -= (octets[end - 1] == CR) & (end > start)
        pieces = [data[first:last] for first, last in zip(start.tolist(), end.tolist(), strict=True)]
        if (end - start).max() <= self._most_shown:
            with suppress(pl.exceptions.ComputeError):  # some bytes are no UTF-8
                return pl.Series(pieces, dtype=pl.Binary).cast(pl.String)
        return pl.Series([self._text(piece) for piece in pieces], dtype=pl.String)

    def _text(self, record: bytes) -> str:
        """Decode one record with its invalid bytes replaced, and without half a character at its end."""
        if len(record) <= self._most_shown:
            return record.decode(errors="replace")
        return codecs.getincrementaldecoder("utf-8")("replace").decode(record[: self._most_shown])

    def _unmended(self, cells: pl.DataFrame) -> pl.Series:
        """Tell which rows of an error file are still what was broken, whole in the first cell."""
        others = [pl.col(name).is_null() for name in cells.columns[1:-1]]
        broken = pl.col(cells.columns[-1]).str.contains(_BROKEN_BEFORE).fill_null(value=False)
        return cells.select(pl.all_horizontal(broken, *others)).to_series()

    def _unguarded(self, cells: pl.DataFrame) -> pl.DataFrame:
        if not self.returned:
            return cells
        return cells.drop(cells.columns[-1]).select(pl.all().str.strip_prefix(GUARD).replace("", None))


_BROKEN_BEFORE: Final = "^(?:{})".format(
    "|".join(
        re.sub(r"\\\{\w+\\\}", "[0-9]+", re.escape(ROW_REASONS[code].sentence.partition(":")[0]))
        for code in (*VERDICTS[BLANK + 1 :], UNMENDED)
    )
)
"""How the description of a record begins that could not be cut; what follows a colon was another advice once."""

_NO_NUMBERS: Final = (pl.Series("row_no", [], pl.Int64), pl.Series("line_no", [], pl.Int64))


def _read(stream: BinaryIO, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end."""
    data = stream.read(size)
    if len(data) == size or not data:
        return data
    pieces = [data]
    missing = size - len(data)
    while missing and (data := stream.read(missing)):
        pieces.append(data)
        missing -= len(data)
    return b"".join(pieces)


def _header(line: bytes, delimiter: int, limits: Limits) -> tuple[str, ...]:
    """Cut the header by the grammar of all records; its names are judged elsewhere (D46)."""
    if len(line) > limits.header_bytes:
        raise refused(f"The header is longer than {limits.header_bytes} bytes. Upload fewer columns.")
    if not line:
        raise refused("The first line is blank. Put the column headers there.")
    record = cut(line + b"\n", delimiter=delimiter, columns=0, limits=limits, final=True)
    fault = HEADER_FAULTS.get(VERDICTS[record.verdict[0]])
    if fault:
        raise refused(f"The header {fault}")
    fields = int(record.fields[0])
    if fields > limits.columns:
        raise refused(f"There are {fields} columns; {limits.columns} are allowed. Upload fewer columns.")
    return tuple(name or "" for name in _parse(line + b"\n", record.end, fields, delimiter).row(0))


def _kept(data: bytes, records: Records, good: Flags) -> bytes:
    """Join the bytes of the good records, run by run."""
    edges = np.flatnonzero(np.diff(good, prepend=False, append=False))
    view = memoryview(data)
    starts, ends = records.start[edges[0::2]].tolist(), records.end[edges[1::2] - 1].tolist()
    return b"".join([view[start:end] for start, end in zip(starts, ends, strict=True)])


def _parse(data: bytes, sizes: Integers, width: int, delimiter: int) -> pl.DataFrame:
    """Cut well-formed records, of `sizes` bytes each, into cells."""
    schema = {str(at): pl.String for at in range(width)}
    if not data:
        return pl.DataFrame(schema=schema)
    data = _doubled_returns(data, sizes, bytes([delimiter]))
    if data.startswith(BOM):
        data = BOM + data  # the parser takes one off
    return pl.read_csv(data, has_header=False, separator=chr(delimiter), schema=schema, null_values=[""])


def _doubled_returns(data: bytes, sizes: Integers, delimiter: bytes) -> bytes:
    """Double a CR that ends a plain cell inside a line, as the parser takes one off."""
    wanted = b"\r" + delimiter
    at = data.find(wanted) if b"\r" in data else -1  # one byte is found ten times as fast as two
    if at < 0:
        return data
    ends = np.cumsum(sizes)
    plain_or_quoted = re.compile(rb'("(?:[^"]|"")*")|' + re.escape(wanted))
    pieces, done = [], 0
    while at >= 0:
        nth = int(np.searchsorted(ends, at, side="right"))
        end = int(ends[nth])
        start = end - int(sizes[nth])
        pieces += [data[done:start], plain_or_quoted.sub(lambda found: found[1] or b"\r" + wanted, data[start:end])]
        done, at = end, data.find(wanted, end)
    return b"".join([*pieces, data[done:]])


def _rows_too_long(cells: pl.DataFrame, sizes: Integers, most: int) -> Integers:
    """Return the positions of rows with a cell of more than `most` bytes; only records of more bytes can have one."""
    large = np.flatnonzero(sizes > most)
    if not len(large):
        return large
    longest = cells[large].select(pl.max_horizontal(pl.all().str.len_bytes()).fill_null(0)).to_series()
    return large[np.flatnonzero(longest > most)]
