"""Frames in the binary format of COPY: the server parses no numbers, ids and times, and nothing is escaped.

A row is the number of its fields, then for each its length (-1 for null) and its bytes; numbers are big-endian, jsonb
is a version byte and JSON text. Everything is made a column at a time: neighbours of a known size are laid out in one
matrix, and the matrices and texts are joined row by row in one pass of Arrow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

import numpy as np
import numpy.ma  # Polars imports it for the first array that it is given: not in the first part
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ingestd.hashes import Bytes, to_bytes

Field = Literal["uuid", "smallint", "bigint", "tid", "text", "json", "jsonb"]
"""The type of a column. In the frame "uuid" is a hash as a number, or 16 bytes; JSON is its text; "tid" is the place of
a row, as one number, its page before the last 16 bits.
"""

Constant = UUID | int | datetime
"""One value for all rows: a uuid, a bigint or a timestamptz."""

BEGIN: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END: Final = struct.pack(">h", -1)

_VERSION: Final = b"\1"
"""What JSON text of a jsonb begins with."""

_NUMBERS: Final = {"smallint": ">i2", "bigint": ">i8"}
_TYPES: Final = {"smallint": 21, "bigint": 20, "tid": 27, "uuid": 2950, "json": 114, "jsonb": 3802}
_EPOCH: Final = datetime.fromisoformat("2000-01-01T00:00:00+00:00")


def encode(
    rows: pl.DataFrame, fields: Mapping[str, Field], constants: Mapping[str, Constant], most: int
) -> Iterator[memoryview]:
    """Give the rows, `constants` first and then the columns of `fields` in their order, without BEGIN and END.

    They come in pieces of whole rows, of at most so many bytes each unless a single row has more.
    """
    head = struct.pack(">h", len(constants) + len(fields)) + b"".join(map(_constant, constants.values()))
    _, ends, stream = _lines(head, rows, fields).buffers()
    places, first = np.frombuffer(ends, np.int64), 0
    while first < rows.height:
        after = max(first + 1, int(np.searchsorted(places, places[first] + most, side="right")) - 1)
        yield memoryview(stream)[places[first] : places[after]]
        first = after


def array(column: pl.Series, field: Field) -> bytes:
    """A column as a parameter that is an array: a row of one field is what an array has for an element."""
    if column.is_empty():
        return struct.pack(">iii", 0, 0, _TYPES[field])
    head = struct.pack(">iiiii", 1, column.has_nulls(), _TYPES[field], column.len(), 1)
    _, _, stream = _lines(b"", column.to_frame(), {column.name: field}).buffers()
    return b"".join([head, stream])


def _lines(head: bytes, rows: pl.DataFrame, fields: Mapping[str, Field]) -> pa.Array:
    """The fields of each row behind the same `head`."""
    known = [alike(head, rows.height)]
    pieces: list[Any] = []
    for name, field in fields.items():
        column = rows[name]
        if field in {"text", "json", "jsonb"}:
            version = _VERSION if field == "jsonb" else b""
            if version and column.null_count():  # nulls have none, so it becomes a piece of the text
                column, version = pl.select(pl.concat_str(pl.lit(version.decode()), column)).to_series(), b""
            content = column.fill_null("").to_arrow().cast(pa.large_binary())
            sizes = np.diff(np.frombuffer(content.buffers()[1], np.int64, rows.height + 1)) + len(version)
            before = [_sizes(sizes, column), alike(version, rows.height)]
        else:
            value = _values(column.drop_nulls(), field)
            if len(value) == rows.height:
                known += [alike(struct.pack(">i", value.shape[1]), rows.height), value]
                continue
            sizes = column.is_not_null().to_numpy() * value.shape[1]
            before, content = [_sizes(sizes, column)], _cut(value.ravel(), sizes)
        pieces += [_joined([*known, *before]), content]
        known = []
    if known:
        pieces.append(_joined(known))
    if len(pieces) == 1:
        return pieces[0]
    return pc.binary_join_element_wise(*pieces, pa.scalar(b"", pa.large_binary()))


def _constant(value: Constant) -> bytes:
    match value:
        case UUID():
            content = value.bytes
        case datetime():
            content = struct.pack(">q", (value - _EPOCH) // timedelta(microseconds=1))
        case _:
            content = struct.pack(">q", value)
    return struct.pack(">i", len(content)) + content


def _values(column: pl.Series, field: Field) -> Bytes:
    """Values of one size, none of which is null, as the rows of a matrix."""
    if field == "uuid":
        return to_bytes(column) if column.dtype == pl.UInt128 else column.to_numpy()
    if field == "tid":
        return _matrix(column, ">i8")[:, 2:]
    return _matrix(column, _NUMBERS[field])


def alike(content: bytes, height: int) -> Bytes:
    """The same bytes in each row of a matrix."""
    return np.broadcast_to(np.frombuffer(content, np.uint8), (height, len(content)))


def _sizes(sizes: npt.NDArray[Any], column: pl.Series) -> Bytes:
    """The sizes of a column's values, -1 where it has none."""
    if column.null_count():
        sizes = np.where(column.is_null(), -1, sizes)
    return sizes.astype(">i4").view(np.uint8).reshape(-1, 4)


def _matrix(numbers: pl.Series, form: str) -> Bytes:
    return numbers.to_numpy().astype(form).view(np.uint8).reshape(numbers.len(), np.dtype(form).itemsize)


def _joined(known: list[Bytes]) -> pa.Array:
    """Matrices side by side, each row one value."""
    matrix = np.hstack(known)
    return _cut(matrix.ravel(), np.full(len(matrix), matrix.shape[1]))


def _cut(content: Bytes, sizes: npt.NDArray[Any]) -> pa.Array:
    """Bytes, cut into values of these sizes."""
    ends = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(sizes), [None, pa.py_buffer(ends), pa.py_buffer(content)]
    )
