"""Webhook events: their types with schema and example, and all that an account is told, followed live.

An event's id is its `webhook-id`. Notices get their ids just before their transaction commits, so one may become
visible a little after a later one: whoever comes back with the last id they saw is told of the seconds before it once
more, under the same ids.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from ingestd.api import notices as events
from ingestd.api.context import Caller, Scope, Service, needs
from ingestd.api.ingestion_events import EVENT_STREAM, LONGEST_SECONDS, RETRY, STILL_HERE, STILL_HERE_SECONDS
from ingestd.api.pages import Page
from ingestd.api.pause import pause
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.errors import NotFound
from ingestd.domain.ids import Prefix
from ingestd.domain.notice import NoticeType
from ingestd.notify import webhooks
from ingestd.store import notices
from ingestd.store.engine import id_at, moment_of, utc_now
from ingestd.store.notices import Notice

router = Router(prefix="/v1/webhook-events", tags=["Webhooks"])

LOOK_SECONDS: Final = 0.5
AT_ONCE: Final = 200
SETTLED: Final = timedelta(seconds=10)
"""How much later than its id a notice becomes visible, at most."""

_FIRST: Final = datetime(2020, 1, 1, tzinfo=UTC)
"""No notice is older: an id of another time was made up."""


class WebhookEventOut(BaseModel):
    """A type of event: when it is told, the JSON Schema of its body, and an example."""

    type: NoticeType
    when: str
    body_schema: dict[str, Any] = Field(serialization_alias="schema")
    example: dict[str, Any]


class WebhookEventPage(Page[WebhookEventOut]):
    """All types of events that are told."""


@router.get(
    "",
    operation_id="webhook_events_list",
    summary="List the types of events",
    dependencies=[needs(Scope.WEBHOOKS_READ)],
)
async def list_all() -> WebhookEventPage:
    """What a webhook can be told, with the schema of each body and an example."""
    told = [
        WebhookEventOut(type=kind, when=when, body_schema=events.schema(kind), example=events.example(kind))
        for kind, when in events.TOLD.items()
    ]
    return WebhookEventPage(data=told, next_cursor=None)


@router.get(
    "/stream",
    operation_id="webhook_events_follow",
    summary="Follow all events",
    dependencies=[needs(Scope.WEBHOOKS_READ)],
    response_class=Response,
    responses={
        200: {
            "description": "Events named by their type; the data of each is the body that webhooks get.",
            "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
        },
    },
)
async def follow(
    *,
    request: Request,
    service: Service,
    caller: Caller,
    kinds: Annotated[
        list[NoticeType] | None, Query(alias="type", description="Only these types.", max_length=len(NoticeType))
    ] = None,
    last_event_id: Annotated[str | None, Header(description="The id of the last event seen.", max_length=64)] = None,
) -> Response:
    """Stream all that the account is told, from now on or from the last event seen."""

    async def look(last: UUID) -> Sequence[Notice]:
        async with service.intake.sessions() as session:
            return await notices.after(session, caller.account_id, last, types=kinds, at_most=AT_ONCE)

    if request.state.head:
        return Response(media_type=EVENT_STREAM)
    told = stream(service.stopping, look, _seen(last_event_id), utc_now)
    return StreamingResponse(told, media_type=EVENT_STREAM, headers={"Cache-Control": "no-store"})


async def stream(
    stopping: asyncio.Event,
    look: Callable[[UUID], Awaitable[Sequence[Notice]]],
    seen: UUID | None,
    clock: Callable[[], datetime],
) -> AsyncIterator[str]:
    """What is said to a reader: every notice once, in the order in which they become visible."""
    began = spoke = time.monotonic()
    last = id_at(moment_of(seen) - SETTLED) if seen else id_at(clock())
    told = {seen} if seen else set()
    yield RETRY
    while not stopping.is_set() and time.monotonic() - began < LONGEST_SECONDS:
        found = await look(last)
        for notice in found:
            if notice.id not in told:
                told.add(notice.id)
                spoke = time.monotonic()
                yield _event(notice)
        if time.monotonic() - spoke > STILL_HERE_SECONDS:
            spoke = time.monotonic()
            yield STILL_HERE
        settled = id_at(clock() - SETTLED)
        if len(found) < AT_ONCE or found[-1].id > settled:
            last = max(last, settled)
            await pause(stopping, LOOK_SECONDS)
        else:  # there is a backlog
            last = found[-1].id
        told = {each for each in told if each > last}


def _event(notice: Notice) -> str:
    body = webhooks.body(notice.type, notice.created_at, notice.data).decode()
    return f"id: {ids.show(Prefix.MESSAGE, notice.id)}\nevent: {notice.type}\ndata: {body}\n\n"


def _seen(last_event_id: str | None) -> UUID | None:
    """The notice that a reader saw last; None where the id is none of ours, and they begin anew."""
    try:
        seen = ids.read(Prefix.MESSAGE, last_event_id) if last_event_id else None
    except NotFound:
        return None
    return seen if seen and id_at(_FIRST) <= seen <= id_at(utc_now() + SETTLED) else None
