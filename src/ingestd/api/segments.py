"""Segments: made in two steps, edited as a draft, in use or not (S1 to S16, S38 to S45)."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, Query, Response
from pydantic import AfterValidator, BaseModel, Field, with_config
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import TypedDict

from ingestd.api import audit
from ingestd.api.context import Caller, Principal, Reading, Scope, Service, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import PartitionId, SegmentId
from ingestd.api.model import STRICT, In, Name, Out
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.errors import Conflict, NotFound
from ingestd.domain.ids import Prefix
from ingestd.domain.moment import Moment
from ingestd.domain.notice import NoticeType
from ingestd.domain.segment import (
    CHANNELS,
    MAX_PARTITIONS,
    Draft,
    Method,
    SegmentStatus,
    SegmentType,
    UploadType,
    segment_name_problem,
)
from ingestd.ingest.tell import tell_account
from ingestd.store import accounts, schedules, segments
from ingestd.store.engine import new_id, utc_now
from ingestd.store.segments import Segment

router = Router(prefix="/v1/segments", tags=["Segments"])


def _segment_name(name: str) -> str:
    if problem := segment_name_problem(name):
        raise ValueError(problem)
    return name


SegmentName = Annotated[
    Name,
    AfterValidator(_segment_name),
    Field(description="Its files are called `<name>__<any suffix>.csv`, so it has no `__`.", examples=["loyalty"]),
]
Description = Annotated[str, Field(min_length=1, max_length=1000, examples=["Who is how loyal"])]


class SegmentIn(In):
    """A new segment whose members files bring, as a draft: nothing happens until it is activated."""

    name: SegmentName
    description: Description
    type: SegmentType
    method: Literal[Method.UPLOAD]
    upload_type: UploadType


@with_config(STRICT)
class SegmentPatch(TypedDict, total=False):
    """A change of a segment that is not in use."""

    name: SegmentName
    description: Description
    type: SegmentType
    upload_type: UploadType


class PartitionEditIn(In):
    """A change of a partition, to be published with the others."""

    id: PartitionId
    name: Name | None = None
    disabled: bool | None = None


class DraftIn(In):
    """Edits to be published together; what is null or absent stays as it is."""

    name: SegmentName | None = None
    description: Description | None = None
    upload_type: UploadType | None = None
    partitions: Annotated[tuple[PartitionEditIn, ...], Field(max_length=MAX_PARTITIONS)] = ()


class PartitionEditOut(BaseModel):
    """A change of a partition that is not published; null: as it is."""

    id: str
    name: str | None
    disabled: bool | None


class DraftOut(BaseModel):
    """Edits that `activate` will publish; null: as it is."""

    name: str | None
    description: str | None
    upload_type: UploadType | None
    partitions: list[PartitionEditOut]


class SegmentOut(Out):
    """A segment; `members` counts those who are in it, `draft` are edits that are not published.

    `refreshed_at` is when its last refresh became visible, `data_as_of` how old that file's data are (D53).
    """

    name: str
    description: str
    type: SegmentType
    method: Method
    upload_type: UploadType
    status: SegmentStatus
    draft: DraftOut | None
    members: int
    channels: list[str]
    webhooks: list[str]
    refreshed_at: Moment | None
    data_as_of: Moment | None
    created_at: Moment


class SegmentPage(Page[SegmentOut]):
    """Segments."""


def _draft(segment: Segment) -> DraftOut | None:
    if segment.draft is None:
        return None
    draft = Draft.model_validate(segment.draft)
    edits = [
        PartitionEditOut(id=ids.show(Prefix.PARTITION, edit.id), name=edit.name, disabled=edit.disabled)
        for edit in draft.partitions
    ]
    return DraftOut(**draft.model_dump(exclude={"partitions"}), partitions=edits)


def shown(segment: Segment) -> SegmentOut:
    """A segment as the API shows it."""
    return SegmentOut(
        id=ids.show(Prefix.SEGMENT, segment.id),
        name=segment.name,
        description=segment.description,
        type=SegmentType(segment.type),
        method=Method(segment.method),
        upload_type=UploadType(segment.upload_type),
        status=SegmentStatus(segment.status),
        draft=_draft(segment),
        members=segment.members,
        channels=CHANNELS,
        webhooks=[ids.show(Prefix.WEBHOOK, each) for each in segment.webhook_ids],
        refreshed_at=segment.refreshed_at,
        data_as_of=segment.data_as_of,
        created_at=segment.created_at,
    )


async def visible(tx: AsyncSession, caller: Principal, segment_id: SegmentId) -> Segment:
    """A segment that the caller can see: without `segments:write` an active one only (S13, S15)."""
    return await segments.get(tx, caller.account_id, segment_id, only_active=not caller.may(Scope.SEGMENTS_WRITE))


@router.post(
    "",
    status_code=201,
    operation_id="segments_create",
    summary="Make a segment",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def create(body: SegmentIn, tx: Tx, caller: Caller, response: Response) -> SegmentOut:
    """Make a segment as a draft, to be looked at before it is activated (S38)."""
    segment = Segment(
        id=new_id(),
        account_id=caller.account_id,
        **body.model_dump(),
        status=SegmentStatus.DRAFT,
        members=0,
        webhook_ids=[],
        created_at=utc_now(),
    )
    made = shown(await tx.run_sync(segments.add, segment))
    audit.note(tx, caller, "segment.created", made.id, after=made)
    await _tell(tx, NoticeType.SEGMENT_CREATED, segment)
    response.headers["Location"] = f"{router.prefix}/{made.id}"
    return made


@router.get("", operation_id="segments_list", summary="List segments", dependencies=[needs(Scope.SEGMENTS_READ)])
async def list_all(  # noqa: PLR0913 -- the filters
    *,
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(segments.SORTS, "created_at"))],
    status: Annotated[list[SegmentStatus] | None, Query(description="In one of these statuses.")] = None,
    type: Annotated[list[SegmentType] | None, Query(description="Of one of these types.")] = None,  # noqa: A002
    method: Annotated[list[Method] | None, Query(description="Made by one of these methods.")] = None,
    q: Annotated[
        str | None, Query(description="With this in the name or description.", min_length=1, max_length=120)
    ] = None,
) -> SegmentPage:
    """The account's segments, oldest first; a key that has only `segments:read` is shown those that are active."""
    statuses = status or []
    if not caller.may(Scope.SEGMENTS_WRITE):
        if statuses and SegmentStatus.ACTIVE not in statuses:
            return asked.page(SegmentPage, [], shown)
        statuses = [SegmentStatus.ACTIVE]
    found = await segments.page(
        tx, caller.account_id, asked.cut, statuses=statuses, types=type or [], methods=method or [], words=q
    )
    return asked.page(SegmentPage, found, shown)


@router.get(
    "/{segment_id}",
    operation_id="segments_get",
    summary="Show a segment",
    dependencies=[needs(Scope.SEGMENTS_READ)],
)
async def get_one(segment_id: SegmentId, tx: Reading, caller: Caller) -> SegmentOut:
    """One segment."""
    return shown(await visible(tx, caller, segment_id))


@router.patch(
    "/{segment_id}",
    operation_id="segments_change",
    summary="Change a segment that is not in use",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def change(segment_id: SegmentId, body: SegmentPatch, tx: Tx, caller: Caller, match: IfMatch) -> SegmentOut:
    """Change a draft or an inactive segment at once; one in use is edited by a draft (409). The type stands once used.

    What is changed of an inactive segment is in force when it is activated (S16).
    """
    segment = await segments.get(tx, caller.account_id, segment_id, lock=True)
    before = shown(segment)
    match.check(before)
    if body and SegmentStatus(segment.status).takes_files:
        raise Conflict(f"The segment is {segment.status}: put the edits into its draft.", code="segment_in_use")
    if body.get("type", segment.type) != segment.type and segment.refreshed_at is not None:
        raise Conflict("The segment has members; its type cannot change any more.", code="segment_in_use")
    for name, value in body.items():
        setattr(segment, name, value)
    after = shown(await tx.run_sync(segments.add, segment))
    return audit.changed(tx, caller, "segment.changed", before, after)


@router.delete(
    "/{segment_id}",
    status_code=204,
    operation_id="segments_delete",
    summary="Delete a segment",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def delete(segment_id: SegmentId, tx: Tx, caller: Caller, match: IfMatch) -> None:
    """Delete a segment with its members and its history, for good; 409 while it is active or in progress.

    It is gone at once; what is stored of its members is removed within the hour.
    """
    await segments.get(tx, caller.account_id, segment_id)
    now = await segments.lock_members(tx, segment_id)
    segment = await segments.get(tx, caller.account_id, segment_id, lock=True)
    before = shown(segment)
    match.check(before)
    if SegmentStatus(segment.status).takes_files:
        raise Conflict(f"The segment is {segment.status}: deactivate it first.", code="segment_in_use")
    await segments.remove(tx, segment, now=now)
    await schedules.remove(tx, segment.id)
    audit.note(tx, caller, "segment.deleted", before.id, before=before)


@router.get(
    "/{segment_id}/draft",
    operation_id="segments_draft",
    summary="Show a segment's draft",
    dependencies=[needs(Scope.SEGMENTS_READ)],
)
async def get_draft(segment_id: SegmentId, tx: Reading, caller: Caller) -> DraftOut:
    """The edits that are not published yet; 404 where there are none."""
    draft = _draft(await visible(tx, caller, segment_id))
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
    for edit in body.partitions:
        await segments.get_partition(tx, segment, edit.id)
    before = shown(segment)
    match.check(before.draft)
    segment.draft = Draft.model_validate(body.model_dump()).model_dump(mode="json")
    audit.note(tx, caller, "segment.edited", before.id, before=before, after=shown(segment))
    draft = _draft(segment)
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
async def activate(segment_id: SegmentId, tx: Tx, service: Service, caller: Caller) -> SegmentOut:
    """*Create*: publish the draft and put the segment into use (S11, S16, S38).

    It is `in_progress` until the next refresh where it has had none, or where another upload type was published (S44);
    else `active` at once. 409 for a segment in use that has no draft, and for scheduled uploads without a schedule. The
    members of a filter segment are found anew.
    """
    account = await accounts.lock(tx, caller.account_id)
    segment = await segments.get(tx, account.id, segment_id, lock=True)
    before = shown(segment)
    status = SegmentStatus(segment.status)
    if status.takes_files and segment.draft is None:
        raise Conflict(f"The segment is {status} and has no draft.", code="segment_in_use")
    draft = Draft.model_validate(segment.draft or {})
    segment.name = draft.name or segment.name
    segment.description = draft.description or segment.description
    waits = segment.refreshed_at is None or draft.upload_type not in {None, segment.upload_type}
    segment.upload_type = draft.upload_type or segment.upload_type
    await _publish(tx, segment, draft)
    segment.draft = None
    segment.status = status.activated(waits=waits)
    after = shown(await tx.run_sync(segments.add, segment))
    runs = await schedules.set_active(tx, account, segment.id, active=segment.is_scheduled, now=utc_now())
    if segment.is_scheduled and not runs:
        raise Conflict("Its uploads are scheduled: give the segment a schedule first.", code="schedule_missing")
    if segment.method == Method.FILTER:
        seq = await accounts.take_seq(tx, account.id)
        await service.intake.engine.enqueue_filtering(tx, segment_id=segment.id, account_id=account.id, seq=seq)
    await _tell(tx, NoticeType.SEGMENT_ACTIVATED, segment)
    return audit.changed(tx, caller, "segment.activated", before, after)


async def _publish(tx: AsyncSession, segment: Segment, draft: Draft) -> None:
    """Change the partitions as the draft says; one that is gone since is left out."""
    there = {each.id: each for each in await segments.partitions(tx, segment, disabled_too=True)}
    for edit in draft.partitions:
        if edit.id in there:
            partition = there[edit.id]
            partition.name = edit.name or partition.name
            partition.disabled = partition.disabled if edit.disabled is None else edit.disabled
    await tx.run_sync(segments.write_partitions)


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
    await _tell(tx, NoticeType.SEGMENT_DEACTIVATED, segment)
    return audit.changed(tx, caller, "segment.deactivated", before, shown(segment))


async def _tell(tx: AsyncSession, notice: NoticeType, segment: Segment) -> None:
    await tell_account(
        tx,
        segment.account_id,
        notice,
        segments.told(segment),
        subject_id=segment.id,
        webhook_ids=segment.webhook_ids,
        now=utc_now(),
    )
