"""The partitions in a segment's file: few values, so each is looked at once (S25, S41)."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterable

import polars as pl

from ingestd.domain.errors import FileRefused
from ingestd.domain.segment import MAX_NUMBER, MAX_PARTITIONS, partition_problem


class Partitions:
    """Gives the normal form of a file's partitions, NFC and without space around it, remembering what it has seen.

    `there` are those that the segment keeps beside them, `known` those that have a number, and `room` is how many
    others can get one. Any thread may ask.
    """

    def __init__(self, there: Iterable[str] = (), *, known: Iterable[str] = (), room: int = MAX_NUMBER) -> None:
        self._there = frozenset(there)
        self._numbered = frozenset(known)
        self._room = room
        self._known: dict[str, str | None] = {}
        self._alone = threading.Lock()

    def normal(self, cells: pl.Series) -> pl.Series:
        """The normal form of each cell, null where it is none; FileRefused where the segment would have too many."""
        values = cells.drop_nulls().unique()
        with self._alone:
            for value in values:
                if value not in self._known:
                    normal = unicodedata.normalize("NFC", value.strip())
                    self._known[value] = None if partition_problem(normal) else normal
            given = {normal for normal in self._known.values() if normal}
            if len(given) > MAX_PARTITIONS:
                raise FileRefused(
                    f"The second column has more than {MAX_PARTITIONS} different values. It must hold the partition."
                )
            if len(given | self._there) > MAX_PARTITIONS and not given <= self._there:
                raise FileRefused(
                    f"With the second column's values the segment would have more than {MAX_PARTITIONS} partitions. "
                    "Remove those that are not used any more.",
                    code="too_many_partitions",
                )
            if len(given - self._numbered) > self._room:
                raise FileRefused(
                    f"With the second column's values the segment would have had more than {MAX_NUMBER} partitions, "
                    "which is all that its history can hold. Fill a new segment.",
                    code="too_many_partitions",
                )
            changed = {value: normal for value, normal in self._known.items() if normal != value}
        return cells.replace(list(changed), list(changed.values())) if changed else cells
