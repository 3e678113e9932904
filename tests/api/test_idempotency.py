"""Idempotency-Key: one effect, one answer, whatever is sent twice."""

import asyncio
import json
from itertools import count

import pytest
from sqlalchemy import text
from tests.api.sources import source, tsv
from tests.api.world import upload

from ingestd import egress
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.store.engine import transaction

KEY = {"name": "made once", "scopes": ["account:read"]}


async def named(tenant, name=KEY["name"]):
    page = (await tenant.http.get("/v1/api-keys")).json()
    return [each for each in page["data"] if each["name"] == name]


async def post(tenant, body, key, path="/v1/api-keys"):
    return await tenant.http.post(path, json=body, headers={"Idempotency-Key": key})


@pytest.mark.threat("T60")
async def test_what_is_sent_again_is_answered_again_and_has_no_second_effect(tenant):
    first = await post(tenant, KEY, "one")
    again = await post(tenant, KEY, "one")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert first.headers["location"] == again.headers["location"]
    assert again.headers["cache-control"] == "no-store"
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert len(await named(tenant)) == 1


@pytest.mark.threat("T60")
async def test_what_is_sent_again_after_a_day_is_done_again(tenant):
    first = await post(tenant, KEY, "old")
    async with transaction(tenant.app.intake.sessions) as session:
        await session.execute(
            text("UPDATE idempotency_keys SET created_at = created_at - interval '25 hours' WHERE account_id = :id"),
            {"id": ids.read(Prefix.ACCOUNT, tenant.id)},
        )
    second = await post(tenant, KEY, "old")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] != second.json()["id"]
    assert (await post(tenant, KEY, "old")).json() == second.json()


@pytest.mark.threat("T60")
async def test_of_requests_at_the_same_time_one_has_its_effect(tenant):
    answers = await asyncio.gather(*(post(tenant, KEY, "at-once") for _ in range(6)))
    made = {answer.json()["id"] for answer in answers if answer.status_code == 201}
    refused = {answer.json()["code"] for answer in answers if answer.status_code != 201}
    assert len(made) == 1, [answer.text for answer in answers]
    assert refused <= {"idempotency_key_in_use"}
    assert [each["id"] for each in await named(tenant)] == list(made)


@pytest.mark.threat("T60")
async def test_a_key_that_comes_with_another_request_is_refused(tenant):
    await post(tenant, KEY, "reused")
    refused = await post(tenant, KEY | {"name": "another"}, "reused")
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert await named(tenant, "another") == []


@pytest.mark.threat("T60")
async def test_accounts_and_routes_do_not_share_their_keys(tenant, other):
    mine, theirs = await post(tenant, KEY, "shared"), await post(other, KEY, "shared")
    assert mine.json()["id"] != theirs.json()["id"]
    elsewhere = await post(tenant, {}, "shared", f"/v1/api-keys/{mine.json()['id']}/rotate")
    assert elsewhere.status_code == 201


@pytest.mark.threat("T60")
async def test_one_api_key_never_gets_the_answers_of_another(tenant):
    second = (await tenant.http.post("/v1/api-keys", json=KEY | {"scopes": ["account:write", "account:read"]})).json()
    await post(tenant, KEY, "guessed")
    headers = {"Authorization": f"Bearer {second['key']}", "Idempotency-Key": "guessed"}
    answer = await tenant.http.post("/v1/api-keys", json=KEY, headers=headers)
    assert answer.status_code == 201
    assert "idempotency-replayed" not in answer.headers


async def test_a_refusal_is_not_kept(tenant):
    refused = await post(tenant, KEY | {"scopes": ["admin"]}, "corrected")
    assert refused.status_code == 403
    assert (await post(tenant, KEY, "corrected")).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "with space"])
async def test_a_key_that_is_not_well_formed_is_refused(tenant, key):
    refused = await post(tenant, KEY, key)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/header/Idempotency-Key"


@pytest.mark.threat("T52", "T110")
async def test_a_secret_that_is_shown_once_is_nowhere_in_clear(tenant):
    made = (await post(tenant, KEY, "kept")).json()
    secret = made["key"].split("_", 2)[2]
    async with transaction(tenant.app.intake.sessions) as session:
        answers = (await session.scalars(text("SELECT answer FROM idempotency_keys"))).all()
        trail = (await session.scalars(text("SELECT after::text FROM audit WHERE after IS NOT NULL"))).all()
    assert any(made["id"] in after for after in trail)
    assert answers
    assert not any(secret.encode() in answer for answer in answers)
    assert not any(secret in after for after in trail)


SERVER = {"kind": "sftp", "host": "silent.example.org", "root": "", "username": "u", "password": "p"}
CONNECTIONS = 20
"""Those of the doors to the database (`store.engine.async_engine`)."""


@pytest.mark.threat("T12", "T60")
@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/webhooks", {"url": "https://silent.example.org/"}), ("/v1/connections", SERVER)],
)
async def test_no_request_holds_a_database_connection_while_it_waits_for_a_name_server(
    tenant, other, monkeypatch, path, body
):
    waiting, all_wait, answered = count(1), asyncio.Event(), asyncio.Event()

    async def silent(*_):
        if next(waiting) == CONNECTIONS:
            all_wait.set()
        await answered.wait()
        return ["127.0.0.1"]

    monkeypatch.setattr(egress, "system_resolver", silent)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(post(tenant, body | {"name": f"w{n}"}, f"w{n}", path)) for n in range(CONNECTIONS)]
        await all_wait.wait()
        async with asyncio.timeout(5):  # less than a name server gets
            assert (await other.http.get("/v1/account")).status_code == 200
        answered.set()  # now all of them go on at once, with no second connection for any
    assert {each.result().status_code for each in asked} <= {201, 409}


async def test_an_ingestion_that_is_asked_for_again_is_answered_again(tenant):
    crm = await source(tenant, id="identity")
    file = await upload(tenant, "people.tsv", tsv("id", "p-1"))
    body = {"file_id": file["id"], "data_source_id": crm.id}
    first, again = [await post(tenant, body, "people", "/v1/ingestions") for _ in range(2)]
    assert (first.status_code, again.headers["idempotency-replayed"]) == (202, "true")
    assert json.loads(first.content) == json.loads(again.content)
    await tenant.ended(first.json()["id"])
