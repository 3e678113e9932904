"""A part of very many rows, read so that memory is bounded, however many people it has or rows each of them.

A part holds all rows of its people, and nothing keeps a file from having millions for one of them, or millions of
people with hardly a byte each. Events go on in groups. Of profiles, rows that later ones outdo are dropped as soon as
many have gathered: `fold` makes of the others what it would have made of all. If there are still many, people go on in
groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import polars as pl
import pyarrow as pa

from ingestd.domain.column import OPERATION_CODES, Operation
from ingestd.hashes import joined
from ingestd.pipeline.parts import Folder

MOST_CELLS: Final = 4_000_000
"""How many cells gather before a part is shortened; folding one takes some 100 bytes. A usual part has fewer."""

AT_ONCE_BYTES: Final = 4 * 1024 * 1024
"""So many bytes of a stream become one frame: its pieces are small, and each frame has a cost of its own."""

Part = Callable[[], Iterable[pl.DataFrame]]
Shorter = Callable[[pl.DataFrame], pl.DataFrame]

_ADD, _REMOVE, _DELETE = (OPERATION_CODES[each] for each in (Operation.ADD, Operation.REMOVE, Operation.DELETE))
place: Final = pl.col("row_no")


def batches(folder: Folder, name: str) -> Iterator[pl.DataFrame]:
    """Read one part, or links, some of its pieces at a time."""
    with folder.open(name) as file:
        waiting, size = list[pa.RecordBatch](), 0
        for batch in pa.ipc.open_stream(file):
            waiting.append(batch)
            size += batch.nbytes
            if size >= AT_ONCE_BYTES:
                yield _frame(waiting)
                waiting, size = [], 0
        if waiting:
            yield _frame(waiting)


def _frame(pieces: list[pa.RecordBatch]) -> pl.DataFrame:
    rows = pl.from_arrow(pa.Table.from_batches(pieces))
    assert isinstance(rows, pl.DataFrame)
    return joined(rows)


def groups(pieces: Iterable[pl.DataFrame], most: int = MOST_CELLS) -> Iterator[pl.DataFrame]:
    """The rows of a part of events, each of which counts: as one frame or, if there are very many, as several."""
    kept: list[pl.DataFrame] = []
    cells = 0
    for piece in pieces:
        if cells > most:
            yield pl.concat(kept)
            kept, cells = [], 0
        kept.append(piece)
        cells += piece.height * piece.width
    yield pl.concat(kept)


def people(part: Part, most: int = MOST_CELLS) -> Iterator[pl.DataFrame]:
    """The rows of a part of profiles, all of a person in one frame: as one or, of very many people, several by id.

    `part` reads the pieces, once for each frame. Rows are shortened where they have more cells than `most`; then "n"
    says how many rows one stands for. The columns are those that `fold` takes.
    """
    return ranges(part, "id", shorten, most)


def ranges(part: Part, key: str, shorter: Shorter, most: int) -> Iterator[pl.DataFrame]:
    """The same of any rows that belong together where `key` is the same; `shorter` drops what is not needed."""
    rows, beyond = _gathered(part(), key, shorter, None, most)
    yield rows
    while beyond is not None:
        rows, beyond = _gathered(part(), key, shorter, beyond, most)
        yield rows


def _gathered(
    pieces: Iterable[pl.DataFrame], key: str, shorter: Shorter, first: pl.Series | None, most: int
) -> tuple[pl.DataFrame, pl.Series | None]:
    """The rows from the key `first` on, as many as may be held; and the first key left for another time."""
    kept: list[pl.DataFrame] = []
    beyond = None
    cells, limit = 0, most
    for piece in pieces:
        within = [] if first is None else [pl.col(key) >= first]
        if beyond is not None:
            within.append(pl.col(key) < beyond)
        kept.append(piece.filter(within) if within else piece)
        cells += kept[-1].height * piece.width
        if cells > limit:
            rows = shorter(pl.concat(kept, how="diagonal"))
            keys = rows[key].unique().sort()
            if rows.height * rows.width > most // 2 and keys.len() > 1:
                beyond = keys.slice(keys.len() // 2, 1)
                rows = rows.filter(pl.col(key) < beyond)
            kept, cells = [rows], rows.height * rows.width
            limit = max(most, 2 * cells)  # what cannot be shortened is not looked at piece by piece
    return pl.concat(kept, how="diagonal"), beyond


def shorten(rows: pl.DataFrame) -> pl.DataFrame:
    """Drop the rows that decide nothing, whatever rows of the same people come after them."""
    count = pl.col("n").fill_null(1).sum() if "n" in rows.columns else pl.len()
    rows = rows.with_columns(count.over("id").alias("n"))
    said = [name for name in rows.columns if rows[name].null_count() < rows.height]
    decides = [_decides(rows, name, said) for name in said if name.startswith(("k", "p:", "a:", "o:")) or name == "ts"]
    rows = rows.filter(pl.any_horizontal(decides).fill_null(value=False))
    last = place == place.max().over("id")
    return rows.with_columns(pl.when(last).then("n").otherwise(0).alias("n"))


def _decides(rows: pl.DataFrame, name: str, said: list[str]) -> pl.Series:
    """Which rows a column needs: the last value of a person, every identifier once, what is left of a list."""
    if name.startswith("k"):
        return rows.select(pl.col(name).is_not_null() & (place == place.min().over("id", name))).to_series()
    if name.startswith("o:"):
        return _operations(rows.select("id", "row_no", code=pl.col(name).fill_null(0), value=f"a:{name[2:]}"))
    if name.startswith("a:") and f"o:{name[2:]}" in said:
        return pl.repeat(False, rows.height, dtype=pl.Boolean, eager=True)
    return rows.select(place == _last(pl.col(name).is_not_null())).to_series()


def _operations(rows: pl.DataFrame) -> pl.Series:
    """Which rows an attribute with operations needs, of "code" and "value": see `fold` for what they come to."""
    code, given = pl.col("code"), pl.col("value").is_not_null()
    edits = code.is_in([_ADD, _REMOVE])
    rows = rows.with_columns(reset=_last((code == _DELETE) | (given & ~edits)))
    rows = rows.with_columns(live=edits & given & (place > pl.col("reset")).fill_null(value=True))
    rows = rows.with_columns(removed=_last(pl.col("live") & (code == _REMOVE), "value"))
    stays = pl.col("live") & (code == _ADD) & (place > pl.col("removed")).fill_null(value=True)
    rows = rows.with_columns(added=pl.when(stays).then(place).min().over("id", "value"))
    return rows.select(pl.any_horizontal(place == pl.col(each) for each in ("reset", "removed", "added"))).to_series()


def _last(rows: pl.Expr, *within: str) -> pl.Expr:
    """The last of those rows of a person, null where there is none."""
    return pl.when(rows).then(place).max().over("id", *within)
