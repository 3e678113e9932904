"""A file of a segment against its members: who enters, who moves, who leaves, in one transaction (S5, S6, D6, D40).

Bucket by bucket, by ranges of the identifiers' hashes, the present members are fetched and compared here; only what
changed is written. Of an SCD segment a membership that ends is closed, of another it is deleted; one that begins is
added. So repeating a file writes nothing, and nobody sees a part of a refresh.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import numpy as np
import polars as pl
from psycopg import Connection, sql
from psycopg.rows import tuple_row

from ingestd.domain.errors import IngestdError
from ingestd.domain.segment import SegmentType
from ingestd.store.engine import new_id
from ingestd.store.load.binary import Constant, Field, from_digits
from ingestd.store.load.stage import Cursors, Load, copy, cursor, probe_only
from ingestd.store.segments import LOCK_MEMBERS

FIELDS: Final[dict[str, Field]] = {"hash": "uuid", "kind": "smallint", "partition": "smallint", "value": "text"}
GONE: Final[dict[str, Field]] = {"hash": "uuid"}
RANGE: Final = 16**4
"""Buckets are ranges of the first four hexadecimal digits of a hash."""

KEY: Final = ["high", "low"]
"""The two halves of a hash, as numbers: joined three times as fast as its digits."""

SEGMENT: Final = """
SELECT type, members, clock_timestamp() FROM segments
WHERE account_id = %(account)s AND id = %(segment)s AND deleted_at IS NULL
"""

ANYBODY: Final = """
SELECT EXISTS (
    SELECT FROM segment_members
    WHERE account_id = %(account)s AND segment_id = %(segment)s AND valid_to IS NULL
)
"""

# Both aggregates read the rows in one order. A COPY would hand them over one by one, each with a call of Python.
PRESENT: Final = """
SELECT string_agg(uuid_send(hash), ''), string_agg(int2send(partition), '') FROM segment_members
WHERE account_id = %(account)s AND segment_id = %(segment)s AND valid_to IS NULL
    AND hash BETWEEN %(first)s AND %(last)s
"""

# LIMIT keeps this a probe of the key for each of them, whatever the planner believes of tables that were just filled; a
# row is then found again by its place, which is safe under the lock of the members.
_LASTING: Final = """
SELECT found.place FROM gone CROSS JOIN LATERAL (
    SELECT m.ctid AS place FROM segment_members m
    WHERE m.account_id = %(account)s AND m.segment_id = %(segment)s AND m.hash = gone.hash AND m.valid_to IS NULL
    LIMIT 1
) found
"""
CLOSE: Final = _LASTING.join(
    ("UPDATE segment_members m SET valid_to = %(moment)s FROM (", ") l WHERE m.ctid = l.place")
)
REMOVE: Final = _LASTING.join(("DELETE FROM segment_members m USING (", ") l WHERE m.ctid = l.place"))

NEW_PARTITION: Final = """
INSERT INTO partitions (id, account_id, segment_id, number, value, name, disabled, members, created_at)
SELECT %(id)s, %(account)s, %(segment)s, coalesce(max(number), 0) + 1, %(value)s::text,
    CASE WHEN bool_or(name = %(value)s::text AND removed_at IS NULL) THEN %(value)s::text || ' (' || count(*) + 1 || ')'
         ELSE %(value)s::text END,
    false, 0, %(moment)s
FROM partitions WHERE segment_id = %(segment)s
RETURNING number
"""

FINISH: Final = """
UPDATE segments SET members = %(members)s, refreshed_at = %(moment)s,
    status = CASE status WHEN 'in_progress' THEN 'active' ELSE status END,
    data_as_of = coalesce((SELECT data_as_of FROM runs WHERE ingestion_id = %(ingestion)s), %(received)s)
WHERE id = %(segment)s
"""

SNAPSHOT: Final = """
INSERT INTO segment_snapshots (id, account_id, segment_id, ingestion_id, taken_at, members, entered, "left", moved)
VALUES (%(id)s, %(account)s, %(segment)s, %(ingestion)s, %(moment)s, %(members)s, %(entered)s, %(left)s, %(moved)s)
"""


class TooManyLeave(IngestdError):
    """The refresh would remove more members than it may without being confirmed; nothing was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """What is done to which segment: `additive` leaves those who are not in the file where they are.

    With more than the share `hold_above` of the members about to leave, TooManyLeave is raised.
    """

    segment_id: UUID
    additive: bool
    hold_above: float | None


@dataclass(slots=True)
class Refreshed:
    """How many entered (`created`), moved (`updated`), left (`removed`) and stayed.

    `erased` rows were skipped (T115); `doubled` counts the partitions that a later row of the same person overrode.
    """

    created: int = 0
    updated: int = 0
    removed: int = 0
    unchanged: int = 0
    erased: int = 0
    doubled: int = 0


Bucket = tuple[pl.DataFrame, pl.DataFrame]
"""The file's accepted rows in one range of hashes, as `pipeline.parts` wrote them, and the present members in it."""


def present(connection: Connection[Any], count: int, refresh: Refresh, *, load: Load) -> Iterator[pl.DataFrame]:
    """The present members of a segment in `count` equal ranges of their hashes: "high", "low", "was" (a partition).

    To be asked for once `apply_segment` holds the lock, on a connection of its own, so that it can be read ahead.
    """
    names = {"account": load.account_id, "segment": refresh.segment_id}
    with connection.cursor(binary=True, row_factory=tuple_row) as cur:
        anybody = cur.execute(ANYBODY, names).fetchall() == [(True,)]
        for number in range(count):
            hashes, partitions = None, None
            if anybody:
                first, last = (-(-edge * RANGE // count) << 112 for edge in (number, number + 1))
                bounds = {"first": UUID(int=first), "last": UUID(int=last - 1)}
                ((hashes, partitions),) = cur.execute(PRESENT, names | bounds).fetchall()
            halves = np.frombuffer(hashes or b"", ">u8").astype(np.uint64).reshape(-1, 2)
            numbers = np.frombuffer(partitions or b"", ">i2").astype(np.int16)
            yield pl.DataFrame({"high": halves[:, 0], "low": halves[:, 1], "was": numbers})


def apply_segment(connection: Connection[Any], buckets: Iterable[Bucket], refresh: Refresh, *, load: Load) -> Refreshed:
    """Bring a segment's members to what a file says, in the caller's transaction; `buckets` cover all hashes."""
    names = {"account": load.account_id, "segment": refresh.segment_id}
    with cursor(connection) as cur:
        cur.execute(LOCK_MEMBERS, names)
        found = cur.execute(SEGMENT, names).fetchone()
        if found is None:
            return Refreshed()  # deleted since the file came
        kind, members, moment = found
        probe_only(cur)
        cur.execute("CREATE TEMP TABLE gone (hash uuid) ON COMMIT DROP")
        work = _Work(cur, names | {"moment": moment}, SegmentType(kind), refresh, members)
        erased = _erased(cur, load)
        for rows, there in buckets:
            work.take(rows, there, erased)
        work.finish(load)
    return work.done


def _erased(cur: Cursors, load: Load) -> pl.Series:
    """The identifiers that were erased after the file was received, by their hashes (T115)."""
    cur.execute(
        "SELECT replace(hash::text, '-', '') FROM tombstones WHERE account_id = %s AND erased_at > %s",
        (load.account_id, load.received_at),
    )
    return pl.Series([hash_ for (hash_,) in cur], dtype=pl.String)


class _Work:
    """One refresh as it goes through the buckets."""

    def __init__(self, cur: Cursors, names: dict[str, Any], kind: SegmentType, refresh: Refresh, members: int) -> None:
        self.done = Refreshed()
        self._cur = cur
        self._names = names
        self._kind = kind
        self._refresh = refresh
        self._may_leave = members if refresh.hold_above is None else refresh.hold_above * members
        self._constants: dict[str, Constant] = {
            "account_id": names["account"],
            "segment_id": names["segment"],
            "valid_from": names["moment"],
        }
        cur.execute(
            "SELECT value, number, members FROM partitions WHERE segment_id = %(segment)s AND removed_at IS NULL", names
        )
        found = cur.fetchall()
        self._numbers: dict[str, int] = {value: number for value, number, _ in found}
        self._members: dict[int, int] = {number: count for _, number, count in found}

    def take(self, rows: pl.DataFrame, present: pl.DataFrame, erased: pl.Series) -> None:
        """Bring one bucket to what the file says."""
        wanted = self._wanted(rows, erased)
        both = side_by_side(present, wanted)
        entered = both["was"].is_null()
        left = both["is"].is_null()
        moved = (both["was"] != both["is"]).fill_null(value=False)
        if self._refresh.additive:
            left &= False
        self.done.created += int(entered.sum())
        self.done.removed += int(left.sum())
        self.done.updated += int(moved.sum())
        self.done.unchanged += int((~(entered | left | moved)).sum())
        if self.done.removed > self._may_leave:
            raise TooManyLeave
        self._end(both.filter(left | moved))
        self._begin(both.filter(entered | moved), rows)

    def _wanted(self, rows: pl.DataFrame, erased: pl.Series) -> pl.DataFrame:
        """Who is to be where: "high", "low", "is", and "at", their row. Of a person's rows the last wins (D6)."""
        if rows.is_empty():
            return pl.DataFrame(schema={"at": pl.UInt32, "high": pl.UInt64, "low": pl.UInt64, "is": pl.Int16})
        halves = from_digits(rows["id"]).view(">u8").astype(np.uint64)
        columns = {"high": halves[:, 0], "low": halves[:, 1], "is": self._number(rows["partition"])}
        wanted = pl.DataFrame(columns).with_row_index("at")
        if erased.len():
            wanted = wanted.filter(~rows["id"].is_in(erased.implode()))
            self.done.erased += rows.height - wanted.height
        if wanted["high"].n_unique() == wanted.height:
            return wanted
        once = wanted.unique(KEY, keep="last")
        self.done.doubled += wanted.select(*KEY, "is").n_unique() - once.height
        return once

    def _number(self, partitions: pl.Series) -> pl.Series:
        """The numbers of partitions; one that is new is made."""
        for value in partitions.unique():
            if value not in self._numbers:
                new = self._names | {"id": new_id(), "value": value}
                row = self._cur.execute(NEW_PARTITION, new).fetchone()
                assert row is not None  # an aggregate has one row
                self._numbers[value] = row[0]
        return partitions.replace_strict(self._numbers, return_dtype=pl.Int16)

    def _end(self, members: pl.DataFrame) -> None:
        if members.is_empty():
            return
        for number, count in members["was"].value_counts().iter_rows():
            self._members[number] = self._members.get(number, 0) - count
        gone = pl.Series("hash", _hexadecimal(members))
        copy(self._cur, sql.Identifier("gone"), pl.DataFrame([gone]), GONE)
        self._cur.execute(CLOSE if self._kind is SegmentType.SCD else REMOVE, self._names)
        self._cur.execute("TRUNCATE gone")

    def _begin(self, members: pl.DataFrame, rows: pl.DataFrame) -> None:
        if members.is_empty():
            return
        for number, count in members["is"].value_counts().iter_rows():
            self._members[number] = self._members.get(number, 0) + count
        new = rows[members["at"]]
        column = next(name for name in rows.columns if name.startswith("k"))
        kind = pl.lit(int(column[1:]), pl.Int16).alias("kind")
        new = new.select(kind, members["is"].alias("partition"), hash="id", value=column).sort("hash")
        copy(self._cur, sql.Identifier("segment_members"), new, FIELDS, self._constants)

    def finish(self, load: Load) -> None:
        """Make the refresh the present one, and of an SCD segment that changed a snapshot."""
        done = self.done
        facts = self._names | {
            "id": new_id(),
            "ingestion": load.ingestion_id,
            "received": load.received_at,
            "members": sum(self._members.values()),
            "entered": done.created,
            "left": done.removed,
            "moved": done.updated,
        }
        self._cur.execute(FINISH, facts)  # first the segment's row, then the partitions', as all writers do
        self._cur.executemany(
            "UPDATE partitions SET members = %s WHERE segment_id = %s AND number = %s",
            [(count, self._names["segment"], number) for number, count in self._members.items()],
        )
        if self._kind is SegmentType.SCD and done.created + done.removed + done.updated:
            self._cur.execute(SNAPSHOT, facts)


def side_by_side(present: pl.DataFrame, wanted: pl.DataFrame) -> pl.DataFrame:
    """Who is there and who is to be, each person once: "was" and "is" are null where they are not.

    Half of the hash does it in half the time; it shows where two people's halves happen to be the same.
    """
    both = present.join(wanted, on="high", how="full", coalesce=True)
    if (both["low"] != both["low_right"]).any():
        return present.join(wanted, on=KEY, how="full", coalesce=True)
    return both.with_columns(low=pl.coalesce("low", "low_right"))


def _hexadecimal(members: pl.DataFrame) -> list[str]:
    """The hashes of members as 32 hexadecimal digits, in their order."""
    halves = members.select(KEY).sort(KEY).to_numpy().astype(">u8")
    text = halves.tobytes().hex()
    return [text[start : start + 32] for start in range(0, len(text), 32)]
