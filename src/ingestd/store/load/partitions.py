"""The partitions of a segment as files fill it: the numbers that stand for their values, and how many are in each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import numpy as np
import polars as pl
from psycopg import Connection

from ingestd.domain.segment import MAX_NUMBER, MAX_PARTITIONS, SegmentType
from ingestd.store.engine import new_id
from ingestd.store.load.stage import Cursors, cursor

PARTITIONS: Final = """
SELECT number, value, members, removed_at IS NULL, disabled FROM partitions WHERE segment_id = %(segment)s
"""
NEW_PARTITION: Final = """
INSERT INTO partitions (id, account_id, segment_id, number, value, name, disabled, members, created_at)
SELECT %(id)s, %(account)s, %(segment)s, %(number)s, %(value)s::text, free.name, false, 0, %(moment)s
FROM generate_series(1, %(names)s) AS place,
    LATERAL (SELECT %(value)s::text || CASE WHEN place > 1 THEN ' (' || place || ')' ELSE '' END AS name) free
WHERE NOT EXISTS (
    SELECT FROM partitions p WHERE p.segment_id = %(segment)s AND p.removed_at IS NULL AND p.name = free.name
)
ORDER BY place LIMIT 1
ON CONFLICT (segment_id, number) DO UPDATE SET removed_at = NULL, name = excluded.name
"""

REMOVE_EMPTY: Final = {
    SegmentType.SCD: """
UPDATE partitions SET removed_at = %(moment)s WHERE segment_id = %(segment)s AND removed_at IS NULL AND members = 0
""",
    SegmentType.NON_SCD: "DELETE FROM partitions WHERE segment_id = %(segment)s AND members = 0",
}


@dataclass(frozen=True, slots=True)
class Numbered:
    """The partitions of a segment by their values: their numbers where they are `there`, and of those that were before.

    What `was` comes back under its number, which those who were in it have, too; not what was hidden, since who was in
    that stays hidden. `taken` are all numbers, also of such.
    """

    there: dict[str, int]
    was: dict[str, int]
    members: dict[int, int]
    taken: set[int]

    @property
    def known(self) -> set[str]:
        """The values that need no new number."""
        return {*self.there, *self.was}

    @property
    def room(self) -> int:
        """How many partitions more there can be that never were."""
        return MAX_NUMBER - len(self.taken)


def partitions_of(connection: Connection[Any], segment_id: UUID) -> Numbered:
    """The partitions that a segment has or had."""
    with cursor(connection) as cur:
        found = cur.execute(PARTITIONS, {"segment": segment_id}).fetchall()
    return Numbered(
        there={value: number for number, value, _, there, _ in found if there},
        was={value: number for number, value, _, there, disabled in found if not (there or disabled)},
        members={number: members for number, _, members, there, _ in found if there},
        taken={number for number, *_ in found},
    )


class Partitions:
    """The partitions of a segment during a refresh, as they were found at its beginning.

    `number` leaves the transaction and all counts alone, so that a thread can ask it while another counts and writes.
    """

    def __init__(self, found: Numbered) -> None:
        self._numbers, self._was, self._members = found.there, found.was, found.members
        self._free = (number for number in itertools.count(1) if number not in found.taken)
        self._new: list[str] = []

    def number(self, values: pl.Series) -> pl.Series:
        """The numbers of partitions; one that is new gets that which it had before, or the next that is free."""
        for value in values.unique():
            if value not in self._numbers:
                self._numbers[value] = self._was.get(value) or next(self._free)
                self._new.append(value)
        return values.replace_strict(self._numbers, return_dtype=pl.Int16)

    def count(self, numbers: pl.Series, sign: int) -> None:
        """Count members into their partitions, or out of them."""
        for number, count in zip(*np.unique(numbers.to_numpy(), return_counts=True), strict=True):
            self._members[int(number)] = self._members.get(int(number), 0) + sign * int(count)

    @property
    def members(self) -> int:
        """How many members are in all of them."""
        return sum(self._members.values())

    def write(self, cur: Cursors, names: Mapping[str, Any]) -> None:
        """Write those that are new, and how many members each has; the caller has written the segment's row."""
        for value in self._new:
            new = {"id": new_id(), "value": value, "number": self._numbers[value], "names": len(self._numbers)}
            cur.execute(NEW_PARTITION, {**names, **new})
        cur.executemany(
            "UPDATE partitions SET members = %s WHERE segment_id = %s AND number = %s",
            [(count, names["segment"], number) for number, count in self._members.items()],
        )

    def remove_empty(self, cur: Cursors, names: Mapping[str, Any], kind: SegmentType) -> None:
        """Remove those that nobody is in, once there are more than a segment may have."""
        if len(self._numbers) > MAX_PARTITIONS:
            cur.execute(REMOVE_EMPTY[kind], names)
