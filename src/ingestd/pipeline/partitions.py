"""The partitions in a segment's file: few values, so each is looked at once (S25, S41)."""

from __future__ import annotations

import threading
import unicodedata

import polars as pl

from ingestd.domain.errors import FileRefused
from ingestd.domain.segment import MAX_PARTITIONS, partition_problem


class Partitions:
    """Gives the normal form of a file's partitions, NFC and without space around it, remembering what it has seen.

    Any thread may ask.
    """

    def __init__(self) -> None:
        self._known: dict[str, str | None] = {}
        self._alone = threading.Lock()

    def normal(self, cells: pl.Series) -> pl.Series:
        """The normal form of each cell, null where it is none; FileRefused where a file has too many of them."""
        values = cells.drop_nulls().unique()
        with self._alone:
            for value in values:
                if value not in self._known:
                    normal = unicodedata.normalize("NFC", value.strip())
                    self._known[value] = None if partition_problem(normal) else normal
            if len({normal for normal in self._known.values() if normal}) > MAX_PARTITIONS:
                raise FileRefused(
                    f"The second column has more than {MAX_PARTITIONS} different values. It must hold the partition."
                )
            changed = {value: normal for value, normal in self._known.items() if normal != value}
        return cells.replace(list(changed), list(changed.values())) if changed else cells
