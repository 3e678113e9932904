"""A part of very many rows without those that decide nothing, so that memory is bounded however a file repeats itself.

A part holds all rows of its people, and nothing keeps a file from having millions for one of them. Read piece by piece,
rows that later ones outdo are dropped as soon as many have gathered: `fold` makes of the others what it would have made
of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import polars as pl
import pyarrow as pa

from ingestd.domain.column import OPERATION_CODES, Operation
from ingestd.pipeline.parts import Folder

MOST_CELLS: Final = 10_000_000
"""How many cells gather before a part is shortened; one takes 16 bytes at least. A usual part has fewer."""

_ADD, _REMOVE, _DELETE = (OPERATION_CODES[each] for each in (Operation.ADD, Operation.REMOVE, Operation.DELETE))
place: Final = pl.col("row_no")


def batches(folder: Folder, name: str) -> Iterator[pl.DataFrame]:
    """Read one part piece by piece."""
    with folder.open(name) as file:
        for batch in pa.ipc.open_stream(file):
            piece = pl.from_arrow(batch)
            assert isinstance(piece, pl.DataFrame)
            yield piece


def gathered(pieces: Iterable[pl.DataFrame], most: int = MOST_CELLS) -> pl.DataFrame:
    """The rows of a part of profiles, of which there is one at least; shortened where they have more cells than `most`.

    The columns are those that `fold` takes. Where a part was shortened, "n" says how many rows one stands for.
    """
    kept: list[pl.DataFrame] = []
    cells, limit = 0, most
    for piece in pieces:
        kept.append(piece)
        cells += piece.height * piece.width
        if cells > limit:
            kept = [shorten(pl.concat(kept, how="diagonal"))]
            cells = kept[0].height * kept[0].width
            limit = max(most, 2 * cells)  # what cannot be shortened is not looked at for every piece anew
    return pl.concat(kept, how="diagonal")


def shorten(rows: pl.DataFrame) -> pl.DataFrame:
    """Drop the rows that decide nothing, whatever rows of the same people come after them."""
    count = pl.col("n").fill_null(1).sum() if "n" in rows.columns else pl.len()
    rows = rows.with_columns(count.over("id").alias("n"))
    said = [name for name in rows.columns if rows[name].null_count() < rows.height]
    decides = [rule for name in said for rule in _decides(name, said)]
    rows = rows.filter(pl.any_horizontal(decides).fill_null(value=False))
    last = place == place.max().over("id")
    return rows.with_columns(pl.when(last).then("n").otherwise(0).alias("n"))


def _decides(name: str, said: list[str]) -> list[pl.Expr]:
    """Which rows a column needs: the last value of a person, every identifier once, what is left of a list."""
    cell, operation = pl.col(name), f"o:{name.removeprefix('a:')}"
    if name.startswith("k"):
        return [cell.is_not_null() & (place == place.min().over("id", name))]
    if name == "ts" or name.startswith("p:") or (name.startswith("a:") and operation not in said):
        return [place == _last(cell.is_not_null())]
    if name.startswith("o:"):
        return _operations(cell.fill_null(0), f"a:{name.removeprefix('o:')}")
    return []


def _operations(code: pl.Expr, name: str) -> list[pl.Expr]:
    """Which rows an attribute with operations needs: see `fold` for what they come to."""
    given, edits = pl.col(name).is_not_null(), code.is_in([_ADD, _REMOVE])
    reset = _last((code == _DELETE) | (given & ~edits))
    live = edits & given & (place > reset).fill_null(value=True)
    removed = _last(live & (code == _REMOVE), name)
    stays = live & (code == _ADD) & (place > removed).fill_null(value=True)
    added = pl.when(stays).then(place).min().over("id", name)
    return [place == reset, place == removed, place == added]


def _last(rows: pl.Expr, *within: str) -> pl.Expr:
    """The last of those rows of a person, null where there is none."""
    return pl.when(rows).then(place).max().over("id", *within)
