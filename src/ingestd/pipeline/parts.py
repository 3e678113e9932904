"""Accepted rows go into parts: Arrow streams, each a range of the ids of people (S97, D54).

A part holds all rows of its people, so it can be folded and applied by itself, and it lies inside one slice of the
stored profiles. Which person a row belongs to is known for certain only when the whole file has been seen; until then a
row stands under its *primary* identifier, the one of highest precedence. Nearly always that is the answer: `resolve`
says where it is not, and `rewrite` moves those rows.

Beside the parts stand the *links*: which other identifiers stood in a row with which primary, by ranges of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple, Protocol

import numpy as np
import polars as pl
import pyarrow as pa

from ingestd.domain.identity import SLICES
from ingestd.domain.personal import MASK
from ingestd.hashes import bytes_of, halves, joined, names_of_halves, split
from ingestd.pipeline.identifiers import digits_of, hashed, kinds_of

SMALL_FILE: Final = 16 * 1024 * 1024
"""A file of fewer bytes is one part: sixteen small transactions take longer than one."""

MOST_PARTS: Final = 16 * SLICES
"""They are written side by side, and a stream that is sealed takes half a megabyte. Some stores take fewer."""

MOST_LINKS: Final = 4 * SLICES
"""Ranges of links: one of 5 GB of profiles has half a million, of which resolving holds two at a time."""

_RANGE: Final = 16**4

_FEW_ROWS: Final = 1000
_FEW_BYTES: Final = 32 * 1024 * 1024
"""Fewer rows than that for each stream wait for more, unless they are large: to read many small pieces takes several
times as long.
"""

_AT_ONCE: Final = 8
"""Streams closed side by side: each waits for the disk."""

_BUFFER_BYTES: Final = 256 * 1024
"""A stream is written in thousands of small pieces, each of which would be a call of Python."""

_COMPRESSED: Final = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
"""Columns of a slice are so small that handing them to threads takes half as much as compressing them."""


class Folder(Protocol):
    """Where streams of bytes are kept under names; what was written is there once its file is closed."""

    def create(self, name: str) -> BinaryIO:
        """Start a new stream."""

    def open(self, name: str) -> BinaryIO:
        """Read a stream from its beginning."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What was written: the number of ranges, the parts, and the names of the links."""

    buckets: int
    closed: Callable[[], dict[str, int]]
    links: tuple[str, ...] = ()

    @property
    def rows(self) -> dict[str, int]:
        """The rows in each part; waits until all parts are there."""
        return self.closed()


class Sorted(NamedTuple):
    """Rows in the order of the ranges of their hash, and how many lie in each."""

    table: pa.Table
    sizes: Sequence[int]


class Arranged(NamedTuple):
    """A batch as it is written: its rows, and the links of each kind."""

    rows: Sorted
    links: Sequence[Sorted] = ()


def bucket_count(file_bytes: int, part_bytes: int, most: int = MOST_PARTS) -> int:
    """Into how many parts a file is cut that none has many more than `part_bytes` of its bytes; at most so many.

    One, or a multiple of SLICES: no part lies in two slices of the stored people.
    """
    if file_bytes < min(SMALL_FILE, part_bytes):
        return 1
    return min(most, SLICES * -(-file_bytes // (SLICES * part_bytes)))


def members(
    folder: Folder, names: Iterable[str], index_key: str, partition: str, *, masked: Container[int]
) -> Iterator[pl.DataFrame]:
    """The people in some parts as members of a segment, each once, by the best identifier that their rows have.

    One frame for each kind, as `PartWriter` writes members; identifiers of the kinds `masked` are not told (D13).
    """
    frames: dict[int, list[pl.DataFrame]] = {}
    for name in names:
        rows = read(folder, name)
        for kind in kinds_of(rows.columns):
            people = rows.filter(pl.col(f"k{kind}").is_not_null()).unique("id")
            rows = rows.join(people, on="id", how="anti")
            some = _members(people.select("row_no", f"k{kind}", partition=pl.lit(partition)), index_key)
            value = pl.lit(MASK) if kind in masked else pl.col(f"k{kind}")
            frames.setdefault(kind, []).append(some.with_columns(value.alias(f"k{kind}")))
    return (pl.concat(found) for found in frames.values())


class PartWriter:
    """Writes the accepted rows of a file, batch after batch, with the column "id" before the others.

    The parts go into `folder`, the links, which nobody needs once the file is resolved, into `links`.

    Of a segment's rows only "row_no", "k<kind>" and "partition" are written, and the identifier's hash as "high" and
    "low", the numbers that its two halves are.

    `arrange` and `put`, which take about as long, may be called by two threads, for one batch after another.

    `looked_up` are the kinds of which an identifier may be known to belong to somebody else than its own hash says
    (`store.load.people.KnownPeople.kinds`).
    """

    def __init__(
        self, folder: Folder, links: Folder, *, buckets: int, index_key: str, looked_up: Collection[int] = ()
    ) -> None:
        self._parts = _Buckets(folder, "part", buckets)
        self._links = _Buckets(links, "links", max(1, min(buckets // 4, MOST_LINKS)))
        self._index_key = index_key
        self._looked_up = looked_up

    def write(self, accepted: pl.DataFrame) -> None:
        """Write one batch of rows, each with one identifier at least."""
        self.put(self.arrange(accepted))

    def arrange(self, accepted: pl.DataFrame) -> Arranged:
        """Hash the identifiers of one batch, and put its rows and links in the order of the streams they go into."""
        if "partition" in accepted.columns:
            return Arranged(self._parts.sorted(_members(accepted, self._index_key), pl.col("high") // 2**48))
        ids, links = self._tied(accepted)
        rows = accepted.select(ids, pl.exclude("line_no"))
        return Arranged(self._parts.sorted(rows, pl.col("id") // 2**112), links)

    def put(self, arranged: Arranged) -> None:
        """Write a batch that was arranged."""
        self._parts.put(arranged.rows)
        for links in arranged.links:
            self._links.put(links)

    def close(self) -> Parts:
        """Finish all streams."""
        with self.closing() as parts:
            return parts

    @contextmanager
    def closing(self) -> Iterator[Parts]:
        """Finish the links, and in the meantime the parts, which wait for the disk: they are there in the end."""
        links = tuple(self._links.close())
        with ThreadPoolExecutor(1) as pool:
            closed = pool.submit(self._parts.close)
            yield Parts(self._parts.count, closed.result, links)
        closed.result()

    def _tied(self, accepted: pl.DataFrame) -> tuple[pl.Series, list[Sorted]]:
        """The hash of each row's primary, and the links of each kind.

        A primary is linked to itself where it may be met as another's, or be known as such.
        """
        kinds = kinds_of(accepted.columns)
        hashes = accepted.select(hashed(kind, self._index_key).alias(str(kind)) for kind in kinds)
        ids = hashes.select(id=pl.coalesce(pl.all())).to_series()
        linked = [kind for kind in kinds if kind != kinds[0] or kind in self._looked_up]
        if not linked:
            return ids, []
        links = [
            hashes.select(ids, pl.col(str(kind)).alias("hash"), pl.lit(kind, pl.Int16).alias("kind")).drop_nulls()
            for kind in linked
        ]
        return ids, [self._links.sorted(of_kind, pl.col("hash") // 2**112) for of_kind in links]


def read(folder: Folder, name: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read one part, or some columns of it."""
    with folder.open(name) as file:
        return joined(pl.read_ipc_stream(file, columns=None if columns is None else names_of_halves(columns)))


def everybody(folder: Folder, names: Iterable[str], merges: str | None) -> set[int]:
    """The ids in some parts, and in the stream that says which stored people become one."""
    found = {each for name in names for each in read(folder, name, ["id"])["id"]}
    return found.union(*(read(folder, merges).get_columns() if merges else ()))


def read_all(folder: Folder, names: Iterable[str], buckets: int) -> Iterator[pl.DataFrame]:
    """Read all parts of a file in the order of their ranges; of a range that has none, a frame without columns."""
    by_number = {int(name.rpartition("-")[2]): name for name in names}
    for number in range(buckets):
        yield read(folder, by_number[number]) if number in by_number else pl.DataFrame()


def inside(rows: pl.DataFrame, person: str, name: str, buckets: int) -> pl.DataFrame:
    """Of rows about people, whose ids are in the column `person`, those whose people are in a part."""
    return rows.filter(_range_of(pl.col(person) // 2**112, buckets) == int(name.rpartition("-")[2]))


def rewrite(parts: Parts, folder: Folder, *, moved: pl.DataFrame, rejected: Iterable[int]) -> Parts:
    """Write all parts anew, beside the old ones, each row under its person, without the rows (`row_no`) rejected since.

    `moved` gives the person, "id", of the primaries ("hash") that do not name theirs. It costs about as much as writing
    the parts did.
    """
    buckets = _Buckets(folder, "moved", parts.buckets)
    gone = pl.Series(list(rejected), dtype=pl.Int64)
    people = moved.select(pl.col("hash").alias("id"), pl.col("id").alias("person"))
    for name in parts.rows:
        rows = read(folder, name)
        rows = rows.filter(~pl.col("row_no").is_in(gone.implode())).join(
            people, on="id", how="left", maintain_order="left"
        )
        rows = rows.with_columns(id=pl.coalesce("person", "id")).drop("person")
        buckets.put(buckets.sorted(rows, pl.col("id") // 2**112))
    written = buckets.close()
    return Parts(parts.buckets, lambda: written)


def _members(rows: pl.DataFrame, index_key: str) -> pl.DataFrame:
    """Rows of a segment's file as they are written. Hashing is most of their check, so two threads do it."""
    (kind,) = kinds_of(rows.columns)
    middle = rows.height // 2
    with ThreadPoolExecutor(2) as pool:
        hashes = pool.map(lambda some: _hashed_halves(some, kind, index_key), (rows[:middle], rows[middle:]))
    return pl.concat(hashes).with_columns(rows["row_no"], rows[f"k{kind}"], rows["partition"])


def _hashed_halves(rows: pl.DataFrame, kind: int, index_key: str) -> pl.DataFrame:
    """The hashes of identifiers as two numbers each."""
    digits = rows.select(digits_of(kind, index_key)).to_series()
    return halves(bytes_of(digits), "hash").rename(lambda name: name.removeprefix("hash_"))


Stream = tuple[pa.BufferedOutputStream, pa.ipc.RecordBatchStreamWriter]


def open_stream(folder: Folder, name: str, schema: pa.Schema) -> Stream:
    """Start an Arrow stream, whose tables are compressed."""
    buffered = pa.BufferedOutputStream(pa.PythonFile(folder.create(name), "w"), _BUFFER_BYTES)
    return buffered, pa.ipc.new_stream(buffered, schema, options=_COMPRESSED)


def close_stream(stream: Stream) -> None:
    """Finish it: only then it is there."""
    buffered, writer = stream
    writer.close()
    buffered.close()


def _range_of(start: pl.Expr, count: int) -> pl.Expr:
    """Which of so many ranges a hash lies in, by its first 16 bits."""
    return (start.cast(pl.UInt32) * count // _RANGE).cast(pl.UInt16)


class _Buckets:
    """Rows by equal ranges of a hash: one lz4 Arrow stream for each range that has any."""

    def __init__(self, folder: Folder, word: str, count: int) -> None:
        self.count = count
        self._folder = folder
        self._word = word
        self._streams: dict[int, Stream] = {}
        self._rows: dict[int, int] = {}
        self._waiting: list[Sorted] = []
        self._rows_waiting = self._bytes_waiting = 0

    def sorted(self, frame: pl.DataFrame, start: pl.Expr) -> Sorted:
        """Sort rows by the range in which `start` lies, the first 16 bits of their hash, and else as they stood."""
        sizes = [frame.height]
        if self.count > 1:
            range_of = frame.select(_range_of(start, self.count)).to_series().to_numpy()
            frame = frame.rechunk()[np.argsort(range_of, kind="stable")]
            sizes = np.bincount(range_of).tolist()
        return Sorted(split(frame).to_arrow(), sizes)

    def put(self, rows: Sorted) -> None:
        """Write sorted rows, each into the stream of its range, once there are enough for as many ranges."""
        self._waiting.append(rows)
        self._rows_waiting += rows.table.num_rows
        self._bytes_waiting += rows.table.nbytes
        if self._rows_waiting >= _FEW_ROWS * self.count or self._bytes_waiting >= _FEW_BYTES:
            self._write()

    def close(self) -> dict[str, int]:
        self._write()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(close_stream, self._streams.values()))
        return {self._name(number): rows for number, rows in sorted(self._rows.items())}

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._rows_waiting = self._bytes_waiting = 0
        places = [0] * len(waiting)
        for number in range(self.count):
            pieces = []
            for which, (table, sizes) in enumerate(waiting):
                if number < len(sizes) and sizes[number]:
                    pieces.append(table.slice(places[which], sizes[number]))
                    places[which] += sizes[number]
            if pieces:
                rows = pieces[0] if len(pieces) == 1 else pa.concat_tables(pieces).combine_chunks()
                self._stream(number, rows.schema).write_table(rows)
                self._rows[number] = self._rows.get(number, 0) + rows.num_rows

    def _name(self, number: int) -> str:
        return f"{self._word}-{number:04d}"

    def _stream(self, number: int, schema: pa.Schema) -> pa.ipc.RecordBatchStreamWriter:
        if number not in self._streams:
            self._streams[number] = open_stream(self._folder, self._name(number), schema)
        return self._streams[number][1]
