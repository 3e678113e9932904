"""Accounts: what an operator changes, and what an account changes of itself."""

import json

import pytest
from tests.api.world import manifest


@pytest.fixture
async def as_operator(tenant, operator):
    tenant.http.headers["Authorization"] = f"Bearer {operator}"
    return tenant.http


async def test_an_operator_makes_an_account_and_its_first_key(as_operator):
    made = await as_operator.post("/v1/accounts", json={"name": "Acme", "time_zone": "Europe/Vienna"})
    account = made.json()
    assert (made.status_code, made.headers["location"]) == (201, f"/v1/accounts/{account['id']}")
    key = await as_operator.post(
        "/v1/api-keys",
        json={"name": "first", "scopes": ["account:read"]},
        headers={"Account-Id": account["id"]},
    )
    headers = {"Authorization": f"Bearer {key.json()['key']}"}
    assert (await as_operator.get("/v1/account", headers=headers)).json() == account
    assert (await as_operator.get("/v1/account", headers=headers | {"Account-Id": account["id"]})).status_code == 403


async def test_accounts_are_listed_and_changed_by_an_operator_only(tenant, as_operator):
    newest = (await as_operator.get("/v1/accounts", params={"sort": "-created_at", "limit": 2})).json()["data"]
    assert tenant.id in {each["id"] for each in newest}
    url = f"/v1/accounts/{tenant.id}"
    change = {"email_domains": ["a.example"], "features": {"milestone_emails": False}, "sync_time": "04:30:00"}
    changed = (await as_operator.patch(url, json=change)).json()
    assert changed == (await as_operator.get(url)).json()
    assert changed["features"] == {"sftp": True, "milestone_emails": False}
    assert (changed["email_domains"], changed["sync_time"]) == (["a.example"], "04:30:00")


@pytest.mark.rule("S125", "D36")
async def test_an_account_adds_names_to_the_events_that_no_file_may_write(tenant):
    changed = await tenant.http.patch("/v1/account", json={"restricted_events": ["Internal Audit"]})
    assert changed.json()["restricted_events"] == ["Internal Audit"]
    await tenant.put("x.csv", b"identity,evtName\nann,Internal Audit\nann,App Launched\nann,Bought\n")
    await tenant.put("x.manifest", json.dumps(manifest("x.csv", type="event")).encode())
    ended = await tenant.ended()
    assert (ended["counts"]["accepted"], ended["counts"]["rejected"]) == (1, 2)
    found = (await tenant.http.get(f"/v1/ingestions/{ended['id']}/error-summary")).json()["reasons"]
    assert [(reason["code"], reason["rows"]) for reason in found] == [("event_name_restricted", 2)]


@pytest.mark.threat("T56")
async def test_an_account_changes_neither_its_plan_nor_its_domains(tenant):
    for change in ({"features": {"sftp": True}}, {"email_domains": ["evil.example"]}, {"id": "x"}, {"next_seq": 1}):
        assert (await tenant.http.patch("/v1/account", json=change)).status_code == 422
    changed = await tenant.http.patch("/v1/account", json={"name": "New", "time_zone": "Asia/Kolkata"})
    assert (changed.json()["name"], changed.json()["time_zone"]) == ("New", "Asia/Kolkata")


@pytest.mark.parametrize(
    "change",
    [
        {"time_zone": "Mars/Base"},
        {"time_zone": "localtime"},
        {"sync_time": "02:00Z"},
        {"name": ""},
        {"name": "a\nb"},
        {"name": " a"},
        {"name": None},
    ],
)
async def test_a_value_that_makes_no_sense_is_refused(tenant, change):
    refused = await tenant.http.patch("/v1/account", json=change)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, f"/body/{next(iter(change))}")
