"""A file of a segment against its members: who enters, who moves, who leaves, in one transaction (S5, S6, D6, D40).

Bucket by bucket, by ranges of the identifiers' hashes, the present members are fetched and compared here; only what
changed is written. Of an SCD segment a membership that ends is closed, of another it is deleted; one that begins is
added. So repeating a file writes nothing, and nobody sees a part of a refresh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import numpy as np
import polars as pl
from psycopg import Connection, sql

from ingestd.domain.errors import IngestdError
from ingestd.domain.segment import SegmentType
from ingestd.hashes import split
from ingestd.store.engine import new_id
from ingestd.store.load.binary import Constant, Field
from ingestd.store.load.partitions import Partitions, partitions_of
from ingestd.store.load.present import KEY, Bucket, find, hashes, in_order, note, pack, repeats, unpack
from ingestd.store.load.stage import Cursors, Load, Packed, cursor, pieces, probe_only, send, tombstones, uuids
from ingestd.store.segments import LOCK_MEMBERS

FIELDS: Final[dict[str, Field]] = {"hash": "uuid", "kind": "smallint", "partition": "smallint", "value": "text"}
NOBODY: Final = {"high": pl.UInt64, "low": pl.UInt64, "is": pl.Int16}

SEGMENT: Final = """
SELECT number, type, members, clock_timestamp() FROM segments
WHERE account_id = %(account)s AND id = %(segment)s AND deleted_at IS NULL
"""

END: Final = {
    SegmentType.SCD: "UPDATE segment_members SET valid_to = %(moment)s",
    SegmentType.NON_SCD: "DELETE FROM segment_members",
}
# An array is found in one walk along the key, page by page; a probe or a join for each of them costs twice as much.
OF_ENDED: Final = """
WHERE segment = %(number)s AND hash = ANY (%(ended)s::uuid[]) AND valid_to IS NULL
"""

# What only adds is no scheduled upload that a segment waits for, unless a run has brought it (S44).
FINISH: Final = """
UPDATE segments SET members = %(members)s, refreshed_at = %(moment)s,
    refreshed_as = CASE WHEN whole OR upload_type = 'manual' THEN upload_type ELSE refreshed_as END,
    status = CASE WHEN status = 'in_progress' AND (whole OR upload_type = 'manual') THEN 'active' ELSE status END,
    data_as_of = coalesce((
        SELECT r.data_as_of FROM ingestions mine
        JOIN ingestions i ON i.file_id = mine.file_id JOIN runs r ON r.ingestion_id = i.id
        WHERE mine.id = %(ingestion)s
    ), %(received)s)
FROM (SELECT NOT %(additive)s OR EXISTS (SELECT FROM runs WHERE ingestion_id = %(ingestion)s) AS whole) given
WHERE id = %(segment)s
"""

SNAPSHOT: Final = """
INSERT INTO segment_snapshots (id, account_id, segment_id, ingestion_id, taken_at, members, entered, "left", moved)
VALUES (%(id)s, %(account)s, %(segment)s, %(ingestion)s, %(moment)s, %(members)s, %(entered)s, %(left)s, %(moved)s)
"""


class TooManyLeave(IngestdError):
    """The refresh would remove more members than it may without being confirmed; nothing was done."""

    def __init__(self, leaving: int, members: int) -> None:
        super().__init__()
        self.leaving = leaving
        self.members = members


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
    `gone` is 1 where the segment was deleted since the file came, and nothing was done.
    """

    created: int = 0
    updated: int = 0
    removed: int = 0
    unchanged: int = 0
    erased: int = 0
    doubled: int = 0
    gone: int = 0


def apply_segment(
    connection: Connection[Any], buckets: Iterable[Bucket], refresh: Refresh, *, load: Load, ahead: Ahead = iter
) -> Refreshed:
    """Bring a segment's members to what a file says, in the caller's transaction; `buckets` cover all hashes.

    `ahead` may read and compare the next bucket while the server writes what the last one changed.
    """
    names = {"account": load.account_id, "segment": refresh.segment_id}
    with cursor(connection) as cur:
        cur.execute(LOCK_MEMBERS, names)
        found = cur.execute(SEGMENT, names).fetchone()
        if found is None:
            return Refreshed(gone=1)
        number, kind, members, moment = found
        probe_only(cur)
        work = _Work(cur, names | {"number": number, "moment": moment}, SegmentType(kind), refresh, members)
        for bucket in ahead(work.compared(buckets, _erased(cur, load))):
            work.take(bucket)
        work.finish(load)
    return work.done


def _erased(cur: Cursors, load: Load) -> pl.DataFrame:
    """The identifiers that were erased after the file was received, by their hashes (T115)."""
    return split(tombstones(cur, load)).rename(lambda name: name.removeprefix("hash_"))


def last_of_each(rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Of each person's rows, in the order of the hashes, the last in the file (D6); and how many it overrode.

    Counted are partitions ("is"), not rows.
    """
    if not repeats(rows["high"]):
        return rows, 0
    once = rows.sort(*KEY, "row_no").unique(KEY, keep="last", maintain_order=True)
    return once, rows.select(*KEY, "is").n_unique() - once.height


@dataclass(frozen=True, slots=True)
class Compared:
    """What becomes of the members of a range: `entered` and `moved` are rows of the file, `moved` with "was" too."""

    entered: pl.DataFrame
    moved: pl.DataFrame
    left: pl.DataFrame
    unchanged: int


def compare(present: pl.DataFrame, wanted: pl.DataFrame) -> Compared:
    """Who is there ("was") against who is to be ("is"): each person once, and both in the order of the hashes."""
    if present.is_empty() or wanted.is_empty():
        return Compared(wanted, wanted.clear().with_columns(was=pl.lit(None, pl.Int16)), present, 0)
    was = present["was"].to_numpy()
    at, same = find(present, wanted)
    at = np.minimum(at, present.height - 1)
    stay = np.zeros(present.height, np.bool_)
    stay[at[same]] = True
    moved = same & (was[at] != wanted["is"].to_numpy())
    return Compared(
        entered=wanted.filter(~same),
        moved=wanted.filter(moved).with_columns(was=pl.Series(was[at[moved]], dtype=pl.Int16)),
        left=present.filter(~stay),
        unchanged=int(np.count_nonzero(same & ~moved)),
    )


@dataclass(frozen=True, slots=True)
class Step:
    """A bucket, what becomes of its members, and what the server is sent for that: nothing is left to compute then.

    `wanted` are its members from now on, each once, `left` those who leave it, `there` those who enter or move.
    `ended` are the hashes of all whose membership ends, `begun` the rows of those whose begins. `erased` and `doubled`
    count as in `Refreshed`.
    """

    bucket: Bucket
    wanted: pl.DataFrame
    both: Compared
    left: pl.DataFrame
    there: pl.DataFrame
    ended: Packed
    begun: list[memoryview]
    erased: int
    doubled: int


Ahead = Callable[[Iterator[Step]], Iterator[Step]]
"""Gives the same steps; it may make each before it is asked for, in a thread of its own."""


class _Work:
    """One refresh as it goes through the buckets.

    `compared` and all that it calls leave the transaction alone, so that a thread can compare the next bucket while
    the server writes what the last one changed.
    """

    def __init__(self, cur: Cursors, names: dict[str, Any], kind: SegmentType, refresh: Refresh, members: int) -> None:
        self.done = Refreshed()
        self._cur = cur
        self._names = names
        self._kind = kind
        self._refresh = refresh
        self._before = members
        self._may_leave = members if refresh.hold_above is None else refresh.hold_above * members
        self._constants: dict[str, Constant] = {
            "segment": names["number"],
            "valid_from": names["moment"],
        }
        self._partitions = Partitions(partitions_of(cur.connection, refresh.segment_id))

    def compared(self, buckets: Iterable[Bucket], erased: pl.DataFrame) -> Iterator[Step]:
        """Say of each bucket what is to be done in it."""
        for bucket in buckets:
            rows = bucket.rows
            if rows.is_empty():
                wanted, skipped, doubled = pl.DataFrame(schema=NOBODY), 0, 0
            else:
                rows = rows.with_columns(self._partitions.number(rows["partition"]).alias("is"))
                kept = rows if erased.is_empty() else rows.join(erased, on=KEY, how="anti", maintain_order="left")
                wanted, doubled = last_of_each(kept)
                skipped = rows.height - kept.height
            yield self._step(bucket, wanted, skipped, doubled)

    def _step(self, bucket: Bucket, wanted: pl.DataFrame, erased: int, doubled: int) -> Step:
        both = compare(bucket.present, wanted)
        left = both.left.clear() if self._refresh.additive else both.left
        there = in_order(pl.concat([both.entered, both.moved.select(both.entered.columns)]))
        ended = in_order(pl.concat([left, both.moved.select(left.columns)]))
        return Step(bucket, wanted, both, left, there, uuids(hashes(ended)), self._begun(there), erased, doubled)

    def _begun(self, members: pl.DataFrame) -> list[memoryview]:
        if members.is_empty():
            return []
        value = next(name for name in members.columns if name.startswith("k"))
        kind = pl.lit(int(value[1:]), pl.Int16).alias("kind")
        rows = members.select(hashes(members), kind, partition="is", value=value)
        return list(pieces(rows, FIELDS, self._constants))

    def take(self, step: Step) -> None:
        """Bring one bucket to what the file says."""
        both, left, there, bucket = step.both, step.left, step.there, step.bucket
        self.done.created += both.entered.height
        self.done.updated += both.moved.height
        self.done.removed += left.height
        self.done.unchanged += both.unchanged + both.left.height - left.height
        self.done.erased += step.erased
        self.done.doubled += step.doubled
        if self.done.removed > self._may_leave:
            return  # nothing will stay of this refresh: who else would leave is only counted
        self._partitions.count(left["was"], -1)
        self._partitions.count(both.moved["was"], -1)
        self._partitions.count(there["is"], 1)
        if left.height + both.moved.height:
            self._cur.execute(END[self._kind] + OF_ENDED, {**self._names, "ended": step.ended})
        send(self._cur, sql.Identifier("segment_members"), [*self._constants, *FIELDS], step.begun)
        changes = left.height + there.height
        if 0 < changes <= bucket.room:
            note(self._cur, self._names, bucket, left=left, there=there)
        elif changes or not (bucket.packed or self._refresh.additive):
            unpack(self._cur, self._names, bucket)
            if not self._refresh.additive:
                pack(self._cur, self._names, bucket, step.wanted)

    def finish(self, load: Load) -> None:
        """Make the refresh the present one, and of an SCD segment that changed a snapshot."""
        done = self.done
        if done.removed > self._may_leave:
            raise TooManyLeave(done.removed, self._before)
        facts = self._names | {
            "id": new_id(),
            "ingestion": load.ingestion_id,
            "received": load.received_at,
            "additive": self._refresh.additive,
            "members": self._partitions.members,
            "entered": done.created,
            "left": done.removed,
            "moved": done.updated,
        }
        self._cur.execute(FINISH, facts)  # first the segment's row, then the partitions', as all writers do
        self._partitions.write(self._cur, self._names)
        if not self._refresh.additive:
            self._partitions.remove_empty(self._cur, self._names, self._kind)
        if self._kind is SegmentType.SCD and done.created + done.removed + done.updated:
            self._cur.execute(SNAPSHOT, facts)
