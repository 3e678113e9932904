"""People: where each value came from, what they did, and how they are forgotten (P9, P10, D16)."""

import asyncio

import psycopg
import pytest
from tests.api.sources import source, tsv
from tests.api.world import account_of, ingest, nothing_is_applied, until

COLUMNS = {"what": {"ctName": "evtName"}}


async def retry(tenant, ingestion, rows="all"):
    made = await tenant.http.post(f"/v1/ingestions/{ingestion['id']}/retry", json={"rows": rows})
    return await tenant.ended(made.raise_for_status().json()["id"])


async def counts_of(ground, tenant):
    """How many rows of each table that holds people are the account's."""
    tables = ("profiles", "profile_aliases", "profile_redirects", "events")
    async with await psycopg.AsyncConnection.connect(ground.database_url) as connection:
        found = {}
        for table in tables:
            query = f"SELECT count(*) FROM {table} WHERE account_id = %s"
            (found[table],) = await (await connection.execute(query, (account_of(tenant),))).fetchone()
    return found


@pytest.mark.rule("D16")
async def test_a_profile_says_which_ingestion_last_changed_each_attribute_and_when(tenant):
    first = await tenant.push(b"identity,Age,City,Old\nann,21,Rome,x\n")
    second = await tenant.push(b"identity,Age,City,Old,Old.operation\nann,22,Rome,,$delete\n")
    found = await tenant.http.get(f"/v1/profiles/{(await tenant.profile('ann'))['id']}")
    assert found.headers["cache-control"] == "no-store"
    assert found.json()["attributes"] == {"Age": "22", "City": "Rome"}
    assert found.json()["provenance"] == {
        "Age": {"ingestion": second["id"], "data_source": None, "changed_at": second["started_at"]},
        "City": {"ingestion": first["id"], "data_source": None, "changed_at": first["started_at"]},
    }


async def test_up_to_a_thousand_people_are_looked_up_at_once(tenant):
    await tenant.push(b"identity\n" + b"".join(b"user-%d\n" % n for n in range(0, 1000, 2)))
    asked = [{"kind": "identity", "value": f"user-{n}"} for n in range(1000)]
    found = (await tenant.http.post("/v1/profiles/lookup", json={"identifiers": asked})).json()["data"]
    assert [each["profile"] is not None for each in found] == [n % 2 == 0 for n in range(1000)]
    one_more = await tenant.http.post("/v1/profiles/lookup", json={"identifiers": [*asked, asked[0]]})
    assert one_more.status_code == 422


@pytest.mark.rule("D5")
@pytest.mark.threat("T117")
async def test_addresses_and_numbers_that_identify_name_one_person_however_they_are_written(tenant):
    own = {"name": "work_mail", "format": "EMAIL", "identifier": True}
    line = {"name": "line", "format": "PHONE", "identifier": True}
    crm = await source(tenant, mail="email", work=own, phone=line)
    await crm.ingest(tsv("mail work phone", "ann@EXAMPLE.org ann@Work.example 919876543210"))
    again = await crm.ingest(tsv("mail work phone", "ann@example.org ann@work.example +919876543210"))
    assert (again["counts"]["created"], again["counts"]["unchanged"]) == (0, 1)
    ways = [("email", "ann@Example.ORG"), ("work_mail", "ann@WORK.example"), ("line", "919876543210")]
    asked = [{"kind": kind, "value": value} for kind, value in [*ways, ("email", "Ann@example.org")]]
    found = (await tenant.http.post("/v1/profiles/lookup", json={"identifiers": asked})).json()["data"]
    assert [each["profile"] is not None for each in found] == [True, True, True, False]
    assert found[0]["profile"]["identifiers"]["email"] == ["ann@example.org"]
    erased = await tenant.http.post("/v1/profiles/erase", json={"identifiers": asked[:1]})
    assert erased.json()["profiles"] == [found[0]["profile"]["id"]]


async def test_events_are_listed_by_person_by_ingestion_and_by_time(tenant):
    rows = b"identity,what,ts\nann,a,1600000030\nbob,b,1600000020\nann,c,1600000010\n"
    first = await tenant.push(rows, type="event", columns=COLUMNS)
    second = await tenant.push(b"identity,what\nann,d\n", type="event", columns=COLUMNS)
    ann = (await tenant.profile("ann"))["id"]
    path = f"/v1/profiles/{ann}/events"
    page = (await tenant.http.get(path, params={"limit": 2})).json()
    rest = (await tenant.http.get(path, params={"limit": 2, "cursor": page["next_cursor"]})).json()
    assert [each["name"] for each in page["data"] + rest["data"]] == ["c", "a", "d"]

    async def names(**filters):
        return [each["name"] for each in (await tenant.http.get("/v1/events", params=filters)).json()["data"]]

    assert sorted(await names()) == ["a", "b", "c", "d"]
    assert (await names())[0] == "d"
    assert sorted(await names(ingestion=first["id"])) == ["a", "b", "c"]
    assert await names(ingestion=second["id"], limit=1) == ["d"]
    moment = rest["data"][0]["received_at"]
    assert await names(received_from=moment) == ["d"]
    assert sorted(await names(received_to=moment)) == ["a", "b", "c"]
    assert rest["data"][0]["profile"] == ann


@pytest.mark.threat("T114")
async def test_an_erased_person_is_gone_from_every_table_and_does_not_come_back_with_older_files(tenant, ground):
    rows = b"identity,objectId,Age\nann,a-1,21\nbob,b-1,22\n"
    people = await tenant.push(rows)
    await tenant.push(b"fbId,Note\nf-1,x\n")
    await tenant.push(b"fbId,identity\nf-1,ann\n")
    happened = await tenant.push(b"objectId,what\na-1,Bought\nb-1,Sold\n", type="event", columns=COLUMNS)
    assert await counts_of(ground, tenant) == {"profiles": 2, "profile_aliases": 2, "profile_redirects": 1, "events": 2}
    ann = (await tenant.profile("ann"))["id"]
    assert (await tenant.profile("f-1", "fbId"))["id"] == ann
    assert (await tenant.http.delete(f"/v1/profiles/{ann}")).status_code == 204
    for path in (f"/v1/profiles/{ann}", f"/v1/profiles/{ann}/events"):
        assert (await tenant.http.get(path)).status_code == 404
    assert (await tenant.http.delete(f"/v1/profiles/{ann}")).status_code == 404
    for kind, value in (("identity", "ann"), ("objectId", "a-1"), ("fbId", "f-1")):
        assert await tenant.profile(value, kind) is None, kind
    assert await counts_of(ground, tenant) == {"profiles": 1, "profile_aliases": 1, "profile_redirects": 0, "events": 1}
    assert (await retry(tenant, people))["counts"]["erased"] == 1
    assert (await retry(tenant, happened))["counts"]["erased"] == 1
    assert await tenant.profile("ann") is None
    assert (await tenant.profile("bob"))["attributes"] == {"Age": "22"}
    newer = await tenant.push(rows)
    assert (newer["counts"]["created"], newer["counts"]["erased"]) == (1, 0)
    assert (await tenant.profile("a-1", "objectId"))["attributes"] == {"Age": "21"}


@pytest.mark.threat("T115")
async def test_somebody_erased_between_check_and_apply_is_skipped_and_counted(tenant, ground):
    await tenant.push(b"identity,objectId\nann,a-1\n")
    ann = (await tenant.profile("ann"))["id"]
    async with nothing_is_applied(ground, tenant):
        ingestion = await ingest(tenant, "x.csv", b"objectId,Age\na-1,21\nb-1,22\n")
        await until(tenant, ingestion, stage="applying")
        erasing = asyncio.create_task(tenant.http.delete(f"/v1/profiles/{ann}"))
    assert (await erasing).status_code == 204
    ended = await tenant.ended(ingestion)
    profile = await tenant.profile("a-1", "objectId")
    assert (ended["counts"]["accepted"], ended["counts"]["erased"], profile) in ((2, 1, None), (2, 0, None))


@pytest.mark.rule("D54")
async def test_a_person_can_be_shown_and_erased_by_the_id_of_a_profile_that_was_merged_into_theirs(tenant):
    await tenant.push(b"objectId,Age\na-1,21\n")
    merged = (await tenant.profile("a-1", "objectId"))["id"]
    await tenant.push(b"identity\nann\n")
    await tenant.push(b"identity,objectId\nann,a-1\n")
    ann = (await tenant.profile("ann"))["id"]
    assert (await tenant.http.get(f"/v1/profiles/{merged}")).json()["id"] == ann != merged
    assert (await tenant.http.delete(f"/v1/profiles/{merged}")).status_code == 204
    assert await tenant.profile("ann") is None


async def test_a_person_who_was_changed_meanwhile_is_not_erased(tenant):
    await tenant.push(b"identity,Age\nann,21\n")
    path = f"/v1/profiles/{(await tenant.profile('ann'))['id']}"
    tag = (await tenant.http.get(path)).headers["etag"]
    await tenant.push(b"identity,Age\nann,22\n")
    refused = await tenant.http.delete(path, headers={"If-Match": tag})
    assert (refused.status_code, refused.json()["code"]) == (412, "changed_meanwhile")
    tag = (await tenant.http.get(path)).headers["etag"]
    assert (await tenant.http.delete(path, headers={"If-Match": tag})).status_code == 204
    assert await tenant.profile("ann") is None


@pytest.mark.threat("T114")
async def test_a_person_of_very_many_identifiers_can_be_erased(tenant, ground):
    many = 33_000  # a statement binds 65,535 values
    await tenant.push(b"identity,objectId\n" + b"".join(b"ann,o-%d\n" % number for number in range(many)))
    assert (await counts_of(ground, tenant))["profile_aliases"] == many
    ann = (await tenant.profile("ann"))["id"]
    assert (await tenant.http.delete(f"/v1/profiles/{ann}")).status_code == 204
    assert set((await counts_of(ground, tenant)).values()) == {0}
    assert (await tenant.push(b"objectId\no-32999\n"))["counts"]["created"] == 1
    retried = await retry(tenant, (await tenant.http.get("/v1/ingestions")).json()["data"][-1])
    assert retried["counts"]["erased"] == many


@pytest.mark.threat("T50")
async def test_another_account_can_neither_see_nor_erase_a_person(tenant, other):
    await tenant.push(b"identity\nann\n")
    path = f"/v1/profiles/{(await tenant.profile('ann'))['id']}"
    assert (await other.http.get(path)).status_code == (await other.http.delete(path)).status_code == 404
    assert await tenant.profile("ann") is not None
