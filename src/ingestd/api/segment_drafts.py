"""A segment on its way into use and out of it: edited as a draft, activated, deactivated (S11, S12, S14, S16, S43)."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.api import audit
from ingestd.api.context import Caller, Reading, Scope, Service, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import SegmentId
from ingestd.api.routes import Router
from ingestd.api.segments import DraftIn, DraftOut, SegmentOut, draft_of, shown, visible
from ingestd.domain.errors import Conflict, NotFound
from ingestd.domain.notice import NoticeType
from ingestd.domain.segment import Draft, Method, SegmentStatus
from ingestd.ingest.segments import refuse_filtered
from ingestd.ingest.tell import tell_of_segment
from ingestd.store import accounts, partitions, schedules, segments
from ingestd.store.engine import utc_now
from ingestd.store.segments import Segment

router = Router(prefix="/v1/segments", tags=["Segments"])


@router.get(
    "/{segment_id}/draft",
    operation_id="segments_draft",
    summary="Show a segment's draft",
    dependencies=[needs(Scope.SEGMENTS_READ)],
)
async def get_draft(segment_id: SegmentId, tx: Reading, caller: Caller) -> DraftOut:
    """The edits that are not published yet; 404 where there are none."""
    draft = draft_of(await visible(tx, caller, segment_id))
    if draft is None:
        raise NotFound("The segment has no draft.")
    return draft


@router.put(
    "/{segment_id}/draft",
    operation_id="segments_put_draft",
    summary="Edit a segment by a draft",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def put_draft(segment_id: SegmentId, body: DraftIn, tx: Tx, caller: Caller, match: IfMatch) -> DraftOut:
    """Save edits, in place of those saved before, without any effect until they are published by `activate` (S11)."""
    segment = await segments.get(tx, caller.account_id, segment_id, lock=True)
    if body.upload_type is not None:
        refuse_filtered(segment)
    for edit in body.partitions:
        await partitions.get(tx, segment, edit.id)
    before = shown(segment)
    match.check(before.draft)
    segment.draft = Draft.model_validate(body.model_dump()).model_dump(mode="json")
    audit.note(tx, caller, "segment.edited", before.id, before=before, after=shown(segment))
    draft = draft_of(segment)
    assert draft is not None  # just set
    return draft


@router.delete(
    "/{segment_id}/draft",
    status_code=204,
    operation_id="segments_drop_draft",
    summary="Drop a segment's draft",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def drop_draft(segment_id: SegmentId, tx: Tx, caller: Caller, match: IfMatch) -> None:
    """Forget the edits; 404 where there are none."""
    segment = await segments.get(tx, caller.account_id, segment_id, lock=True)
    if segment.draft is None:
        raise NotFound("The segment has no draft.")
    before = shown(segment)
    match.check(before.draft)
    segment.draft = None
    audit.note(tx, caller, "segment.draft_dropped", before.id, before=before, after=shown(segment))


@router.post(
    "/{segment_id}/activate",
    operation_id="segments_activate",
    summary="Activate a segment",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def activate(segment_id: SegmentId, tx: Tx, service: Service, caller: Caller, match: IfMatch) -> SegmentOut:
    """*Create*: publish the draft and put the segment into use (S11, S16, S38).

    With the ETag of the draft, or of the segment, in If-Match nothing is published that was not reviewed.

    It is `in_progress` until the next refresh where it has had none or waits for one already, and where its upload type
    is another than at the last one (S44); else `active` at once. The members of a filter segment are found anew, which
    one that was inactive waits for. 409 for a segment in use that has no draft, and for scheduled uploads without a
    schedule, or with one that has no day left to run on.
    """
    account = await accounts.lock(tx, caller.account_id)
    segment = await segments.get(tx, account.id, segment_id, lock=True)
    before = shown(segment)
    match.check(before, before.draft)
    status = SegmentStatus(segment.status)
    if status.takes_files and segment.draft is None:
        raise Conflict(f"The segment is {status} and has no draft.", code="segment_in_use")
    draft = Draft.model_validate(segment.draft or {})
    segment.name = draft.name or segment.name
    segment.description = draft.description or segment.description
    is_behind = segment.method == Method.FILTER and status is not SegmentStatus.ACTIVE
    segment.upload_type = draft.upload_type or segment.upload_type
    waits = status is SegmentStatus.IN_PROGRESS or is_behind or segment.refreshed_as != segment.upload_type
    await _publish(tx, segment, draft)
    segment.draft = None
    segment.status = status.activated(waits=waits)
    after = shown(await tx.run_sync(segments.add, segment))
    runs = await schedules.set_active(tx, account, segment.id, active=segment.is_scheduled, now=utc_now())
    if segment.is_scheduled and not runs:
        raise Conflict("Its uploads are scheduled: give the segment a schedule first.", code="schedule_missing")
    if segment.method == Method.FILTER:
        seq = await accounts.take_seq(tx, account.id)
        await service.intake.jobs.enqueue_filtering(tx, segment_id=segment.id, account_id=account.id, seq=seq)
    await tell_of_segment(tx, NoticeType.SEGMENT_ACTIVATED, segment.id, now=utc_now())
    return audit.changed(tx, caller, "segment.activated", before, after)


async def _publish(tx: AsyncSession, segment: Segment, draft: Draft) -> None:
    """Change the partitions as the draft says; one that is gone since is left out.

    Names are given up before they are taken: one partition can get the name that another has had.
    """
    there = {each.id: each for each in await partitions.of_segment(tx, segment, disabled_too=True)}
    edits = [(there[edit.id], edit) for edit in draft.partitions if edit.id in there]
    names = {partition.id: edit.name for partition, edit in edits if edit.name is not None}
    for partition, edit in edits:
        partition.name = str(partition.id) if partition.id in names else partition.name
        partition.disabled = partition.disabled if edit.disabled is None else edit.disabled
    await tx.flush()
    for partition, _ in edits:
        partition.name = names.get(partition.id, partition.name)
    await tx.run_sync(partitions.write)


@router.post(
    "/{segment_id}/deactivate",
    operation_id="segments_deactivate",
    summary="Deactivate a segment",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def deactivate(segment_id: SegmentId, tx: Tx, caller: Caller) -> SegmentOut:
    """Take a segment out of use, whatever its status (S12, S14); 409 where it is inactive already."""
    account = await accounts.lock(tx, caller.account_id)
    segment = await segments.get(tx, account.id, segment_id, lock=True)
    before = shown(segment)
    segment.status = SegmentStatus(segment.status).deactivated()
    await schedules.set_active(tx, account, segment.id, active=False, now=utc_now())
    await tx.flush()
    await tell_of_segment(tx, NoticeType.SEGMENT_DEACTIVATED, segment.id, now=utc_now())
    return audit.changed(tx, caller, "segment.deactivated", before, shown(segment))
