"""Segments: made in two steps, edited as a draft, in use or not (S1 to S16, S38 to S45)."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, Query, Response
from pydantic import BaseModel, Field, with_config
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import TypedDict

from ingestd.api import audit
from ingestd.api.context import Caller, Principal, Reading, Scope, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import PartitionId, SegmentId
from ingestd.api.model import STRICT, In, Name, Out, Stem
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.errors import Conflict
from ingestd.domain.ids import Prefix
from ingestd.domain.moment import Moment
from ingestd.domain.segment import (
    CHANNELS,
    MAX_PARTITIONS,
    Draft,
    Method,
    SegmentStatus,
    SegmentType,
    UploadType,
)
from ingestd.ingest.segments import make, refuse_filtered, remove
from ingestd.store import segments
from ingestd.store.engine import new_id, utc_now
from ingestd.store.segments import Segment

router = Router(prefix="/v1/segments", tags=["Segments"])


SegmentName = Annotated[
    Stem,
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


def draft_of(segment: Segment) -> DraftOut | None:
    """A segment's edits that are not published, as the API shows them."""
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
        draft=draft_of(segment),
        members=segment.members,
        channels=CHANNELS,
        webhooks=[ids.show(Prefix.WEBHOOK, each) for each in segment.webhook_ids],
        refreshed_at=segment.refreshed_at,
        data_as_of=segment.data_as_of,
        created_at=segment.created_at,
    )


def note_made(tx: AsyncSession, caller: Principal, segment: Segment) -> SegmentOut:
    """Note in the audit trail that the caller made a segment, and give it as the API shows it."""
    made = shown(segment)
    audit.note(tx, caller, "segment.created", made.id, after=made)
    return made


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
    made = note_made(tx, caller, await make(tx, segment))
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
    if "upload_type" in body:
        refuse_filtered(segment)
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

    It is gone at once, and files on their way to it are cancelled; one for a data source, whose people were to be put
    into it, only warns that they were not. What is stored of its members is removed within the hour.
    """
    await segments.get(tx, caller.account_id, segment_id)
    now = await segments.lock_members(tx, segment_id)
    segment = await segments.get(tx, caller.account_id, segment_id, lock=True)
    before = shown(segment)
    match.check(before)
    if SegmentStatus(segment.status).takes_files:
        raise Conflict(f"The segment is {segment.status}: deactivate it first.", code="segment_in_use")
    await remove(tx, segment, now=now)
    audit.note(tx, caller, "segment.deleted", before.id, before=before)
