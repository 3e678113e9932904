"""The schedule of a segment (S1, S2, S26 to S37)."""

from __future__ import annotations

from uuid import UUID

from fastapi import Response
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.api import runs
from ingestd.api.context import Caller, Principal, Reading, Scope, Service, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import SegmentId
from ingestd.api.routes import Router
from ingestd.api.schedules import Owner, ScheduleIn, ScheduleOut, pause, remove, resume, save, shown
from ingestd.api.segments import visible
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.domain.run import RunView
from ingestd.domain.schedule import OwnerKind
from ingestd.ingest.segments import refuse_filtered
from ingestd.store import accounts, schedules, segments

router = Router(prefix="/v1/segments/{segment_id}", tags=["Schedules"])


async def _segment(tx: AsyncSession, caller: Principal, segment_id: UUID, *, lock: bool = False) -> Owner:
    """A segment as the owner of a schedule, or NotFound."""
    segment = await segments.get(tx, caller.account_id, segment_id, lock=lock)
    return Owner(OwnerKind.SEGMENT, segment.id, ids.show(Prefix.SEGMENT, segment.id), segment.is_scheduled)


async def _held(tx: AsyncSession, caller: Principal, segment_id: UUID) -> Owner:
    """The same, its account and itself held by this transaction."""
    await accounts.lock(tx, caller.account_id)
    return await _segment(tx, caller, segment_id, lock=True)


@router.get(
    "/schedule",
    operation_id="segments_schedule",
    summary="Show a segment's schedule",
    dependencies=[needs(Scope.SEGMENTS_READ)],
)
async def get_one(segment_id: SegmentId, tx: Reading, caller: Caller) -> ScheduleOut:
    """When its file is fetched, and from where; 404 where it has no schedule."""
    await visible(tx, caller, segment_id)
    return shown(await schedules.get(tx, caller.account_id, segment_id), await accounts.get(tx, caller.account_id))


@router.put(
    "/schedule",
    operation_id="segments_put_schedule",
    summary="Give a segment a schedule",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def put_one(segment_id: SegmentId, body: ScheduleIn, tx: Tx, caller: Caller, match: IfMatch) -> ScheduleOut:
    """Make or replace a segment's schedule; it counts from now on, and one that is paused stays so.

    It rests while the segment is not in use or takes manual uploads, and begins anew when the segment is activated. 409
    for a filter segment, which takes no files.
    """
    owner = await _held(tx, caller, segment_id)
    refuse_filtered(await segments.get(tx, caller.account_id, segment_id))
    return await save(tx, caller, owner, body, match)


@router.delete(
    "/schedule",
    status_code=204,
    operation_id="segments_drop_schedule",
    summary="Take a segment's schedule away",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def delete_one(segment_id: SegmentId, tx: Tx, caller: Caller, match: IfMatch) -> None:
    """Fetch nothing for the segment any more; a run that has begun goes on, and its runs stay in the log."""
    await remove(tx, caller, await _held(tx, caller, segment_id), match)


@router.post(
    "/schedule/pause",
    operation_id="segments_pause_schedule",
    summary="Pause a segment's schedule",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def pause_one(segment_id: SegmentId, tx: Tx, caller: Caller) -> ScheduleOut:
    """Make no runs until it is resumed; one can still be asked for. 409 where it is paused already."""
    return await pause(tx, caller, await _held(tx, caller, segment_id))


@router.post(
    "/schedule/resume",
    operation_id="segments_resume_schedule",
    summary="Resume a segment's schedule",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def resume_one(segment_id: SegmentId, tx: Tx, caller: Caller) -> ScheduleOut:
    """Run again from now on; what was due meanwhile is not made up for. 409 where it is not paused."""
    return await resume(tx, caller, await _held(tx, caller, segment_id))


@router.post(
    "/runs",
    status_code=202,
    operation_id="segments_run",
    summary="Run a segment's schedule now",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def run_now(segment_id: SegmentId, tx: Tx, service: Service, caller: Caller, response: Response) -> RunView:
    """Fetch the segment's file now, also while its schedule is paused; follow the run that this answers.

    404 without a schedule; 409 where the segment is not in use, or while a run of it goes on.
    """
    owner = await _held(tx, caller, segment_id)
    return await runs.start(tx, service, caller, owner, response)
