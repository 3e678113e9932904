"""Filter segments: a condition over attributes says who is in them (D41, S75, S140)."""

from __future__ import annotations

import asyncio
import contextlib

import psycopg
import pytest
from sqlalchemy import text
from tests.api.sources import source, tsv
from tests.api.world import account_of, ingest, nothing_is_applied, nothing_is_checked
from tests.scheduler.world import body as body_of_schedule
from tests.scheduler.world import new_connection

from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.domain.personal import MASK
from ingestd.ingest import flow
from ingestd.ingest.filters import recompute_one
from ingestd.store import engine as store
from ingestd.store import filters
from ingestd.store.engine import transaction

USED = {"use_in_segments": True}
COLUMNS = {
    "crmid": {"name": "crmid", "identifier": True},
    "tier": {"name": "tier"} | USED,
    "age": {"name": "age", "format": "INTEGER"} | USED,
    "since": {"name": "since", "format": "DATE"} | USED,
    "city": {"name": "city", "pii": True} | USED,
    "vip": {"name": "vip", "format": "BOOLEAN"} | USED,
    "note": {"name": "note"},
}
ROWS = (
    "crmid tier age since city vip note",
    "c-1 gold 30 2024-01-01 Ulm true x",
    "c-2 gold 41 2025-06-01 Bonn false x",
    "c-3 tin 52 2026-01-01 Ulm true x",
)
GOLD = {"attribute": "TIER", "op": "equals", "value": "gold"}
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE "
FINDING, COUNTING = WAITING + "'%TEMP TABLE wanted%'", WAITING + "'%UPDATE segments SET members%'"
REMOVING, HOLDING = WAITING + "'%FROM segments%FOR UPDATE%'", WAITING + "'%pg_advisory_xact_lock(%, 40))'"
FALLING_BEHIND = WAITING + "'%UPDATE segments SET behind%'"
BEHIND = "SELECT behind FROM segments WHERE id = %s"


async def crm(tenant):
    made = await source(tenant, **COLUMNS)
    done = await made.ingest(tsv(*ROWS))
    assert (done["status"], done["counts"]["accepted"]) == ("completed", 3), done
    return made


async def make(tenant, condition, **more):
    body = {"name": "golden", "description": "Who is golden", "type": "SCD", "condition": condition} | more
    made = (await tenant.http.post("/v1/filters", json=body)).raise_for_status().json()
    assert (made["status"], made["method"], made["channels"]) == ("draft", "filter", ["push", "email", "sms"])
    (await tenant.http.post(f"/v1/segments/{made['id']}/activate")).raise_for_status()
    return await active(tenant, made)


async def active(tenant, segment):
    """Wait until a segment has its members; the test's time limit ends a wait in vain."""
    while True:
        shown = (await tenant.http.get(f"/v1/segments/{segment['id']}")).raise_for_status().json()
        if shown["status"] == "active":
            return shown


async def members(tenant, segment):
    page = (await tenant.http.get(f"/v1/segments/{segment['id']}/members")).raise_for_status().json()
    return sorted(each["value"] for each in page["data"])


def asks(attribute, op, *value):
    """A comparison."""
    return {"attribute": attribute, "op": op} | ({"value": value[0]} if value else {})


FITS = [
    (GOLD, 2),
    (asks("tier", "in", ["gold", "tin"]), 3),
    (asks("tier", "contains", "ol"), 2),
    (asks("note", "exists"), None),
    (asks("age", "exists"), 3),
    (asks("age", "greater", 41), 1),
    (asks("age", "less", 41), 1),
    (asks("age", "between", [30, 41]), 2),
    (asks("age", "equals", 52), 1),
    (asks("vip", "equals", True), 2),
    (asks("since", "greater", "2025-01-01T00:00:00Z"), 2),
    (asks("since", "equals", "2024-01-01T00:00:00Z"), 1),
    (asks("city", "equals", "Ulm"), 2),
    (asks("city", "in", ["Ulm", "Bonn"]), 3),
    (asks("crmid", "equals", "c-1"), None),
    ({"not": GOLD}, 1),
    ({"any": [GOLD, asks("vip", "equals", True)]}, 3),
    ({"all": [GOLD, {"not": asks("city", "equals", "Ulm")}]}, 1),
    (asks("city", "contains", "U"), None),
    (asks("city", "greater", "A"), None),
    (asks("tier", "greater", "a"), None),
    (asks("tier", "equals", 1), None),
    (asks("age", "equals", True), None),
    (asks("age", "between", [1]), None),
    (asks("age", "equals", [1, 2]), None),
    (asks("age", "exists", 1), None),
    (asks("since", "less", "2024-01-01"), None),
    (asks("nothing", "exists"), None),
]


@pytest.mark.rule("D41", "S140")
@pytest.mark.threat("T118")
async def test_a_preview_counts_who_fits_and_says_what_cannot_be_asked(tenant):
    await crm(tenant)
    for condition, fits in [*FITS, (asks("tier", "equals", "gold' OR 'a'='a"), 0)]:
        answer = await tenant.http.post("/v1/filters/preview", json={"condition": condition})
        if fits is None:
            assert (answer.status_code, answer.json()["code"]) == (422, "condition_incorrect"), condition
        else:
            assert answer.json() == {"count": fits}, condition


async def test_files_come_in_while_the_members_of_a_segment_are_being_found(tenant, ground):
    await crm(tenant)
    body = {"name": "golden", "description": "Who is golden", "type": "SCD", "condition": GOLD}
    made = (await tenant.http.post("/v1/filters", json=body)).raise_for_status().json()
    async with (
        await psycopg.AsyncConnection.connect(ground.database_url, autocommit=True) as watch,
        nothing_is_checked(ground),  # nor are members found, for which the people are looked through
    ):
        (await tenant.http.post(f"/v1/segments/{made['id']}/activate")).raise_for_status()
        while (await (await watch.execute(FINDING)).fetchone()) == (0,):
            pass
        ingestion = await ingest(tenant, "next.csv", b"identity,Age\nann,1\n")
    assert (await active(tenant, made))["members"] == 2
    assert (await tenant.ended(ingestion))["status"] == "completed"


async def test_segments_are_found_anew_in_the_order_in_which_an_erasure_holds_them(tenant, ground):
    await crm(tenant)
    made = [await make(tenant, GOLD, name=f"golden {n}") for n in range(3)]
    place = f"/v1/segments/{made[0]['id']}/condition"
    (await tenant.http.put(place, json={"condition": {"not": GOLD}})).raise_for_status()  # its row is written last
    sql = store.engine(ground.database_url)
    with sql.connect() as connection:
        for way in ("indexscan", "bitmapscan"):  # as they come, the planner may choose either
            connection.execute(text(f"SET LOCAL enable_{way} TO off"))
        found = [ids.show(Prefix.SEGMENT, row.id) for row in filters.in_use(connection, account_of(tenant))]
    sql.dispose()
    assert found == [each["id"] for each in made]


async def test_who_holds_the_segment_while_its_members_are_found_anew_gets_its_partition_too(tenant, ground):
    await crm(tenant)
    segment = await make(tenant, GOLD)
    of_it = (ids.read(Prefix.SEGMENT, segment["id"]),)
    sql = store.engine(ground.database_url)
    async with (
        await psycopg.AsyncConnection.connect(ground.database_url, autocommit=True) as watch,
        await psycopg.AsyncConnection.connect(ground.database_url) as lock,
    ):
        await lock.execute("SELECT FROM segments WHERE id = %s FOR NO KEY UPDATE", of_it)
        recomputed = asyncio.create_task(asyncio.to_thread(recompute_one, sql, ground.keyring, *of_it))
        while (await (await watch.execute(COUNTING)).fetchone()) == (0,):
            pass
        await lock.execute("SELECT FROM partitions WHERE segment_id = %s FOR NO KEY UPDATE NOWAIT", of_it)
    await recomputed
    sql.dispose()
    assert await members(tenant, segment) == ["c-1", "c-2"]


@pytest.mark.rule("D41", "D46")
@pytest.mark.threat("T118")
async def test_dates_are_compared_whatever_the_name_of_the_attribute(tenant):
    names = ["paid, at", "paid {at", "paid} at", "paid 'at", "paid.at", "%s", ":x", "null", "é"]
    named = {f"c{n}": {"name": name, "format": "DATE", "segment_name": f"C_{n}"} | USED for n, name in enumerate(names)}
    made = await source(tenant, crmid="identity", **named)
    rows = (" ".join([person, *[day] * len(names)]) for person, day in (("c-1", "2024-01-01"), ("c-2", "2026-01-01")))
    assert (await made.ingest(tsv(" ".join(["crmid", *named]), *rows)))["counts"]["accepted"] == 2
    for name in names:
        condition = {"all": [asks(name, "less", "2025-01-01T00:00:00Z"), asks(name, "exists")]}
        answer = await tenant.http.post("/v1/filters/preview", json={"condition": condition})
        assert answer.json() == {"count": 1}, (name, answer.text)


@pytest.mark.rule("S75", "S136")
async def test_what_changes_the_members_is_told_and_nothing_else(tenant, receiver):
    made = await crm(tenant)
    segment = await make(tenant, GOLD)
    told = await receiver.until("segment.refreshed", segment["id"])
    assert (told["status"], told["members"]) == ("active", 2)
    await made.ingest(tsv(*ROWS[:2]))  # nobody comes or goes
    await made.ingest(tsv(ROWS[0], "c-3 gold 52 2026-01-01 Ulm true x"))
    [webhook] = (await tenant.http.get("/v1/webhooks")).json()["data"]
    sent = (await tenant.http.get(f"/v1/webhooks/{webhook['id']}/deliveries", params={"limit": 200})).json()["data"]
    assert [each["data"]["members"] for each in sent if each["type"] == "segment.refreshed"] == [3, 2]


@pytest.mark.rule("D41", "S75", "S140", "S141")
@pytest.mark.parametrize("few", [0, flow.FEW])
async def test_members_follow_each_ingestion_before_it_is_completed(tenant, monkeypatch, few):
    monkeypatch.setattr(flow, "FEW", few)
    made = await crm(tenant)
    segment = await make(tenant, GOLD)
    assert (segment["members"], await members(tenant, segment)) == (2, ["c-1", "c-2"])
    changed = await made.ingest(tsv(ROWS[0], "c-1 tin 30 2024-01-01 Ulm true x", "c-4 gold 9 2024-01-01 Ulm true x"))
    assert (changed["status"], changed["stage"]) == ("completed", "done")
    assert await members(tenant, segment) == ["c-2", "c-4"]  # at once: it was not completed before
    person = (await tenant.profile("c-4", "crmid"))["id"]
    shown = (await tenant.http.get(f"/v1/profiles/{person}")).json()
    assert [each["segment"]["name"] for each in shown["segments"]] == ["golden"]
    snapshots = (await tenant.http.get(f"/v1/segments/{segment['id']}/snapshots")).json()["data"]
    assert [(each["entered"], each["left"]) for each in snapshots] == [(1, 1), (2, 0)]
    await tenant.push(b"identity,tier\nu-1,gold\n")  # another door, the same attribute
    assert await members(tenant, segment) == ["c-2", "c-4", "u-1"]
    lookup = {"identifiers": [{"kind": "identity", "value": value} for value in ("u-1", "u-2")]}
    answer = await tenant.http.post(f"/v1/segments/{segment['id']}/members/lookup", json=lookup)
    assert [each["member"] is not None for each in answer.json()["data"]] == [True, False]


@pytest.mark.rule("D41")
async def test_who_lacks_what_is_asked_for_is_a_member_whatever_brings_them(tenant):
    await crm(tenant)
    segment = await make(tenant, {"not": asks("tier", "exists")})
    assert await members(tenant, segment) == []
    await tenant.push(b"identity,Age\nann,1\n")
    assert await members(tenant, segment) == ["ann"]
    await tenant.push(b"identity,evtName,ts\nbob,seen,1790000000\n", type="event")
    assert await members(tenant, segment) == ["ann", "bob"]
    await tenant.push(b"identity,tier\nann,gold\n")
    assert await members(tenant, segment) == ["bob"]


@pytest.mark.rule("D41", "D54")
async def test_who_becomes_one_with_another_leaves_with_them(tenant):
    await crm(tenant)
    segment = await make(tenant, GOLD)
    await tenant.push(b"fbId,tier\nf-1,gold\n")
    await tenant.push(b"objectId,tier\no-1,tin\n")
    assert await members(tenant, segment) == ["c-1", "c-2", "f-1"]
    await tenant.push(b"fbId,objectId,evtName,ts\nf-1,o-1,seen,1790000000\n", type="event")
    assert await members(tenant, segment) == ["c-1", "c-2"]  # the tier that was said last


@pytest.mark.rule("D41")
async def test_a_small_file_looks_at_its_own_people_unless_its_segment_fell_behind(tenant, ground):
    await crm(tenant)
    segment = await make(tenant, GOLD)
    for because, found in ((None, ["u-1"]), (account_of(tenant), ["c-1", "c-2", "u-1"])):
        async with await psycopg.AsyncConnection.connect(ground.database_url) as connection:
            await connection.execute("DELETE FROM segment_members")  # as nobody does
            of_it = (because, ids.read(Prefix.SEGMENT, segment["id"]))
            await connection.execute("UPDATE segments SET behind = %s WHERE id = %s", of_it)
        await tenant.push(b"identity,tier\nu-1,gold\n")
        assert await members(tenant, segment) == found
    assert (await active(tenant, segment))["members"] == 3


@pytest.mark.rule("D13", "D41")
async def test_what_cannot_be_asked_of_an_attribute_any_more_is_found_anew_by_the_next_file(tenant):
    await crm(tenant)
    segment = await make(tenant, asks("tier", "contains", "gold"))
    (tier,) = [each for each in (await tenant.http.get("/v1/attributes")).json()["data"] if each["name"] == "tier"]
    (await tenant.http.patch(f"/v1/attributes/{tier['id']}", json={"pii": True})).raise_for_status()
    await tenant.push(b"identity,Age\nann,1\n")  # after it was sealed, which has its turn among the ingestions
    assert await members(tenant, segment) == []


@pytest.mark.rule("D41")
async def test_no_file_is_taken_by_a_filter_segment(tenant):
    people = await crm(tenant)
    segment = await make(tenant, GOLD, type="Non-SCD")
    joining = await people.post(tsv(*ROWS), segment={"id": segment["id"]})
    assert (joining.status_code, joining.json()["code"]) == (409, "segment_filtered")
    file = (await tenant.http.put("/v1/files/golden__1.csv", content=b"user_id,p\nu,a\n")).json()
    body = {"file_id": file["id"], "segment_id": segment["id"]}
    refused = await tenant.http.post("/v1/ingestions", json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "segment_filtered")
    path = f"/v1/segments/{segment['id']}"
    schedule = body_of_schedule(await new_connection(tenant))
    for where, wish in (("schedule", schedule), ("draft", {"upload_type": "scheduled"})):
        refused = await tenant.http.put(f"{path}/{where}", json=wish)
        assert (refused.status_code, refused.json()["code"]) == (409, "segment_filtered")
    (await tenant.http.post(f"{path}/deactivate")).raise_for_status()
    assert (await tenant.http.patch(path, json={"upload_type": "scheduled"})).status_code == 409
    plain = {"name": "x", "description": "x", "type": "SCD", "method": "filter", "upload_type": "manual"}
    assert (await tenant.http.post("/v1/segments", json=plain)).status_code == 422


@pytest.mark.rule("D13", "D41")
async def test_a_condition_on_a_personal_attribute_is_sealed_and_masked_and_outlives_a_rotation(tenant):
    made = await crm(tenant)
    segment = await make(tenant, {"any": [asks("city", "equals", "Bonn"), asks("age", "greater", 50)]})
    assert await members(tenant, segment) == ["c-2", "c-3"]
    shown = (await tenant.http.get(f"/v1/segments/{segment['id']}/condition")).json()["condition"]["any"]
    assert [each["value"] for each in shown] == [MASK, 50]
    async with transaction(tenant.app.intake.sessions) as session:
        query = text("SELECT condition FROM segments WHERE account_id = :account")
        stored = await session.scalar(query, {"account": account_of(tenant)})
    assert b"Bonn" not in bytes(stored)
    (await tenant.http.post("/v1/account/rotate-keys")).raise_for_status()
    await made.ingest(tsv(ROWS[0], "c-1 gold 30 2024-01-01 Bonn true x"))
    assert await members(tenant, segment) == ["c-1", "c-2", "c-3"]


@pytest.mark.rule("D41", "S140")
async def test_a_condition_that_is_changed_finds_the_members_anew(tenant):
    await crm(tenant)
    segment = await make(tenant, GOLD)
    place = f"/v1/segments/{segment['id']}/condition"
    tag = (await tenant.http.get(place)).headers["etag"]
    town = asks("city", "equals", "Ulm")
    changed = await tenant.http.put(place, json={"condition": town}, headers={"If-Match": tag})
    assert changed.json() == {"condition": town | {"value": MASK}}, changed.text
    assert (await tenant.http.put(place, json={"condition": GOLD}, headers={"If-Match": tag})).status_code == 412
    while await members(tenant, segment) != ["c-1", "c-3"]:  # the test's time limit ends a wait in vain
        pass
    (await tenant.http.post(f"/v1/segments/{segment['id']}/deactivate")).raise_for_status()
    (await tenant.http.put(place, json={"condition": {"not": GOLD}})).raise_for_status()
    assert await members(tenant, segment) == ["c-1", "c-3"]
    activated = await tenant.http.post(f"/v1/segments/{segment['id']}/activate")
    assert activated.json()["status"] == "in_progress"  # nobody looked who fits while it was inactive
    assert await members(tenant, await active(tenant, segment)) == ["c-3"]


async def test_only_a_filter_segment_has_a_condition_that_fits(tenant):
    await crm(tenant)
    segment = await make(tenant, GOLD)
    wrong = await tenant.http.put(f"/v1/segments/{segment['id']}/condition", json={"condition": asks("note", "exists")})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "condition_incorrect")
    body = {"name": "filed", "description": "By files", "type": "SCD", "method": "upload", "upload_type": "manual"}
    filed = (await tenant.http.post("/v1/segments", json=body)).raise_for_status().json()["id"]
    refused = await tenant.http.put(f"/v1/segments/{filed}/condition", json={"condition": GOLD})
    assert (refused.status_code, refused.json()["code"]) == (409, "segment_unfiltered")


@pytest.mark.rule("S39", "S45")
async def test_the_partition_that_was_removed_is_there_again_with_its_members(tenant):
    source_of_people = await crm(tenant)
    segment = await make(tenant, GOLD)
    path = f"/v1/segments/{segment['id']}"
    [partition] = (await tenant.http.get(f"{path}/partitions")).json()["data"]
    (await tenant.http.delete(f"{path}/partitions/{partition['id']}")).raise_for_status()
    assert (await tenant.http.get(f"{path}/partitions")).json()["data"] == []
    await source_of_people.ingest(tsv(ROWS[0], "c-3 gold 52 2026-01-01 Ulm true x"))
    assert await members(tenant, segment) == ["c-1", "c-2", "c-3"]
    assert (await tenant.http.get(f"{path}/partitions")).json()["data"] == [partition | {"members": 3}]


@pytest.mark.rule("D41")
async def test_a_segment_stays_over_its_attribute_whatever_that_is_called_in_segments(tenant):
    crm_ = await crm(tenant)
    segment = await make(tenant, {"not": {"all": [{"any": [GOLD]}]}})
    [tier] = [each for each in (await tenant.http.get("/v1/attributes")).json()["data"] if each["name"] == "tier"]
    renamed = await tenant.http.patch(f"/v1/attributes/{tier['id']}", json={"segment_name": "LEVEL"})
    renamed.raise_for_status()
    await crm_.ingest(tsv(ROWS[0], "c-4 tin 52 2026-01-01 Ulm true x"))
    assert (await tenant.http.get(f"/v1/segments/{segment['id']}")).json()["members"] == 2


@pytest.mark.rule("D41")
async def test_an_attribute_that_a_condition_is_over_is_not_deleted(tenant):
    made = (await tenant.http.post("/v1/attributes", json={"name": "tier"} | USED)).raise_for_status()
    segment = await make(tenant, {"any": [GOLD]})
    refused = await tenant.http.delete(made.headers["location"])
    assert (refused.status_code, refused.json()["code"]) == (409, "attribute_used")
    (await tenant.http.post(f"/v1/segments/{segment['id']}/deactivate")).raise_for_status()
    (await tenant.http.delete(f"/v1/segments/{segment['id']}")).raise_for_status()
    assert (await tenant.http.delete(made.headers["location"])).status_code == 204


@pytest.mark.rule("D41", "S45")
@pytest.mark.parametrize("is_behind", [False, True])
async def test_a_partition_that_is_removed_while_a_small_file_waits_is_filled_by_everybody(tenant, ground, is_behind):
    await crm(tenant)
    segment = await make(tenant, GOLD)
    path = f"/v1/segments/{segment['id']}"
    of_it = (ids.read(Prefix.SEGMENT, segment["id"]),)
    [partition] = (await tenant.http.get(f"{path}/partitions")).json()["data"]
    async with await psycopg.AsyncConnection.connect(ground.database_url, autocommit=True) as watch:
        async with await psycopg.AsyncConnection.connect(ground.database_url) as lock:
            async with nothing_is_applied(ground, tenant) if is_behind else contextlib.nullcontext():
                ingestion = is_behind and await ingest(tenant, "next.csv", b"identity,tier\nu-1,gold\n")
                while is_behind and (await (await watch.execute(BEHIND, of_it)).fetchone()) == (None,):
                    pass
                await lock.execute("SELECT FROM segments WHERE id = %s FOR NO KEY UPDATE", of_it)
                removed = asyncio.create_task(tenant.http.delete(f"{path}/partitions/{partition['id']}"))
                while (await (await watch.execute(REMOVING)).fetchone()) == (0,):
                    pass
            ingestion = ingestion or await ingest(tenant, "next.csv", b"identity,tier\nu-1,gold\n")
            while (await (await watch.execute(HOLDING)).fetchone()) == (0,):
                pass
        (await removed).raise_for_status()
    await tenant.ended(ingestion)
    assert await members(tenant, segment) == ["c-1", "c-2", "u-1"]


@pytest.mark.rule("D13", "D41")
async def test_who_holds_a_segment_while_values_are_sealed_gets_its_account_too(tenant, ground):
    await crm(tenant)
    segment = await make(tenant, GOLD)
    (tier,) = [each for each in (await tenant.http.get("/v1/attributes")).json()["data"] if each["name"] == "tier"]
    async with (
        await psycopg.AsyncConnection.connect(ground.database_url, autocommit=True) as watch,
        await psycopg.AsyncConnection.connect(ground.database_url) as lock,
    ):
        of_it = (ids.read(Prefix.SEGMENT, segment["id"]),)
        await lock.execute("SELECT FROM segments WHERE id = %s FOR NO KEY UPDATE", of_it)
        (await tenant.http.patch(f"/v1/attributes/{tier['id']}", json={"pii": True})).raise_for_status()
        while (await (await watch.execute(FALLING_BEHIND)).fetchone()) == (0,):
            pass
        await lock.execute("SELECT FROM accounts WHERE id = %s FOR KEY SHARE NOWAIT", (account_of(tenant),))


@pytest.mark.rule("D41")
async def test_a_condition_that_is_changed_while_a_small_file_is_applied_is_asked_of_everybody(tenant, ground):
    await crm(tenant)
    segment = await make(tenant, GOLD)
    path = f"/v1/segments/{segment['id']}"
    of_it = (ids.read(Prefix.SEGMENT, segment["id"]),)
    async with (
        await psycopg.AsyncConnection.connect(ground.database_url, autocommit=True) as watch,
        nothing_is_applied(ground, tenant),
    ):
        ingestion = await ingest(tenant, "next.csv", b"identity,tier\nu-1,tin\n")
        while (await (await watch.execute(BEHIND, of_it)).fetchone()) == (None,):
            pass
        (await tenant.http.put(f"{path}/condition", json={"condition": {"not": GOLD}})).raise_for_status()
    await tenant.ended(ingestion)
    await tenant.push(b"identity,Age\nann,1\n")  # its turn comes after that of the condition
    snapshots = (await tenant.http.get(f"{path}/snapshots")).json()["data"]
    assert [(each["entered"], each["left"]) for each in snapshots] == [(1, 0), (2, 2), (2, 0)]


@pytest.mark.rule("D13")
@pytest.mark.threat("T116")
async def test_the_audit_trail_has_no_value_of_a_condition_since_its_attribute_may_become_personal(tenant):
    await crm(tenant)
    segment = await make(tenant, GOLD)
    town = {"all": [asks("tier", "in", ["silver", "tin"]), {"not": asks("age", "exists")}]}
    (await tenant.http.put(f"/v1/segments/{segment['id']}/condition", json={"condition": town})).raise_for_status()
    page = (await tenant.http.get("/v1/audit", params={"action": "segment.condition_changed"})).json()
    (entry,) = page["data"]
    assert entry["before"] == {"condition": asks("tier", "equals", MASK)}
    hidden = {"all": [asks("tier", "in", MASK), {"not": asks("age", "exists", None)}]}
    assert entry["after"] == {"condition": hidden}


@pytest.mark.rule("D13")
async def test_a_condition_that_comes_back_as_it_was_shown_does_not_compare_with_the_mask(tenant):
    await crm(tenant)
    segment = await make(tenant, {"all": [GOLD, asks("city", "equals", "Ulm")]})
    place = f"/v1/segments/{segment['id']}/condition"
    shown = (await tenant.http.get(place)).raise_for_status().json()
    refused = await tenant.http.put(place, json=shown)
    assert (refused.status_code, refused.json()["code"]) == (422, "condition_incorrect"), refused.text
    (problem,) = refused.json()["errors"]
    assert problem["pointer"] == "/body/condition"
    assert "say the value itself" in problem["detail"]
    assert await members(tenant, segment) == ["c-1"]


async def test_an_update_of_a_condition_of_which_only_what_is_masked_was_changed_is_refused(tenant):
    await crm(tenant)
    segment = await make(tenant, asks("city", "equals", "Ulm"))
    place = f"/v1/segments/{segment['id']}/condition"
    first = await tenant.http.get(place)
    same = await tenant.http.get(place, headers={"If-None-Match": first.headers["etag"]})
    assert same.status_code == 304
    changed = await tenant.http.put(place, json={"condition": asks("city", "equals", "Bonn")})
    assert changed.json() == first.json()
    assert changed.headers["etag"] == (await tenant.http.get(place)).headers["etag"] != first.headers["etag"]
    for tag, status in ((first.headers["etag"], 412), (changed.headers["etag"], 200)):
        again = await tenant.http.put(place, json={"condition": GOLD}, headers={"If-Match": tag})
        assert again.status_code == status
