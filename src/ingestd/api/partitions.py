"""Partitions of a segment: one for each value of its files; renamed, disabled, removed (S39 to S41, S45)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, with_config
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import TypedDict

from ingestd.api import audit
from ingestd.api.context import Caller, Principal, Reading, Scope, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import PartitionId, SegmentId
from ingestd.api.model import STRICT, Name, Out
from ingestd.api.routes import Router
from ingestd.api.segments import visible
from ingestd.domain import ids
from ingestd.domain.errors import Invalid, NotFound, Problem
from ingestd.domain.ids import Prefix
from ingestd.domain.moment import Moment
from ingestd.domain.segment import SegmentType
from ingestd.store import members, partitions, segments
from ingestd.store.partitions import Partition
from ingestd.store.segments import Segment

router = Router(prefix="/v1/segments/{segment_id}/partitions", tags=["Segments"])


class PartitionRef(BaseModel):
    """A partition, named."""

    id: str
    name: str


class PartitionOut(Out):
    """A partition: `value` as the files have it, `name` as it is shown, and how many members it has.

    A disabled one, and who is in it, is hidden from services that use segments.
    """

    name: str
    value: str
    disabled: bool
    members: int
    created_at: Moment


class PartitionsOut(BaseModel):
    """The partitions of a segment, in the order of their first coming."""

    data: list[PartitionOut]


@with_config(STRICT)
class PartitionPatch(TypedDict, total=False):
    """A change of a partition."""

    name: Name
    disabled: bool


def ref(partition: Partition) -> PartitionRef:
    """A partition, named."""
    return PartitionRef(id=ids.show(Prefix.PARTITION, partition.id), name=partition.name)


def moment_of(segment: Segment, as_of: datetime | None) -> datetime | None:
    """The moment that is asked for; Invalid where the segment keeps no history (S6)."""
    if as_of is not None and segment.type != SegmentType.SCD:
        problem = Problem("/query/as_of", "no_history", "The segment is Non-SCD: it keeps only the present.")
        raise Invalid("There is no history.", problems=(problem,))
    return as_of


async def seen(
    tx: AsyncSession, caller: Principal, segment: Segment, wanted: PartitionId | None = None
) -> dict[int, Partition]:
    """The partitions that the caller can see by their numbers, those removed since too; or the one that is wanted."""
    found = await partitions.of_segment(tx, segment, disabled_too=caller.may(Scope.SEGMENTS_WRITE), removed_too=True)
    chosen = {each.number: each for each in found if wanted in {None, each.id}}
    if wanted is not None and not chosen:
        raise NotFound("There is no such partition.")
    return chosen


def _shown(partition: Partition, members: int | None = None) -> PartitionOut:
    return PartitionOut(
        id=ids.show(Prefix.PARTITION, partition.id),
        name=partition.name,
        value=partition.value,
        disabled=partition.disabled,
        members=partition.members if members is None else members,
        created_at=partition.created_at,
    )


@router.get(
    "",
    operation_id="segments_partitions",
    summary="List the partitions of a segment",
    dependencies=[needs(Scope.SEGMENTS_READ)],
)
async def list_all(
    segment_id: SegmentId,
    tx: Reading,
    caller: Caller,
    as_of: Annotated[Moment | None, Query(description="With the members of this moment; SCD only.")] = None,
) -> PartitionsOut:
    """A segment's partitions, at most 1,000; none before its first refresh (S40); or those that it had at a moment."""
    segment = await visible(tx, caller, segment_id)
    moment = moment_of(segment, as_of)
    may_see_all = caller.may(Scope.SEGMENTS_WRITE)
    if moment is None:
        found = await partitions.of_segment(tx, segment, disabled_too=may_see_all)
        return PartitionsOut(data=[_shown(each) for each in found])
    ever = await partitions.of_segment(tx, segment, disabled_too=may_see_all, removed_too=True)
    counts = await members.counts(tx, segment, moment)
    return PartitionsOut(data=[_shown(each, counts.get(each.number, 0)) for each in ever if each.was_there(moment)])


@router.get(
    "/{partition_id}",
    operation_id="segments_partition",
    summary="Show a partition",
    dependencies=[needs(Scope.SEGMENTS_READ)],
)
async def get_one(segment_id: SegmentId, partition_id: PartitionId, tx: Reading, caller: Caller) -> PartitionOut:
    """One partition."""
    segment = await visible(tx, caller, segment_id)
    disabled_too = caller.may(Scope.SEGMENTS_WRITE)
    return _shown(await partitions.get(tx, segment, partition_id, disabled_too=disabled_too))


@router.patch(
    "/{partition_id}",
    operation_id="segments_change_partition",
    summary="Rename or disable a partition",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def change(
    segment_id: SegmentId, partition_id: PartitionId, body: PartitionPatch, tx: Tx, caller: Caller, match: IfMatch
) -> PartitionOut:
    """Rename a partition, hide it from services that use segments, or show it again; files go on by its value."""
    segment = await segments.get(tx, caller.account_id, segment_id, lock=True)
    partition = await partitions.get(tx, segment, partition_id)
    before = _shown(partition)
    match.check(before)
    partition.name = body.get("name", partition.name)
    partition.disabled = body.get("disabled", partition.disabled)
    await tx.run_sync(partitions.write)
    return audit.changed(tx, caller, "partition.changed", before, _shown(partition))


@router.delete(
    "/{partition_id}",
    status_code=204,
    operation_id="segments_remove_partition",
    summary="Remove a partition",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def remove(segment_id: SegmentId, partition_id: PartitionId, tx: Tx, caller: Caller, match: IfMatch) -> None:
    """Remove a partition: its members leave the segment now. A later file that has its value brings it back.

    To keep a partition out of use whatever the files say, disable it.
    """
    await segments.get(tx, caller.account_id, segment_id)
    now = await segments.lock_members(tx, segment_id)
    segment = await segments.get(tx, caller.account_id, segment_id, lock=True)
    partition = await partitions.get(tx, segment, partition_id)
    before = _shown(partition)
    match.check(before)
    await partitions.remove(tx, segment, partition, now=now)
    audit.note(tx, caller, "partition.removed", before.id, before=before)
