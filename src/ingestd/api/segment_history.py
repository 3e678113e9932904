"""What became of an SCD segment: its snapshots, and who entered, left and moved between two moments (S5, S6)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from fastapi import Depends, Query
from pydantic import BaseModel

from ingestd.api.context import NO_STORE, Caller, Reading, Scope, needs
from ingestd.api.identifiers import showing
from ingestd.api.ids import SegmentId
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.partitions import PartitionRef, moment_of, ref, seen
from ingestd.api.routes import Router
from ingestd.api.segments import visible
from ingestd.domain import ids
from ingestd.domain.errors import Invalid, Problem
from ingestd.domain.ids import Prefix
from ingestd.domain.moment import Moment
from ingestd.store import members
from ingestd.store.engine import utc_now
from ingestd.store.segments import Snapshot

router = Router(prefix="/v1/segments/{segment_id}", tags=["Segments"])


class SnapshotOut(BaseModel):
    """A refresh that changed something: when it became visible, how many there were then, and what had changed."""

    id: str
    taken_at: Moment
    ingestion: str | None
    members: int
    entered: int
    left: int
    moved: int


class SnapshotPage(Page[SnapshotOut]):
    """Snapshots."""


class MemberChange(StrEnum):
    """What happened to a member."""

    ENTERED = "entered"
    LEFT = "left"
    MOVED = "moved"


class MemberChangeOut(BaseModel):
    """Somebody who was elsewhere at the end than at the beginning; `was` or `now` is null where they were no member."""

    kind: str
    value: str
    change: MemberChange
    was: PartitionRef | None
    now: PartitionRef | None


class MemberChangePage(Page[MemberChangeOut]):
    """Changes, in an order of no meaning."""


@router.get(
    "/snapshots",
    operation_id="segments_snapshots",
    summary="List the snapshots of an SCD segment",
    dependencies=[needs(Scope.SEGMENTS_READ)],
)
async def list_snapshots(
    segment_id: SegmentId,
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(members.SNAPSHOTS, "-taken_at"))],
) -> SnapshotPage:
    """The refreshes that changed something, the last first; of a Non-SCD segment there are none (S5, S6)."""
    segment = await visible(tx, caller, segment_id)
    return asked.page(SnapshotPage, await members.snapshots(tx, segment, asked.cut), _snapshot)


def _snapshot(taken: Snapshot) -> SnapshotOut:
    return SnapshotOut(
        id=ids.show(Prefix.SNAPSHOT, taken.id),
        taken_at=taken.taken_at,
        ingestion=taken.ingestion_id and ids.show(Prefix.INGESTION, taken.ingestion_id),
        members=taken.members,
        entered=taken.entered,
        left=taken.left,
        moved=taken.moved,
    )


@router.get(
    "/changes",
    operation_id="segments_changes",
    summary="List what changed between two moments",
    dependencies=[needs(Scope.SEGMENTS_READ), NO_STORE],
)
async def list_changes(
    *,
    segment_id: SegmentId,
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(members.CHANGES, "id", both_ways=False))],
    since: Annotated[Moment | None, Query(alias="from", description="The earlier moment; default: the first.")] = None,
    until: Annotated[Moment | None, Query(alias="to", description="The later moment; default: now.")] = None,
) -> MemberChangePage:
    """Who entered, who left and who moved, comparing an SCD segment as it was at two moments."""
    segment = await visible(tx, caller, segment_id)
    moment_of(segment, since or segment.created_at)
    since, until = since or segment.created_at, until or utc_now()
    if until < since:
        problem = Problem("/query/to", "order", "Must not be before `from`.")
        raise Invalid("The moments are in the wrong order.", problems=(problem,))
    partitions = await seen(tx, caller, segment)
    found = await members.changes(tx, segment, partitions, asked.cut, since=since, until=until)
    show = await showing(tx, caller)

    def shown(row: Any) -> MemberChangeOut:
        was, now = (None if number is None else ref(partitions[number]) for number in (row.was, row.now))
        change = MemberChange.ENTERED if was is None else MemberChange.LEFT if now is None else MemberChange.MOVED
        return MemberChangeOut(**show(row.kind, row.value), change=change, was=was, now=now)

    return asked.page(MemberChangePage, found, shown)
