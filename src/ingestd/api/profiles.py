"""Profiles: looked up by identifier, never through a URL; shown with where each value came from; erased (P9, P10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.api import audit
from ingestd.api.context import NO_STORE, Caller, Parts, Reading, Scope, Service, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.events import EventOut, EventPage
from ingestd.api.identifiers import Identifier, Identifiers, first_of, hashed
from ingestd.api.ids import ProfileId
from ingestd.api.model import In
from ingestd.api.pages import Asked, listing
from ingestd.api.partitions import PartitionRef, ref
from ingestd.api.personal import Sight, sight
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.column import permitted
from ingestd.domain.errors import Invalid, NotFound, Problem
from ingestd.domain.ids import Prefix
from ingestd.domain.ingestion import DataSourceView
from ingestd.domain.moment import Moment
from ingestd.store import attributes, data_sources, erasure, events, ingestions, members, profiles
from ingestd.store.engine import utc_now
from ingestd.store.ingestions import Ingestion
from ingestd.store.profiles import Profile, hashes_of

router = Router(prefix="/v1/profiles", tags=["Profiles"])


class LookupIn(In):
    """Up to 1,000 identifiers."""

    identifiers: Identifiers


class ProfileOut(BaseModel):
    """A person: attributes by name (dates in RFC 3339), preferences, and all identifiers by kind.

    `channels` are those by which the preferences let the person be written to; do-not-disturb wins over a permission.
    Personal values are shown to a key with the scope `profiles:read_pii`, which the audit trail notes, else as `***`.
    So are the identifiers `email` and `mobile`, of which it notes nothing.
    """

    id: str
    attributes: dict[str, Any]
    preferences: dict[str, bool]
    channels: list[str]
    identifiers: dict[str, list[str]]
    created_at: Moment
    updated_at: Moment


class OriginOut(BaseModel):
    """Which ingestion last changed an attribute, for which data source if any, and when that was."""

    ingestion: str
    data_source: DataSourceView | None
    changed_at: Moment


class SegmentRef(BaseModel):
    """A segment, named."""

    id: str
    name: str


class MembershipOut(BaseModel):
    """An active segment that a person is in, the partition, and since when."""

    segment: SegmentRef
    partition: PartitionRef
    since: Moment


class MembershipsOut(BaseModel):
    """The segments that a person is in."""

    data: list[MembershipOut]


class ProfileDetail(ProfileOut):
    """A person, where each attribute came from, and the segments they are in by one of their identifiers (D40)."""

    provenance: dict[str, OriginOut]
    segments: list[MembershipOut]


class Found(BaseModel):
    """An identifier that was asked for, and whose it is, or null."""

    kind: str
    value: str
    profile: ProfileOut | None


class LookupOut(BaseModel):
    """The answers, in the order of the questions."""

    data: list[Found]


class EraseIn(In):
    """Up to 100 identifiers of people who are to be erased."""

    identifiers: Annotated[list[Identifier], Field(min_length=1, max_length=100)]


class ErasedOut(BaseModel):
    """What was erased: whose profiles, and how many periods in segments."""

    profiles: list[str]
    memberships: int


@router.post(
    "/lookup",
    operation_id="profiles_lookup",
    summary="Look profiles up by identifier",
    dependencies=[needs(Scope.PROFILES_READ), NO_STORE],
)
async def lookup(body: LookupIn, tx: Reading, service: Service, caller: Caller) -> LookupOut:
    """Find people by up to 1,000 identifiers; one that names nobody has the profile null."""
    seen = await sight(tx, service, caller)
    hashes = [hashed(each, seen.keys.index_key, seen.own) for each in body.identifiers]
    found = await profiles.find_many(tx, caller.account_id, {each for some in hashes for each in some})
    shown = {profile.profile_id: ProfileOut(**_fields(profile, seen)) for profile in found.values()}
    answers = [first_of(some, found) for some in hashes]
    return LookupOut(
        data=[
            Found(kind=asked.kind, value=asked.value, profile=profile and shown[profile.profile_id])
            for asked, profile in zip(body.identifiers, answers, strict=True)
        ]
    )


@router.get(
    "/{profile_id:id}",
    operation_id="profiles_get",
    summary="Show a profile",
    dependencies=[needs(Scope.PROFILES_READ), NO_STORE],
)
async def get_one(profile_id: ProfileId, tx: Reading, service: Service, caller: Caller) -> ProfileDetail:
    """One person, also by the id of a profile that was merged into theirs; and where each attribute came from."""
    profile = await _profile(tx, caller.account_id, profile_id)
    return await _detail(tx, service, profile, await sight(tx, service, caller))


async def _detail(tx: AsyncSession, service: Parts, profile: Profile, seen: Sight) -> ProfileDetail:
    seqs = {name: (profile.origins or {}).get(name, profile.origin) for name in profile.attributes}
    made = await ingestions.of_seqs(tx, profile.account_id, set(seqs.values()))
    sources = await data_sources.names(tx, {each.data_source_id for each in made.values() if each.data_source_id})
    return ProfileDetail(
        **_fields(profile, seen),
        provenance={name: _origin(made[seq], sources) for name, seq in seqs.items()},
        segments=await _segments(tx, service, profile),
    )


def _origin(made: Ingestion, sources: Mapping[UUID, str]) -> OriginOut:
    source = made.data_source_id and DataSourceView(
        id=ids.show(Prefix.DATA_SOURCE, made.data_source_id), name=sources[made.data_source_id]
    )
    return OriginOut(ingestion=ids.show(Prefix.INGESTION, made.id), data_source=source, changed_at=made.started_at)


@router.get(
    "/{profile_id:id}/segments",
    operation_id="profiles_segments",
    summary="List a person's segments",
    dependencies=[needs(Scope.PROFILES_READ), NO_STORE],
)
async def list_segments(profile_id: ProfileId, tx: Reading, service: Service, caller: Caller) -> MembershipsOut:
    """The active segments that a person is in, by any of their identifiers."""
    profile = await _profile(tx, caller.account_id, profile_id)
    return MembershipsOut(data=await _segments(tx, service, profile))


async def _segments(tx: AsyncSession, service: Parts, profile: Profile) -> list[MembershipOut]:
    keys = await service.intake.keys(profile.account_id, tx)
    found = await members.of_person(tx, profile.account_id, [hash_ for _, hash_ in hashes_of(profile, keys)])
    return [
        MembershipOut(
            segment=SegmentRef(id=ids.show(Prefix.SEGMENT, segment.id), name=segment.name),
            partition=ref(partition),
            since=since,
        )
        for segment, partition, since in found
    ]


@router.get(
    "/{profile_id:id}/events",
    operation_id="profiles_events",
    summary="List a person's events",
    dependencies=[needs(Scope.PROFILES_READ), NO_STORE],
)
async def list_events(
    profile_id: ProfileId,
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(events.OF_PERSON, "ts"))],
) -> EventPage:
    """The events of a person by their time, oldest first."""
    profile = await _profile(tx, caller.account_id, profile_id)
    found = await events.of_person(tx, caller.account_id, profile.profile_id, asked.cut)
    return asked.page(EventPage, found, EventOut.of)


@router.delete(
    "/{profile_id:id}",
    status_code=204,
    operation_id="profiles_erase",
    summary="Erase a person",
    dependencies=[needs(Scope.PROFILES_WRITE)],
)
async def erase(profile_id: ProfileId, tx: Tx, service: Service, caller: Caller, match: IfMatch) -> None:
    """Remove a person's profile, identifiers, events and memberships in segments, past ones too, at once and for good.

    Files that were received before bring nothing of them back, not even when they are tried again; such rows are
    counted as `erased`. A file that is received later makes a new person. Stored files and error files expire by
    themselves.
    """
    keys = await service.intake.keys(caller.account_id, tx)
    if match.tags is not None:
        await erasure.lock(tx, caller.account_id)  # nothing is applied to the person from here on
        profile = await _profile(tx, caller.account_id, profile_id)
        match.check(await _detail(tx, service, profile, replace(await sight(tx, service, caller), noted=False)))
    await erasure.erase(tx, caller.account_id, profile_id, keys=keys, now=utc_now())
    audit.note(tx, caller, "profile.erased", ids.show(Prefix.PROFILE, profile_id))


@router.post(
    "/erase",
    operation_id="profiles_erase_identifiers",
    summary="Erase people by identifier",
    dependencies=[needs(Scope.PROFILES_WRITE), NO_STORE],
)
async def erase_identifiers(body: EraseIn, tx: Tx, service: Service, caller: Caller) -> ErasedOut:
    """Erase whoever has one of these identifiers, as `DELETE /v1/profiles/{id}` does.

    Also those who have no profile and are, or were, members of segments only. All of it or, where one identifier is
    none (422), nothing.
    """
    keys = await service.intake.keys(caller.account_id, tx)
    own = await attributes.identifying(tx, caller.account_id)
    asked = [hashed(each, keys.index_key, own) for each in body.identifiers]
    problems = [
        Problem(f"/body/identifiers/{place}", "identifier", "No kind of identifier of the account, or no value of it.")
        for place, each in enumerate(asked)
        if not each
    ]
    if problems:
        raise Invalid("Nobody can be known by some of the identifiers; nobody was erased.", problems=tuple(problems))
    wanted = {each for some in asked for each in some}
    erased = await erasure.erase_identifiers(tx, caller.account_id, wanted, keys=keys, now=utc_now())
    profiles = [ids.show(Prefix.PROFILE, each) for each in erased.profiles]
    for each in profiles:
        audit.note(tx, caller, "profile.erased", each)
    audit.note(tx, caller, "identifiers.erased", ids.show(Prefix.ACCOUNT, caller.account_id))
    return ErasedOut(profiles=profiles, memberships=erased.memberships)


async def _profile(tx: AsyncSession, account_id: UUID, profile_id: UUID) -> Profile:
    found = (await profiles.get_many(tx, account_id, [profile_id])).get(profile_id)
    if found is None:
        raise NotFound("There is no such profile.")
    return found


def _fields(profile: Profile, seen: Sight) -> dict[str, Any]:
    return {
        "id": ids.show(Prefix.PROFILE, profile.profile_id),
        **seen.of(profile),
        "preferences": dict(sorted(profile.preferences.items())),
        "channels": permitted(profile.preferences),
        "created_at": profile.created_at,
        "updated_at": profile.updated_at,
    }
