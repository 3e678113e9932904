"""An ingestion followed live: server-sent events that resume, and end with the service."""

import asyncio
import json

import pytest
from tests.api.world import ingest, nothing_is_applied, until

from ingestd.api import ingestion_events
from ingestd.domain.ingestion import IngestionView, Status


async def events(response):
    """Yield (id, data) of each event."""
    event = {}
    async for line in response.aiter_lines():
        name, _, text = line.partition(": ")
        if line:
            event[name] = text
        elif "data" in event:
            yield event["id"], json.loads(event["data"])
            event = {}


def stream(tenant, ingestion, **headers):
    return tenant.http.stream("GET", f"/v1/ingestions/{ingestion}/events", headers=headers)


async def test_every_change_is_streamed_until_the_end(tenant, ground):
    async with nothing_is_applied(ground, tenant):
        ingestion = await ingest(tenant, "x.csv", b"identity\nann\n")
        await until(tenant, ingestion, stage="applying")
        async with stream(tenant, ingestion) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["cache-control"] == "no-store"
            following = events(response)
            seen, shown = await anext(following)
            assert (shown["id"], shown["stage"]) == (ingestion, "applying")
    async with stream(tenant, ingestion, **{"Last-Event-ID": seen}) as response:
        rest = [each async for each in events(response)]
    assert [shown["status"] for _, shown in rest][-1] == "completed"
    assert seen not in {id_ for id_, _ in rest}
    async with stream(tenant, ingestion, **{"Last-Event-ID": rest[-1][0]}) as response:
        assert response.status_code == 204  # a browser's EventSource does not come back after this
    async with stream(tenant, ingestion) as response:
        assert [shown["status"] async for _, shown in events(response)] == ["completed"]


async def test_who_waits_or_follows_holds_no_transaction(tenant, ground):
    pool = tenant.app.intake.sessions.kw["bind"].pool
    async with nothing_is_applied(ground, tenant):
        ingestion = await ingest(tenant, "x.csv", b"identity\nann\n")
        await until(tenant, ingestion, stage="applying")
        waiting = asyncio.create_task(tenant.http.get(f"/v1/ingestions/{ingestion}", params={"wait": 60}))
        async with (
            stream(tenant, ingestion) as one,
            tenant.http.stream("GET", "/v1/webhook-events/stream") as all_of_them,
        ):
            for response in (one, all_of_them):
                assert await anext(response.aiter_lines())
            while pool.checkedout():  # a connection that is held never comes back: the test's time limit ends this
                await tenant.http.get("/livez")
            assert not waiting.done()
    assert (await waiting).json()["status"] == "completed"


@pytest.mark.threat("T50")
async def test_another_account_follows_nothing(tenant, other):
    ended = await tenant.push(b"identity\nann\n")
    assert (await other.http.get(f"/v1/ingestions/{ended['id']}/events")).status_code == 404


async def test_a_stream_says_now_and_then_that_it_is_there_and_ends_when_the_service_stops(tenant, monkeypatch):
    monkeypatch.setattr(ingestion_events, "STILL_HERE_SECONDS", 0)
    monkeypatch.setattr(ingestion_events, "LOOK_SECONDS", 0.01)
    ended = IngestionView.model_validate(await tenant.push(b"identity\nann\n"))
    running = ended.model_copy(update={"status": Status.IN_PROGRESS})
    stopping = asyncio.Event()

    async def look():
        return running

    following = ingestion_events.stream(stopping, look, running, None)
    assert await anext(following) == ingestion_events.RETRY
    assert (await anext(following)).startswith("id: ")
    assert await anext(following) == ingestion_events.STILL_HERE
    stopping.set()
    assert [piece async for piece in following] in ([], [ingestion_events.STILL_HERE])
