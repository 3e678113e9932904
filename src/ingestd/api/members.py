"""Members of a segment: listed, looked up, exported, as they are or were at a moment (S5, S6)."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Final

from fastapi import Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from ingestd.api.context import NO_STORE, Caller, Parts, Principal, Reading, Scope, Service, needs
from ingestd.api.exports import CSV, Export, written
from ingestd.api.identifiers import Identifiers, Show, first_of, hashed, showing
from ingestd.api.ids import PartitionId, SegmentId
from ingestd.api.model import In
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.partitions import PartitionRef, moment_of, ref, seen
from ingestd.api.routes import Router
from ingestd.api.segments import visible
from ingestd.domain.moment import Moment
from ingestd.domain.segment import Method
from ingestd.store import attributes, members, profiles
from ingestd.store.partitions import Partition
from ingestd.store.segments import Segment, SegmentMember

router = Router(prefix="/v1/segments/{segment_id}", tags=["Segments"])

NDJSON: Final = "application/x-ndjson"
_COLUMNS: Final = ("kind", "value", "partition", "since")

AsOf = Annotated[Moment | None, Query(description="As it was at this moment; of an SCD segment only.")]
Of = Annotated[PartitionId | None, Query(description="In this partition.")]


class MembersLookupIn(In):
    """Up to 1,000 identifiers, and the moment that is meant."""

    identifiers: Identifiers
    as_of: Moment | None = None


class SegmentMemberOut(BaseModel):
    """A member: the identifier that the file had, and the partition it is in since then.

    Of a filter segment, the first identifier of the person; `kind` may be an attribute of the account's own then.
    """

    kind: str
    value: str
    partition: PartitionRef
    since: Moment


class SegmentMemberPage(Page[SegmentMemberOut]):
    """Members, in an order of no meaning."""


class Membership(BaseModel):
    """Which partition, and since when."""

    partition: PartitionRef
    since: Moment


class MemberFound(BaseModel):
    """An identifier that was asked for, and where it is, or null."""

    kind: str
    value: str
    member: Membership | None


class MembersLookupOut(BaseModel):
    """The answers, in the order of the questions."""

    data: list[MemberFound]


class ExportFormat(StrEnum):
    """How an export is written."""

    CSV = "csv"
    NDJSON = "ndjson"


def _shown(partitions: Mapping[int, Partition], show: Show) -> Callable[[SegmentMember], SegmentMemberOut]:
    def shown(member: SegmentMember) -> SegmentMemberOut:
        partition = ref(partitions[member.partition])
        return SegmentMemberOut(**show(member.kind, member.value), partition=partition, since=member.valid_from)

    return shown


@router.get(
    "/members",
    operation_id="segments_members",
    summary="List the members of a segment",
    dependencies=[needs(Scope.SEGMENTS_READ), NO_STORE],
)
async def list_members(
    *,
    segment_id: SegmentId,
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(members.SORTS, "id", both_ways=False))],
    partition: Of = None,
    as_of: AsOf = None,
) -> SegmentMemberPage:
    """Who is in a segment or in one partition, or was at a moment; addresses and numbers need `profiles:read_pii`."""
    await members.at_one_moment(tx)
    segment = await visible(tx, caller, segment_id)
    moment = moment_of(segment, as_of)
    partitions = await seen(tx, caller, segment, partition)
    found = await members.page(tx, segment, partitions, asked.cut, moment=moment)
    return asked.page(SegmentMemberPage, found, _shown(partitions, await showing(tx, caller)))


@router.post(
    "/members/lookup",
    operation_id="segments_lookup",
    summary="Look members up by identifier",
    dependencies=[needs(Scope.SEGMENTS_READ), NO_STORE],
)
async def lookup(
    segment_id: SegmentId, body: MembersLookupIn, tx: Reading, service: Service, caller: Caller
) -> MembersLookupOut:
    """Say of up to 1,000 identifiers whether, and where, they are in a segment, or were at a moment.

    In a filter segment are people, so there any identifier of a person will do.
    """
    await members.at_one_moment(tx)
    segment = await visible(tx, caller, segment_id)
    moment = moment_of(segment, body.as_of)
    keys = await service.intake.keys(caller.account_id, tx)
    own = await attributes.identifying(tx, caller.account_id)
    named = [hashed(asked, keys.index_key, own) for asked in body.identifiers]
    hashes = [[hash_ for _, hash_ in some] for some in named]
    if segment.method == Method.FILTER:
        people = await profiles.find_many(tx, caller.account_id, {each for some in named for each in some})
        hashes = [[person.profile_id] if (person := first_of(some, people)) else [] for some in named]
    partitions = await seen(tx, caller, segment)
    found = await members.find(tx, segment, partitions, {each for some in hashes for each in some}, moment=moment)
    answers = [first_of(some, found) for some in hashes]
    return MembersLookupOut(
        data=[
            MemberFound(
                kind=asked.kind,
                value=asked.value,
                member=member and Membership(partition=ref(partitions[member.partition]), since=member.valid_from),
            )
            for asked, member in zip(body.identifiers, answers, strict=True)
        ]
    )


@router.get(
    "/export",
    operation_id="segments_export",
    summary="Export the members of a segment",
    dependencies=[needs(Scope.SEGMENTS_READ), NO_STORE],
    response_class=StreamingResponse,
    responses={
        200: {"content": {CSV: {"schema": {"type": "string"}}, NDJSON: {"schema": {"type": "string"}}}},
    },
)
async def export(  # noqa: PLR0913 -- the filters
    *,
    segment_id: SegmentId,
    request: Request,
    service: Service,
    caller: Caller,
    partition: Of = None,
    as_of: AsOf = None,
    format: Annotated[ExportFormat, Query(description="How it is written.")] = ExportFormat.CSV,  # noqa: A002
) -> Export:
    """All members as they are at one moment, as a stream of CSV or of JSON lines; no cell is a formula (T100)."""
    async with service.intake.sessions() as session:
        segment = await visible(session, caller, segment_id)
        moment = moment_of(segment, as_of)
        await seen(session, caller, segment, partition)
        show = await showing(session, caller)
    rows = _rows(service, caller, segment, partition, show, moment)
    pieces = None if request.state.head else _csv(rows) if format is ExportFormat.CSV else _lines(rows)
    media_type = CSV if format is ExportFormat.CSV else NDJSON
    return Export(service, caller.account_id, pieces, media_type=media_type, name=f"members.{format}")


async def _rows(
    service: Parts, caller: Principal, segment: Segment, partition: Of, show: Show, moment: Moment | None
) -> AsyncGenerator[list[tuple[str, ...]]]:
    """The members, a few at a time, with the cells of `_COLUMNS`."""
    since_of = lru_cache(lambda since: since.isoformat().replace("+00:00", "Z"))  # files brought very many each
    async with service.intake.sessions() as session:
        await members.at_one_moment(session)
        partitions = await seen(session, caller, segment, partition)
        async for some in members.export(session, segment, partitions, moment=moment):
            yield [
                (*show(kind, value).values(), partitions[number].name, since_of(since))
                for kind, value, number, since in some
            ]


async def _csv(rows: AsyncGenerator[list[tuple[str, ...]]]) -> AsyncGenerator[str]:
    yield written([_COLUMNS])
    async with aclosing(rows):
        async for some in rows:
            yield written(some)


async def _lines(rows: AsyncGenerator[list[tuple[str, ...]]]) -> AsyncGenerator[str]:
    async with aclosing(rows):
        async for some in rows:
            yield "".join(json.dumps(dict(zip(_COLUMNS, row, strict=True)), ensure_ascii=False) + "\n" for row in some)
