"""An ingestion followed live: server-sent events, from where the reader was cut off.

An event's id names the state that it shows. A reader who comes back with the last id it saw is told of the present
state if that is another one; nothing is missed but states that have passed.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Final

from fastapi import Header, Request, Response
from fastapi.responses import StreamingResponse

from ingestd.api.context import Caller, Scope, Service, needs
from ingestd.api.ids import IngestionId
from ingestd.api.pause import pause
from ingestd.api.routes import Router
from ingestd.domain.ingestion import IngestionView
from ingestd.store import ingestion_views

router = Router(prefix="/v1/ingestions", tags=["Ingestions"])

EVENT_STREAM: Final = "text/event-stream"
LOOK_SECONDS: Final = 0.3
STILL_HERE_SECONDS: Final = 15.0
"""How long a stream is silent: a comment then keeps those on the way from closing it."""

LONGEST_SECONDS: Final = 900.0
"""How long a stream lasts; the reader comes back, and its key is looked at again."""

RETRY: Final = "retry: 2000\n\n"
STILL_HERE: Final = ": still here\n\n"


@router.get(
    "/{ingestion_id}/events",
    operation_id="ingestions_events",
    summary="Follow an ingestion",
    dependencies=[needs(Scope.INGESTIONS_READ)],
    response_class=Response,
    responses={
        200: {
            "description": "Events named `ingestion`; the data of each is the ingestion as GET shows it.",
            "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
        },
        204: {"description": "The ingestion has ended and the reader has seen it: it need not come back."},
    },
)
async def follow(
    ingestion_id: IngestionId,
    request: Request,
    service: Service,
    caller: Caller,
    last_event_id: Annotated[str | None, Header(description="The id of the last event seen.", max_length=64)] = None,
) -> Response:
    """Stream every change of an ingestion until it has ended."""

    async def look() -> IngestionView:
        async with service.intake.sessions() as session:
            return ingestion_views.view(await ingestion_views.get(session, caller.account_id, ingestion_id))

    first = await look()
    if first.status.terminal and _id(first.model_dump_json()) == last_event_id:
        return Response(status_code=204)
    if request.state.head:
        return Response(media_type=EVENT_STREAM)
    events = stream(service.stopping, look, first, last_event_id)
    return StreamingResponse(events, media_type=EVENT_STREAM, headers={"Cache-Control": "no-store"})


async def stream(
    stopping: asyncio.Event, look: Callable[[], Awaitable[IngestionView]], shown: IngestionView, seen: str | None
) -> AsyncIterator[str]:
    """What is said to a reader: the present state unless it was seen, then every other one, until the end."""
    began = spoke = time.monotonic()
    yield RETRY
    while True:
        text = shown.model_dump_json()
        now = time.monotonic()
        if (id_ := _id(text)) != seen:
            seen, spoke = id_, now
            yield f"id: {id_}\nevent: ingestion\ndata: {text}\n\n"
        elif now - spoke > STILL_HERE_SECONDS:
            spoke = now
            yield STILL_HERE
        if shown.status.terminal or stopping.is_set() or now - began > LONGEST_SECONDS:
            return
        await pause(stopping, LOOK_SECONDS)
        shown = await look()


def _id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
