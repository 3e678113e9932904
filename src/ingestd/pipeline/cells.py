"""The cells of a column in one batch: a quick look at all of them, and a change of the odd ones only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl

Flags = npt.NDArray[np.bool_]


class Look:
    """The bytes of a whole column: a look at all at once spares regular expressions that could find nothing.

    `solid`: visible ASCII without a space; `dollars`: there is a `$`.
    """

    def __init__(self, cells: pl.Series) -> None:
        _, starts, content = cells.to_arrow().buffers()
        self._rows = len(cells)
        self._starts = np.frombuffer(starts or b"", np.int64)
        self._data = np.frombuffer(content or b"", np.uint8)
        self.solid = self._data.min(initial=0x7F) > 0x20 and self._data.max(initial=0x20) < 0x7F
        self.dollars = bool((self._data == ord("$")).any())

    def strange(self) -> pl.Series:
        """True for the cells that are not solid; where they are many it may be for all."""
        return self._cells_with((self._data <= 0x20) | (self._data >= 0x7F))

    def escaped(self) -> pl.Series:
        """True for the cells with a byte that JSON escapes; where they are many it may be for all."""
        return self._cells_with((self._data < 0x20) | (self._data == ord('"')) | (self._data == ord("\\")))

    def capitals(self) -> bool:
        """Whether there is a capital of ASCII; only what is not solid may have others."""
        return bool((self._data - np.uint8(ord("A")) < np.uint8(26)).any())

    def _cells_with(self, marked: Flags) -> pl.Series:
        flags = np.zeros(self._rows, np.bool_)
        if np.count_nonzero(marked) > self._rows:  # to find out which cells would take longer than to read all
            flags[:] = True
        else:
            flags[np.searchsorted(self._starts, np.flatnonzero(marked), side="right") - 1] = True
        return pl.Series(flags)


def rewrite(cells: pl.Series, odd: pl.Series, change: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """Apply `change` to the odd cells only; most batches have few."""
    where = odd.arg_true()
    return cells.clone().scatter(where, change(cells.gather(where))) if len(where) else cells
