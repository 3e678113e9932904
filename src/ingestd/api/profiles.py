"""Profiles and their events: looked up by identifier, never through a URL (P9)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict, Field

from ingestd.api.context import Caller, Reading, Scope, Service, needs
from ingestd.api.ids import ProfileId
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.errors import NotFound
from ingestd.domain.identity import KIND_OF_WORD, normalise
from ingestd.domain.ids import Prefix
from ingestd.store import events, profiles
from ingestd.store.events import Event
from ingestd.store.profiles import Profile, identifier_hash

router = Router(prefix="/v1/profiles", tags=["Profiles"])


class Identifier(BaseModel):
    """One identifier of a person."""

    model_config = ConfigDict(extra="forbid")

    kind: Annotated[str, Field(description="identity, objectId (or guid), fbId, gpId, external_id, email, mobile.")]
    value: Annotated[str, Field(min_length=1)]


class LookupIn(BaseModel):
    """Up to 1,000 identifiers."""

    model_config = ConfigDict(extra="forbid")

    identifiers: Annotated[list[Identifier], Field(min_length=1, max_length=1000)]


class ProfileOut(BaseModel):
    """A person: attributes by name (dates in RFC 3339), preferences, and all identifiers by kind."""

    id: str
    attributes: dict[str, Any]
    preferences: dict[str, bool]
    identifiers: dict[str, list[str]]
    created_at: datetime
    updated_at: datetime


class Found(BaseModel):
    """An identifier that was asked for, and whose it is, or null."""

    kind: str
    value: str
    profile: ProfileOut | None


class LookupOut(BaseModel):
    """The answers, in the order of the questions."""

    data: list[Found]


class EventOut(BaseModel):
    """Something a person did."""

    id: str
    name: str
    ts: datetime
    properties: dict[str, Any]


class EventPage(BaseModel):
    """Events of one person, oldest first."""

    data: list[EventOut]


@router.post(
    "/lookup",
    operation_id="profiles_lookup",
    summary="Look profiles up by identifier",
    dependencies=[needs(Scope.PROFILES_READ)],
)
async def lookup(
    body: LookupIn,
    tx: Reading,
    service: Service,
    response: Response,
    caller: Caller,
) -> LookupOut:
    """Find people by up to 1,000 identifiers; one that names nobody has the profile null."""
    keys = await service.intake.keys(caller.account_id)
    hashes = [_hash(keys.index_key, identifier) for identifier in body.identifiers]
    found = await profiles.find_many(tx, caller.account_id, {each for each in hashes if each})
    response.headers["Cache-Control"] = "no-store"
    answers = [found.get(each) if each else None for each in hashes]
    return LookupOut(
        data=[
            Found(kind=asked.kind, value=asked.value, profile=profile and _shown(profile))
            for asked, profile in zip(body.identifiers, answers, strict=True)
        ]
    )


@router.get(
    "/{profile_id}/events",
    operation_id="profiles_events",
    summary="List a person's events",
    dependencies=[needs(Scope.PROFILES_READ)],
)
async def list_events(
    profile_id: ProfileId,
    tx: Reading,
    response: Response,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> EventPage:
    """The events of a person, oldest first."""
    found = await profiles.get_many(tx, caller.account_id, [profile_id])
    if profile_id not in found:
        raise NotFound("There is no such profile.")
    response.headers["Cache-Control"] = "no-store"
    page = await events.page(tx, caller.account_id, found[profile_id].profile_id, limit=limit)
    return EventPage(data=[_event(event) for event in page[:limit]])


def _hash(index_key: str, identifier: Identifier) -> tuple[int, Any] | None:
    kind = KIND_OF_WORD.get(identifier.kind.casefold())
    value = normalise(identifier.value)
    return (int(kind), identifier_hash(index_key, kind, value)) if kind and value else None


def _shown(profile: Profile) -> ProfileOut:
    return ProfileOut(
        id=ids.show(Prefix.PROFILE, profile.profile_id),
        attributes={name: _value(value) for name, value in profile.attributes.items()},
        preferences=profile.preferences,
        identifiers=profile.identifiers,
        created_at=profile.created_at,
        updated_at=profile.updated_at,
    )


def _event(event: Event) -> EventOut:
    return EventOut(
        id=ids.show(Prefix.EVENT, event.event_id),
        name=event.name,
        ts=datetime.fromtimestamp(event.ts, UTC),
        properties={name: _value(value) for name, value in event.properties.items()},
    )


def _value(stored: Any) -> Any:
    """A stored value as it is shown: a date in RFC 3339 (D55)."""
    if isinstance(stored, dict) and stored.keys() == {"$D"}:
        return _moment(stored["$D"])
    if isinstance(stored, list):
        return [_value(each) for each in stored]
    return stored


def _moment(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
