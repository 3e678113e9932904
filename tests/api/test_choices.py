"""Webhooks chosen for a segment or a data source are told of its files, and of nothing else."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from tests.api.walk import BODIES

from ingestd.domain import ids
from ingestd.domain.ids import Prefix

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"


@pytest.fixture
async def chosen(tenant, receiver):
    """A webhook that wants nothing by itself."""
    (webhook,) = (await tenant.http.get("/v1/webhooks")).json()["data"]
    (await tenant.http.patch(f"/v1/webhooks/{webhook['id']}", json={"events": []})).raise_for_status()
    return webhook["id"]


async def submit(tenant, name, content, **goal):
    file = (await tenant.http.put(f"/v1/files/{name}", content=content)).raise_for_status().json()
    made = await tenant.http.post("/v1/ingestions", json={"file_id": file["id"], **goal})
    return (await tenant.ended(made.raise_for_status().json()["id"]))["id"]


@pytest.mark.rule("S136")
async def test_a_webhook_is_chosen_for_a_segment_and_for_a_data_source(tenant, receiver, chosen):
    made = [
        (await tenant.http.post(path, json=BODIES[create])).raise_for_status().json()["id"]
        for path, create in (("/v1/segments", "segments_create"), ("/v1/data-sources", "data_sources_create"))
    ]
    segment, source = f"/v1/segments/{made[0]}", f"/v1/data-sources/{made[1]}"
    (await tenant.http.post(f"{segment}/activate")).raise_for_status()
    (await tenant.http.put(f"{source}/mapping", json=BODIES["data_sources_mapping_put"])).raise_for_status()
    for path in (segment, source):
        unknown = await tenant.http.put(f"{path}/webhooks", json={"webhooks": ["whk_" + "0" * 26]})
        assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "/body/webhooks")
        answer = await tenant.http.put(f"{path}/webhooks", json={"webhooks": [chosen, chosen]})
        assert (answer.status_code, answer.json()["webhooks"]) == (200, [chosen])
    await tenant.push(b"identity\nann\n")
    told = [
        await submit(tenant, "members.csv", b"user_id,level\nann,High\n", segment_id=made[0]),
        await submit(tenant, "people.tsv", b"id\nann\n", data_source_id=made[1]),
    ]
    for ingestion in told:
        await receiver.until("ingestion.completed", ingestion)
    await receiver.until("segment.refreshed", made[0])
    assert {each["data"]["id"] for each in receiver.told} == {*told, made[0]}
    (await tenant.http.delete(f"/v1/webhooks/{chosen}")).raise_for_status()
    for path in (segment, source):
        assert (await tenant.http.get(path)).json()["webhooks"] == []


@pytest.mark.rule("S136")
async def test_who_holds_a_segment_can_tell_its_webhook_while_that_is_being_deleted(tenant, ground, receiver, chosen):
    made = (await tenant.http.post("/v1/segments", json=BODIES["segments_create"])).raise_for_status().json()["id"]
    (await tenant.http.put(f"/v1/segments/{made}/webhooks", json={"webhooks": [chosen]})).raise_for_status()
    async with (
        asyncio.timeout(20),
        await psycopg.AsyncConnection.connect(ground.database_url, autocommit=True) as watch,
        await psycopg.AsyncConnection.connect(ground.database_url) as lock,
    ):
        await lock.execute("SELECT FROM segments WHERE id = %s FOR UPDATE", (ids.read(Prefix.SEGMENT, made),))
        deleting = asyncio.create_task(tenant.http.delete(f"/v1/webhooks/{chosen}"))
        while await (await watch.execute(BLOCKED, (lock.info.backend_pid,))).fetchone() == (0,):
            pass
        webhook = (ids.read(Prefix.WEBHOOK, chosen),)
        await lock.execute("SELECT FROM webhooks WHERE id = %s FOR KEY SHARE NOWAIT", webhook)
        await lock.commit()
        assert (await deleting).status_code == 204
    assert (await tenant.http.get(f"/v1/segments/{made}")).json()["webhooks"] == []


@pytest.mark.rule("S136")
@pytest.mark.parametrize("create", ["segments_create", "data_sources_create", "import_keys_create"])
async def test_a_webhook_that_is_deleted_while_it_is_chosen_stays_chosen_for_nothing(
    tenant, ground, receiver, chosen, create
):
    path = f"/v1/{create.removesuffix('_create').replace('_', '-')}"
    made = (await tenant.http.post(path, json=BODIES[create])).raise_for_status()
    own = made.headers["location"]
    keys = create == "import_keys_create"
    async with (
        asyncio.timeout(20),
        await psycopg.AsyncConnection.connect(ground.database_url, autocommit=True) as watch,
        await psycopg.AsyncConnection.connect(ground.database_url) as lock,
    ):

        async def until_waiting(number):
            while await (await watch.execute(WAITING)).fetchone() != (number,):
                pass

        await lock.execute("LOCK TABLE audit IN SHARE MODE")  # the last that is written
        where, ask = (own, tenant.http.patch) if keys else (f"{own}/webhooks", tenant.http.put)
        choosing = asyncio.create_task(ask(where, json={"webhooks": [chosen]}))
        await until_waiting(1)
        deleting = asyncio.create_task(tenant.http.delete(f"/v1/webhooks/{chosen}"))
        await until_waiting(2)
        await lock.commit()
        assert [(await each).status_code for each in (choosing, deleting)] == [200, 204]
    assert (await tenant.http.get(own)).json()["webhooks"] == []
