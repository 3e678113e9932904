"""Webhooks through the door: tested, changed, replaced secrets, and what became of each delivery."""

import asyncio

import psycopg
import pytest
from tests.api.test_choices import BLOCKED
from tests.api.world import account_of

from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.notify.webhooks import open_headers
from ingestd.store import webhooks
from ingestd.store.webhooks import Webhook

PATH = "/v1/webhooks"


async def only(tenant):
    return (await tenant.http.get(PATH)).json()["data"][0]


async def delivered(tenant, webhook, delivery, attempts=1):
    """A delivery, when it has been taken so many times."""
    async with asyncio.timeout(20):
        while True:
            shown = (await tenant.http.get(f"{PATH}/{webhook}/deliveries/{delivery}")).raise_for_status().json()
            if shown["state"] == "delivered" and len(shown["attempts"]) == attempts:
                return shown
            await asyncio.sleep(0.02)


@pytest.mark.rule("S136")
async def test_a_test_event_arrives_and_can_be_sent_again_as_the_same_event(tenant, receiver):
    webhook = await only(tenant)
    sent = await tenant.http.post(f"{PATH}/{webhook['id']}/test")
    assert (sent.status_code, sent.json()["type"]) == (202, "webhook.test")
    first = await delivered(tenant, webhook["id"], sent.json()["id"])
    assert [(each["code"], each["status"]) for each in first["attempts"]] == [("delivered", 204)]
    again = await tenant.http.post(f"{PATH}/{webhook['id']}/deliveries/{first['id']}/redeliver")
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    await delivered(tenant, webhook["id"], first["id"], attempts=2)
    assert [notice["id"] for notice in receiver.told] == [first["message_id"]] * 2
    assert receiver.forged == 0


@pytest.mark.rule("S136")
async def test_a_new_secret_signs_at_once_and_the_old_one_until_its_grace_is_over(tenant, receiver):
    webhook = await only(tenant)
    rotated = await tenant.http.post(f"{PATH}/{webhook['id']}/secret/rotate")  # a day of grace
    new = rotated.json()["secret"]
    assert new != receiver.secret
    for secret in (receiver.secret, new):
        receiver.secret = secret
        sent = (await tenant.http.post(f"{PATH}/{webhook['id']}/test")).json()
        await delivered(tenant, webhook["id"], sent["id"])
    await tenant.http.post(f"{PATH}/{webhook['id']}/secret/rotate", json={"grace_seconds": 0})
    assert receiver.forged == 0
    await tenant.http.post(f"{PATH}/{webhook['id']}/test")
    async with asyncio.timeout(20), receiver.news:
        await receiver.news.wait_for(lambda: receiver.forged == 1)


async def test_nothing_is_sent_to_a_disabled_webhook_until_it_is_enabled(tenant, receiver):
    webhook = await only(tenant)
    url = f"{PATH}/{webhook['id']}"
    disabled = (await tenant.http.patch(url, json={"enabled": False})).json()
    assert (disabled["enabled"], disabled["disabled_reason"]) == (False, "by_account")
    refused = await tenant.http.post(f"{url}/test")
    assert (refused.status_code, refused.json()["code"]) == (409, "webhook_disabled")
    enabled = (await tenant.http.patch(url, json={"enabled": True})).json()
    assert enabled | {"updated_at": ""} == webhook | {"updated_at": ""}
    sent = (await tenant.http.post(f"{url}/test")).json()
    await delivered(tenant, webhook["id"], sent["id"])


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"url": "https://10.0.0.1/"}, 403, "egress_denied"),
        ({"url": "ftp://example.org"}, 422, "url_invalid"),
        ({"events": ["no.such"]}, 422, "invalid"),
        ({"name": None}, 422, "invalid"),
        ({"enabled": None}, 422, "invalid"),
        ({"secret": "whsec_x"}, 422, "invalid"),
    ],
)
async def test_a_change_that_breaks_a_rule_changes_nothing(tenant, receiver, change, status, code):
    before = await only(tenant)
    refused = await tenant.http.patch(f"{PATH}/{before['id']}", json={"name": "changed"} | change)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert await only(tenant) == before


async def test_what_is_absent_stays_and_null_means_all_events(tenant, receiver):
    url = f"{PATH}/{(await only(tenant))['id']}"
    chosen = (await tenant.http.patch(url, json={"events": ["webhook.test"]})).json()
    assert chosen["events"] == ["webhook.test"]
    assert (await tenant.http.patch(url, json={"name": "renamed"})).json()["events"] == ["webhook.test"]
    assert (await tenant.http.patch(url, json={"events": None})).json()["events"] is None


async def test_deliveries_are_listed_by_what_became_of_them(tenant, receiver):
    webhook = (await only(tenant))["id"]
    sent = [(await tenant.http.post(f"{PATH}/{webhook}/test")).json()["id"] for _ in range(3)]
    for each in sent:
        await delivered(tenant, webhook, each)
    page = (await tenant.http.get(f"{PATH}/{webhook}/deliveries", params={"limit": 2, "state": "delivered"})).json()
    query = {"limit": 2, "state": "delivered", "cursor": page["next_cursor"]}
    rest = (await tenant.http.get(f"{PATH}/{webhook}/deliveries", params=query)).json()
    assert [each["id"] for each in page["data"] + rest["data"]] == sent[::-1]
    assert (await tenant.http.get(f"{PATH}/{webhook}/deliveries", params={"state": "dead"})).json()["data"] == []
    recovered = await tenant.http.post(f"{PATH}/{webhook}/recover", json={"since": "2026-01-01T00:00:00Z"})
    assert recovered.json() == {"deliveries": 0}


async def test_a_deleted_webhook_is_gone_with_its_deliveries(tenant, receiver):
    webhook = (await only(tenant))["id"]
    sent = (await tenant.http.post(f"{PATH}/{webhook}/test")).json()["id"]
    await delivered(tenant, webhook, sent)
    assert (await tenant.http.delete(f"{PATH}/{webhook}")).status_code == 204
    for path in ("", "/deliveries", f"/deliveries/{sent}"):
        assert (await tenant.http.get(f"{PATH}/{webhook}{path}")).status_code == 404


async def test_a_webhook_that_is_deleted_while_it_is_tested_is_not_there(tenant, ground, receiver):
    webhook = (await only(tenant))["id"]
    async with (
        asyncio.timeout(20),
        await psycopg.AsyncConnection.connect(ground.database_url, autocommit=True) as watch,
        await psycopg.AsyncConnection.connect(ground.database_url) as deleting,
    ):
        await deleting.execute("DELETE FROM webhooks WHERE id = %s", (ids.read(Prefix.WEBHOOK, webhook),))
        testing = asyncio.create_task(tenant.http.post(f"{PATH}/{webhook}/test"))
        while await (await watch.execute(BLOCKED, (deleting.info.backend_pid,))).fetchone() == (0,):
            pass
        await deleting.commit()
        assert (await testing).status_code == 404


@pytest.mark.threat("T15")
@pytest.mark.parametrize(
    "change",
    [
        {"headers": {"X-Own": "a\r\nX-Evil: y"}},
        {"headers": {"X-Own\r\nX-Evil": "y"}},
        {"headers": {"X-Own": "a\n"}},
        {"headers": {"Webhook-Id": "msg_1"}},
        {"headers": {"Content-Length": "0"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"headers": {"host": "evil.example"}},
        {"headers": {"X-Own": "1", "x-own": "2"}},
        {"url": "https://127.0.0.1:8443/a\r\nX-Evil: y"},
        {"url": "https://127.0.0.1:8443\r\nHost: evil.example/"},
        {"name": "a\r\nX-Evil: y"},
    ],
    ids=["value", "field", "end", "ours", "length", "encoding", "virtual host", "twice", "path", "host", "name"],
)
async def test_no_text_of_an_account_becomes_a_header(tenant, change):
    body = {"name": "x", "url": "https://127.0.0.1:8443/"} | change
    refused = await tenant.http.post(PATH, json=body)
    assert (refused.status_code, (await tenant.http.get(PATH)).json()["data"]) == (422, [])


@pytest.mark.rule("S136")
async def test_headers_are_sent_and_only_their_names_are_shown(tenant, receiver):
    (webhook,) = (await tenant.http.get(PATH)).json()["data"]
    path = f"{PATH}/{webhook['id']}"
    changed = await tenant.http.patch(path, json={"headers": {"X-Token": "open sesame"}})
    assert (changed.status_code, changed.json()["headers"]) == (200, ["x-token"])
    assert "sesame" not in (await tenant.http.get(path)).text + (await tenant.http.get("/v1/audit")).text


async def test_headers_are_changed_one_by_one(tenant, receiver):
    (webhook,) = (await tenant.http.get(PATH)).json()["data"]
    path = f"{PATH}/{webhook['id']}"

    async def change(headers):
        answer = await tenant.http.patch(path, json={"headers": headers})
        assert answer.status_code != 200 or (await tenant.http.get(path)).headers["etag"] == answer.headers["etag"]
        return answer.json()["headers"] if answer.status_code == 200 else answer.json()["errors"][0]["pointer"]

    async def sent():
        keys, webhook_id = await tenant.app.intake.keys(account_of(tenant)), ids.read(Prefix.WEBHOOK, webhook["id"])
        async with tenant.app.intake.sessions() as session:
            return open_headers(keys, webhook_id, (await session.get_one(Webhook, webhook_id)).headers)

    assert await change({"X-Token": "open", "X-Much-Longer": "yes"}) == ["x-much-longer", "x-token"]
    assert await change({"x-b": "1", "X-TOKEN": "sesame", "X-Unknown": None}) == ["x-b", "x-much-longer", "x-token"]
    assert await change({"X-Much-longer": None}) == ["x-b", "x-token"]
    assert await sent() == {"x-b": "1", "x-token": "sesame"}
    assert await change({f"X-{number}": "1" for number in range(9)}) == "/body/headers"
    assert await change({}) == ["x-b", "x-token"]
    assert await change(None) == []


@pytest.mark.rule("S136")
async def test_a_webhook_chosen_for_an_import_key_is_told_of_its_files_alone(tenant, receiver):
    (webhook,) = (await tenant.http.get(PATH)).json()["data"]
    await tenant.http.patch(f"{PATH}/{webhook['id']}", json={"events": []})
    (key,) = (await tenant.http.get("/v1/import-keys")).json()["data"]
    path = f"/v1/import-keys/{key['id']}"
    unknown = await tenant.http.patch(path, json={"webhooks": ["whk_" + "0" * 26]})
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "/body/webhooks")
    not_told = await tenant.push(b"identity\nann\n")
    chosen = await tenant.http.patch(path, json={"webhooks": [webhook["id"]]})
    assert (chosen.status_code, chosen.json()["webhooks"]) == (200, [webhook["id"]])
    ended = await tenant.push(b"identity\nbob\n")
    refused = await tenant.push(b"identity\nbob\n", type="people")
    await receiver.until("ingestion.completed", ended["id"])
    await receiver.until("ingestion.failed", refused["id"])
    assert {each["type"] for each in receiver.told if each["data"]["id"] == ended["id"]} == {
        "ingestion.scheduled",
        "ingestion.picked_up",
        "ingestion.completed",
    }
    assert not_told["id"] not in {each["data"]["id"] for each in receiver.told}
    await tenant.http.delete(f"{PATH}/{webhook['id']}")
    assert (await tenant.http.get(path)).json()["webhooks"] == []


@pytest.mark.threat("T14")
async def test_one_webhook_too_many_is_refused_also_when_they_are_made_at_once(tenant, monkeypatch):
    monkeypatch.setattr(webhooks, "MAX_WEBHOOKS", 2)
    body = {"name": "one", "url": "https://9.9.9.9/", "events": []}
    answers = await asyncio.gather(*(tenant.http.post(PATH, json=body) for _ in range(4)))
    assert sorted(each.status_code for each in answers) == [201, 201, 409, 409]
    assert {each.json()["code"] for each in answers if each.status_code == 409} == {"too_many_webhooks"}
