"""Events: what people did, as the files brought it."""

from __future__ import annotations

from typing import Annotated, Any, Self

from fastapi import Depends, Query
from pydantic import BaseModel

from ingestd.api.context import NO_STORE, Caller, Reading, Scope, needs
from ingestd.api.ids import IngestionId
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.api.values import moment, value
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.domain.moment import Moment
from ingestd.store import events, files, ingestions
from ingestd.store.events import Event, Received

router = Router(prefix="/v1/events", tags=["Events"])


class EventOut(BaseModel):
    """Something a person did, at `ts`; `received_at` is when the file came that brought it."""

    id: str
    profile: str
    name: str
    ts: Moment
    properties: dict[str, Any]
    received_at: Moment

    @classmethod
    def of(cls, event: Event) -> Self:
        """An event as it is shown."""
        return cls(
            id=ids.show(Prefix.EVENT, event.event_id),
            profile=ids.show(Prefix.PROFILE, event.profile_id),
            name=event.name,
            ts=moment(event.ts),
            properties={name: value(stored) for name, stored in event.properties.items()},
            received_at=event.received_at,
        )


class EventPage(Page[EventOut]):
    """Events."""


@router.get("", operation_id="events_list", summary="List events", dependencies=[needs(Scope.PROFILES_READ), NO_STORE])
async def list_all(
    *,
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(events.OF_ACCOUNT, "-received_at"))],
    ingestion: Annotated[IngestionId | None, Query(description="Those that this ingestion brought.")] = None,
    received_from: Annotated[Moment | None, Query(description="Received at this moment or later.")] = None,
    received_to: Annotated[Moment | None, Query(description="Received before this moment.")] = None,
) -> EventPage:
    """The account's events, those last received first."""
    received = Received(since=received_from, before=received_to)
    if ingestion is not None:
        made = await ingestions.get(tx, caller.account_id, ingestion)
        at = (await files.get(tx, caller.account_id, made.file_id)).received_at if made.file_id else made.created_at
        received = Received(since=received_from, before=received_to, at=at, origin=made.seq)
    found = await events.page(tx, caller.account_id, asked.cut, received)
    return asked.page(EventPage, found, EventOut.of)
