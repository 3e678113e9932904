"""Personal values: sealed where they are stored, masked where they are shown, read by who may (S61, D13)."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager

import httpx
import pytest
from sqlalchemy import text
from tests.api.sources import attribute, source, tsv
from tests.api.test_messages import attachments, mails_of, written
from tests.api.world import account_of, nothing_is_applied, upload

from ingestd.domain.personal import MASK
from ingestd.store.engine import transaction

HM = {"name": "hm", "format": "PHONE", "identifier": True, "pii": True}
CITY = {"name": "city", "pii": True}
AGE = {"name": "age", "format": "INTEGER", "pii": True}
PHONE = "+919876543210"
ROWS = ("crmid phone town years", "c-1 919876543210 Ulm 30", "c-2 919876543211 Ulm 31")


async def people(tenant, **more):
    """A data source with people of whom the phone number, the town and the age are personal."""
    crm = await source(tenant, crmid={"name": "crmid", "identifier": True}, phone=HM, town=CITY, years=AGE | more)
    done = await crm.ingest(tsv(*ROWS))
    assert (done["status"], done["counts"]["accepted"]) == ("completed", 2), done
    return crm


@asynccontextmanager
async def key_of(tenant, *scopes):
    """A client with a key that has only these scopes."""
    made = await tenant.http.post("/v1/api-keys", json={"name": "narrow", "scopes": scopes})
    headers = {"Authorization": f"Bearer {made.raise_for_status().json()['key']}"}
    async with httpx.AsyncClient(base_url=tenant.app.http_url, headers=headers, trust_env=False) as http:
        yield http


async def rows(tenant, query="SELECT attributes, identifiers, origins FROM profiles WHERE account_id = :account"):
    async with transaction(tenant.app.intake.sessions) as session:
        return list(await session.execute(text(query), {"account": account_of(tenant)}))


async def words(tenant):
    """What stands in the account's profiles, cut so that a token stays whole: its letters may spell anything."""
    return set(re.split(r"[^\w+/=-]+", str(await rows(tenant))))


async def sealed(tenant, name):
    """Wait until an attribute's stored values are sealed; the test's time limit ends a wait in vain."""
    while True:
        page = (await tenant.http.get("/v1/attributes")).raise_for_status().json()
        if any(each["name"] == name and each["sealed_at"] for each in page["data"]):
            return


async def audited(tenant, action):
    page = (await tenant.http.get("/v1/audit", params={"action": action})).raise_for_status().json()
    return [each["target"] for each in page["data"]]


async def look_up(http, value, kind="crmid"):
    body = {"identifiers": [{"kind": kind, "value": value}]}
    return (await http.post("/v1/profiles/lookup", json=body)).raise_for_status().json()["data"][0]["profile"]


@pytest.mark.rule("S61", "D13")
@pytest.mark.threat("T113")
async def test_personal_values_are_sealed_stay_searchable_and_are_seen_by_who_may(tenant):
    await people(tenant)
    stored = await words(tenant)
    assert "E" in stored  # the key of a sealed value
    assert stored.isdisjoint({PHONE, PHONE[1:], "Ulm", "30"})
    async with key_of(tenant, "profiles:read") as stranger:
        masked = await look_up(stranger, PHONE, "hm")
        assert masked["attributes"] == {"city": MASK, "age": MASK}
        assert masked["identifiers"] == {"crmid": ["c-1"], "hm": [MASK]}
        alone = (await stranger.get(f"/v1/profiles/{masked['id']}")).raise_for_status().json()
        assert (alone["attributes"], alone["identifiers"]) == (masked["attributes"], masked["identifiers"])
    assert await audited(tenant, "personal_data.read") == []
    seen = await look_up(tenant.http, PHONE, "hm")
    assert seen["attributes"] == {"city": "Ulm", "age": 30}
    assert seen["identifiers"] == {"crmid": ["c-1"], "hm": [PHONE]}
    assert await audited(tenant, "personal_data.read") == [masked["id"]]


async def test_addresses_and_numbers_that_identify_are_seen_by_who_may_read_personal_values(tenant):
    crm = await source(tenant, crmid={"name": "crmid", "identifier": True}, mail="email", phone="mobile")
    await crm.ingest(tsv("crmid mail phone", "c-1 ann@example.org 919876543210"))
    async with key_of(tenant, "profiles:read") as stranger:
        masked = await look_up(stranger, "ann@example.org", "email")
        assert masked["identifiers"] == {"crmid": ["c-1"], "email": [MASK], "mobile": [MASK]}
        alone = (await stranger.get(f"/v1/profiles/{masked['id']}")).raise_for_status().json()
        assert alone["identifiers"] == masked["identifiers"]
    seen = await look_up(tenant.http, "ann@example.org", "email")
    assert seen["identifiers"] == {"crmid": ["c-1"], "email": ["ann@example.org"], "mobile": [PHONE]}


@pytest.mark.rule("D13")
async def test_equal_personal_values_change_nothing_whatever_door_brings_them(tenant):
    crm = await people(tenant)
    again = await crm.ingest(tsv(*ROWS))
    assert (again["counts"]["unchanged"], again["counts"]["updated"]) == (2, 0)
    moved = await crm.ingest(tsv(*ROWS[:2], "c-2 919876543211 Bonn 31"))
    assert (moved["counts"]["unchanged"], moved["counts"]["updated"]) == (1, 1)
    pushed = await tenant.push(b"identity,city,city.operation\nu-1,Ulm,$add\nu-1,Bonn,$add\nu-1,Ulm,$remove\n")
    assert pushed["counts"]["created"] == 1
    assert "Bonn" not in await words(tenant)
    assert (await tenant.profile("u-1"))["attributes"] == {"city": ["Bonn"]}


@pytest.mark.threat("T112", "T113")
async def test_a_value_has_another_token_in_each_account_and_opens_nowhere_else(tenant, other):
    for each in (tenant, other):
        await people(each)
    query = "SELECT attributes -> 'city' ->> '$E' FROM profiles WHERE account_id = :account"
    tokens = [{token for (token,) in await rows(each, query)} for each in (tenant, other)]
    assert [len(each) for each in tokens] == [1, 1]
    assert tokens[0].isdisjoint(tokens[1])
    swap = """
    UPDATE profiles SET attributes = jsonb_build_object(
        'city', jsonb_build_object('$E', '{}'), 'age', attributes -> 'city') WHERE account_id = '{}'
    """
    async with transaction(tenant.app.intake.sessions) as session:
        await session.execute(text(swap.format(tokens[1].pop(), account_of(tenant))))
    found = await look_up(tenant.http, "c-1")
    assert found["attributes"] == {"city": MASK, "age": MASK}
    assert await audited(tenant, "personal_data.broken") == [found["id"]]


@pytest.mark.rule("D13")
async def test_an_error_file_with_personal_columns_is_for_who_may_read_them(tenant):
    crm = await people(tenant)
    bad = await crm.ingest(tsv(ROWS[0], "c-1 919876543210 Ulm old", "c-2 919876543211 Ulm 31"))
    async with key_of(tenant, "ingestions:read") as stranger:
        refused = await stranger.get(f"/v1/ingestions/{bad['id']}/error-file")
        assert (refused.status_code, "profiles:read_pii" in refused.text) == (403, True)
        listed = (await stranger.get(f"/v1/ingestions/{bad['id']}/errors")).raise_for_status()
        assert not any(value in listed.text for value in ("old", "Ulm", "91987"))
    assert "919876543210" in await tenant.error_file(bad)
    assert await audited(tenant, "personal_data.read") == [bad["id"]]
    plain = await source(tenant, "Shop", crmid="crmid", size={"name": "size", "format": "INTEGER"})
    open_to_all = await plain.ingest(tsv("crmid size", "c-1 XL", "c-2 9"))
    async with key_of(tenant, "ingestions:read") as stranger:
        assert (await stranger.get(f"/v1/ingestions/{open_to_all['id']}/error-file")).status_code == 200


@pytest.mark.rule("D13")
async def test_a_preview_shows_no_first_row_in_place_of_a_header_to_who_may_not_read_it(tenant):
    file = await upload(tenant, "bare.tsv", b"c-1\tann@example.org\nc-2\tbob@example.org\n")
    async with key_of(tenant, "ingestions:read") as stranger:
        hidden = (await stranger.post(f"/v1/files/{file['id']}/preview")).raise_for_status()
    assert "ann" not in hidden.text
    shown = (await tenant.http.post(f"/v1/files/{file['id']}/preview")).raise_for_status().json()
    assert [each["header"] for each in shown["columns"]] == ["c-1", "ann@example.org"]
    for seen in (shown, hidden.json()):
        assert seen["columns"][1]["problem"] == "looks like a value; has the file a header?"


@pytest.mark.rule("D13")
async def test_the_mark_can_be_set_later_and_then_seals_what_is_stored(ground, tenant):
    await tenant.push(b"identity,town,size\nu-1,Ulm,1.5\nu-2,Bonn,2\n", columns={"size": {"dataType": "FLOAT"}})
    before = (await rows(tenant))[0].origins
    made = await attribute(tenant, "town")
    path = f"/v1/attributes/{made['id']}"
    async with nothing_is_applied(ground, tenant), key_of(tenant, "profiles:read") as stranger:
        marked = (await tenant.http.patch(path, json={"pii": True})).raise_for_status().json()
        assert (marked["pii"], marked["sealed_at"]) == (True, None)
        assert (await look_up(stranger, "u-1", "identity"))["attributes"] == {"town": MASK, "size": 1.5}  # at once
        assert (await tenant.http.patch(path, json={"pii": False})).status_code == 422
    await sealed(tenant, "town")
    stored = await rows(tenant)
    assert "Ulm" not in str(stored)
    assert stored[0].origins == before
    assert (await tenant.profile("u-1"))["attributes"] == {"town": "Ulm", "size": 1.5}
    again = await tenant.push(b"identity,town\nu-1,Ulm\nu-2,Bonn\n")
    assert again["counts"]["unchanged"] == 2
    await attribute(tenant, "size", format="FLOAT", pii=True)  # people have values of it by now
    await sealed(tenant, "size")
    assert "1.5" not in str(await rows(tenant))
    same = await tenant.push(b"identity,size\nu-1,1.50\nu-2,2.0\n", columns={"size": {"dataType": "FLOAT"}})
    assert same["counts"]["unchanged"] == 2


@pytest.mark.rule("D13")
async def test_a_personal_attribute_is_not_deleted_since_its_mark_would_go_with_it(tenant):
    made = await attribute(tenant, "town", pii=True)
    await tenant.push(b"identity,town\nu-1,Ulm\n")
    refused = await tenant.http.delete(f"/v1/attributes/{made['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "attribute_used")
    await tenant.push(b"identity,town\nu-2,Bonn\n")
    assert not {"Ulm", "Bonn"} & await words(tenant)


@pytest.mark.rule("D13")
async def test_a_person_with_personal_identifiers_is_erased_for_good(tenant):
    crm = await source(tenant, phone=HM, town=CITY)
    await crm.ingest(tsv("phone town", "919876543210 Ulm"))
    person = await look_up(tenant.http, PHONE, "hm")
    (await tenant.http.delete(f"/v1/profiles/{person['id']}")).raise_for_status()
    stones = await rows(tenant, "SELECT kind FROM tombstones WHERE account_id = :account")
    assert [kind for (kind,) in stones] == [101]
    assert await look_up(tenant.http, PHONE, "hm") is None


@pytest.mark.rule("D13")
async def test_segments_keep_no_value_of_an_identifier_that_is_personal_or_becomes_it(tenant):
    crm = await source(tenant, crmid={"name": "crmid", "identifier": True}, hm=HM)
    await crm.ingest(tsv("crmid hm", "c-1 919876543210"), segment={"name": "festive"})
    phones = await source(tenant, "Phones", hm="hm")
    done = await phones.ingest(tsv("hm", "919876543211"), segment={"name": "called"})
    called = done["segment"]["id"]
    page = (await tenant.http.get("/v1/segments")).json()["data"]
    festive = next(each["id"] for each in page if each["name"] == "festive")

    async def members(segment):
        shown = (await tenant.http.get(f"/v1/segments/{segment}/members")).raise_for_status().json()["data"]
        return [(each["kind"], each["value"]) for each in shown]

    assert await members(festive) == [("crmid", "c-1")]
    assert await members(called) == [("hm", MASK)]
    [crmid] = [each for each in (await tenant.http.get("/v1/attributes")).json()["data"] if each["name"] == "crmid"]
    (await tenant.http.patch(f"/v1/attributes/{crmid['id']}", json={"pii": True})).raise_for_status()
    assert await members(festive) == [("crmid", MASK)]  # at once
    await sealed(tenant, "crmid")
    stored = await rows(
        tenant,
        "SELECT value FROM segment_members m JOIN segments s ON s.number = m.segment WHERE account_id = :account",
    )
    assert [value for (value,) in stored] == [MASK, MASK]
    body = {"identifiers": [{"kind": "crmid", "value": "c-1"}, {"kind": "hm", "value": PHONE}]}
    found = (await tenant.http.post(f"/v1/segments/{festive}/members/lookup", json=body)).json()["data"]
    assert [each["member"] is not None for each in found] == [True, False]


@pytest.mark.rule("D13", "D39")
@pytest.mark.parametrize("unread", ["phone", "hm"])
async def test_an_error_file_has_personal_columns_that_the_mapping_does_not_name_too(tenant, unread):
    crm = await source(tenant, phone=HM)
    await crm.map(crmid={"name": "crmid", "identifier": True}, size={"name": "size", "format": "INTEGER"})
    table = tsv(f"crmid {unread} size other", "c-1 919876543210 XL x", "c-2 919876543211 9 x")
    done = await crm.ingest(table, notify=["ann@example.org"])
    mail = await written(tenant, (await mails_of(tenant, done["id"]))[-1])
    assert attachments(mail) == {}
    assert "919876543210" in await tenant.error_file(done)
    async with key_of(tenant, "ingestions:read") as stranger:
        assert (await stranger.get(f"/v1/ingestions/{done['id']}/error-file")).status_code == 403
    assert await audited(tenant, "personal_data.read") == [done["id"]]
