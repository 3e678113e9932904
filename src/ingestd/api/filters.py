"""Filter segments: who is in them is said by a condition over attributes (D41, S140)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Response
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.api import audit, etags
from ingestd.api.context import Caller, Parts, Principal, Reading, Scope, Service, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import SegmentId
from ingestd.api.model import In
from ingestd.api.routes import Router
from ingestd.api.segments import Description, SegmentName, SegmentOut, note_made
from ingestd.domain import ids
from ingestd.domain.condition import Condition, by_name, condition_problems, written
from ingestd.domain.errors import Conflict, Invalid
from ingestd.domain.ids import Prefix
from ingestd.domain.personal import MASK
from ingestd.domain.segment import Method, SegmentStatus, SegmentType, UploadType
from ingestd.ingest.filters import open_condition, seal_condition
from ingestd.ingest.segments import make
from ingestd.store import accounts, conditions, segments
from ingestd.store.conditions import Meanings
from ingestd.store.engine import new_id, utc_now
from ingestd.store.segments import Segment

router = Router(prefix="/v1", tags=["Segments"])

Filter = Annotated[
    Condition,
    Field(
        description="A comparison of one attribute, or `all`, `any` or `not` of conditions. Of personal attributes "
        "only equals, in and exists can be asked.",
        examples=[{"all": [{"attribute": "TIER", "op": "equals", "value": "gold"}]}],
    ),
]


class ConditionIn(In):
    """A condition."""

    condition: Filter


class FilterPreviewOut(BaseModel):
    """How many people fit a condition now."""

    count: int


class FilterSegmentIn(In):
    """A new segment whose members are all who fit a condition, as a draft: nothing happens until it is activated."""

    name: SegmentName
    description: Description
    type: SegmentType
    condition: Filter


class ConditionOut(BaseModel):
    """The condition of a segment, the values compared with personal attributes masked; null where files fill it."""

    condition: dict[str, Any] | None


@router.post(
    "/filters/preview",
    operation_id="filters_preview",
    summary="Count who fits a condition",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def preview(body: ConditionIn, tx: Reading, service: Service, caller: Caller) -> FilterPreviewOut:
    """How many people would be in a segment with this condition; nothing is made."""
    meanings = await _checked(tx, caller, body.condition)
    keys = await service.intake.keys(caller.account_id, tx)
    return FilterPreviewOut(
        count=await conditions.count(tx, caller.account_id, conditions.matches(body.condition, meanings, keys))
    )


@router.post(
    "/filters",
    status_code=201,
    operation_id="filters_create",
    summary="Make a filter segment",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def create(body: FilterSegmentIn, tx: Tx, service: Service, caller: Caller, response: Response) -> SegmentOut:
    """Make a segment of all who fit a condition, over attributes that may be used in segments.

    Once it is activated its members are found in the account's order of ingestions, and again after each ingestion
    that brought one of its attributes, before that one is completed (S75). No file can be uploaded for it.
    """
    condition = by_name(body.condition, await _checked(tx, caller, body.condition))
    id_ = new_id()
    segment = Segment(
        id=id_,
        account_id=caller.account_id,
        name=body.name,
        description=body.description,
        type=body.type,
        method=Method.FILTER,
        upload_type=UploadType.MANUAL,
        condition=seal_condition(await service.intake.keys(caller.account_id, tx), id_, condition),
        status=SegmentStatus.DRAFT,
        members=0,
        webhook_ids=[],
        created_at=utc_now(),
    )
    made = note_made(tx, caller, await make(tx, segment))
    response.headers["Location"] = f"{router.prefix}/segments/{made.id}"
    return made


@router.get(
    "/segments/{segment_id}/condition",
    operation_id="segments_condition",
    summary="Show the condition of a filter segment",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def get_condition(
    segment_id: SegmentId, tx: Reading, service: Service, caller: Caller, response: Response
) -> ConditionOut:
    """The condition of a segment, null where it is not a filter segment."""
    segment = await segments.get(tx, caller.account_id, segment_id)
    shown = await _shown(tx, service, caller, segment)
    response.headers["ETag"] = shown.tag
    return shown.face


@router.put(
    "/segments/{segment_id}/condition",
    operation_id="segments_put_condition",
    summary="Change the condition of a filter segment",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def put_condition(  # noqa: PLR0913 -- what FastAPI hands over
    segment_id: SegmentId,
    body: ConditionIn,
    *,
    tx: Tx,
    service: Service,
    caller: Caller,
    match: IfMatch,
    response: Response,
) -> ConditionOut:
    """Say anew who is in a filter segment; 409 for one that files fill.

    The members of a segment in use are found anew in the account's order of ingestions, and stand as they were until
    then; a draft's or an inactive one's when it is activated.
    """
    account = await accounts.lock(tx, caller.account_id)
    segment = await segments.get(tx, account.id, segment_id, lock=True)
    before = await _shown(tx, service, caller, segment)
    match.check(before.tag)
    if segment.method != Method.FILTER:
        raise Conflict("Files fill this segment: it has no condition.", code="segment_unfiltered")
    condition = by_name(body.condition, await _checked(tx, caller, body.condition))
    segment.condition = seal_condition(await service.intake.keys(account.id, tx), segment.id, condition)
    if SegmentStatus(segment.status).takes_files:
        segment.behind = segment.id  # an ingestion that ends before asks it of everybody, too
        seq = await accounts.take_seq(tx, account.id)
        await service.intake.jobs.enqueue_filtering(tx, segment_id=segment.id, account_id=account.id, seq=seq)
    after = await _shown(tx, service, caller, segment)
    audit.note(
        tx,
        caller,
        "segment.condition_changed",
        ids.show(Prefix.SEGMENT, segment.id),
        before=_masked(before.condition),
        after=_masked(after.condition),
    )
    response.headers["ETag"] = after.tag
    return after.face


@dataclass(frozen=True, slots=True)
class _Shown:
    """The condition of a segment, as it is shown, and its ETag, which also follows the values that are masked."""

    condition: Condition | None
    face: ConditionOut
    tag: str


async def _shown(tx: AsyncSession, service: Parts, caller: Principal, segment: Segment) -> _Shown:
    condition, mac = None, b""
    if segment.condition is not None:
        keys = await service.intake.keys(caller.account_id, tx)
        condition = open_condition(keys, segment.id, segment.condition)
        mac = keys.mac("condition", segment.id.bytes + written(condition))
    face = _masked(condition, await _meanings(tx, caller))
    return _Shown(condition, face, etags.with_hidden(face, mac))


async def _checked(tx: AsyncSession, caller: Principal, condition: Condition) -> Meanings:
    meanings = await _meanings(tx, caller)
    problems = condition_problems(condition, meanings, "/body/condition")
    if problems:
        raise Invalid("The condition does not fit.", code="condition_incorrect", problems=tuple(problems))
    return meanings


async def _meanings(tx: AsyncSession, caller: Principal) -> Meanings:
    connection = await tx.connection()
    return await connection.run_sync(conditions.meanings_of, caller.account_id)


def _masked(condition: Condition | None, meanings: Meanings | None = None) -> ConditionOut:
    """A condition as it is shown, or with no value at all: in the audit trail its attribute may become personal yet."""
    if condition is None:
        return ConditionOut(condition=None)
    personal = None if meanings is None else {name for name, meaning in meanings.items() if meaning.personal}

    def part(shown_: Any) -> Any:
        if isinstance(shown_, list):
            return [part(each) for each in shown_]
        if "attribute" not in shown_:
            return {name: part(each) for name, each in shown_.items()}
        hidden = (personal is None or shown_["attribute"] in personal) and shown_["value"] is not None
        return shown_ | ({"value": MASK} if hidden else {})

    return ConditionOut(condition=part(condition.model_dump(mode="json", by_alias=True)))
