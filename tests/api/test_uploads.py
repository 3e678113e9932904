"""Uploads for a data source (S48 to S60, S65 to S70, D16)."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text
from tests.api.sources import CRMID, attribute, source, tsv
from tests.api.walk import client_with
from tests.api.world import account_of, nothing_is_checked, until, upload
from tests.scheduler.world import body as daily
from tests.scheduler.world import new_connection, put_schedule

from ingestd.domain import ids as ids_of
from ingestd.domain.errors import Invalid
from ingestd.domain.ids import Prefix
from ingestd.ingest.uploads import header_of
from ingestd.store.engine import transaction, utc_now
from ingestd.store.source_changes import TOLD_AT_ONCE

TIER = {"name": "tier"}


async def attributes(tenant, crmid):
    return (await tenant.profile(crmid, "crmid"))["attributes"]


async def members(crm):
    page = (await crm.tenant.http.get(f"{crm.path}/members")).raise_for_status().json()
    return {each["profile"] for each in page["data"]}


async def changes(crm, ingestion=None, **params):
    params |= {"ingestion": ingestion["id"]} if ingestion else {}
    page = (await crm.tenant.http.get(f"{crm.path}/changes", params=params)).raise_for_status().json()
    return {each["profile"]: each["change"] for each in page["data"]}


async def ids(tenant, *crmids):
    return [(await tenant.profile(crmid, "crmid"))["id"] for crmid in crmids]


@pytest.mark.rule("S48", "S57", "S67", "S70")
async def test_an_upload_creates_and_updates_people(tenant):
    crm = await source(tenant, crmid=CRMID, tier=TIER, age={"name": "age", "format": "INTEGER"})
    first = await crm.ingest(tsv("crmid tier age", "c-1 gold 30", "c-2 silver 31"))
    assert (first["status"], first["counts"]["created"]) == ("completed", 2), first
    assert first["data_source"] == {"id": crm.id, "name": "CRM"}
    second = await crm.ingest(tsv("crmid tier age", "c-1 gold 30", "c-2 gold 31", "c-3 gold x", "c-4 tin 9"))
    counts = second["counts"]
    assert [counts[name] for name in ("created", "updated", "unchanged", "rejected")] == [1, 1, 1, 1]
    assert first["id"] != second["id"]
    one, two, four = await ids(tenant, "c-1", "c-2", "c-4")
    assert await members(crm) == {one, two, four}
    assert await changes(crm, first) == {one: "entered", two: "entered"}
    assert await changes(crm) == await changes(crm, second) == {two: "changed", four: "entered"}
    assert await changes(crm, second, change="entered") == {four: "entered"}


async def test_what_an_old_ingestion_changed_is_gone_and_it_is_said(tenant, monkeypatch):
    crm = await source(tenant, crmid=CRMID)
    done = await crm.ingest(tsv("crmid", "c-1"))
    later = utc_now() + timedelta(days=91)
    monkeypatch.setattr("ingestd.api.source_people.utc_now", lambda: later)
    for params in ({}, {"ingestion": done["id"]}):
        gone = await tenant.http.get(f"{crm.path}/changes", params=params)
        assert (gone.status_code, gone.json()["code"]) == (410, "changes_expired")


async def listed(crm, what, **params):
    """A whole list, read page by page."""
    found = []
    while True:
        page = (await crm.tenant.http.get(f"{crm.path}/{what}", params=params)).raise_for_status().json()
        found += [tuple(each.values()) for each in page["data"]]
        if page["next_cursor"] is None:
            return found
        params["cursor"] = page["next_cursor"]


@pytest.mark.rule("S67")
async def test_changes_are_read_page_by_page_in_both_orders_and_without_who_was_erased(tenant):
    crm = await source(tenant, crmid=CRMID, tier=TIER)
    people = [f"c-{number}" for number in range(2 * TOLD_AT_ONCE + 70)]
    await crm.ingest(tsv("crmid tier", *(f"{each} tin" for each in people[:150])))
    before = {each for (each,) in await listed(crm, "members")}
    await crm.ingest(tsv("crmid tier", *(f"{each} gold" for each in people[40:])), mode="replace")
    after = {each for (each,) in await listed(crm, "members")}
    told = dict.fromkeys(before, "left") | dict.fromkeys(after, "entered") | dict.fromkeys(before & after, "changed")
    assert len(told) == len(people)
    for erased in (sorted(told)[:3], sorted(told)[90:94], ()):
        for sort in ("profile", "-profile"):
            down = sort.startswith("-")
            assert await listed(crm, "changes", sort=sort, limit=30) == sorted(told.items(), reverse=down)
            new = sorted((each for each in told.items() if each[1] == "entered"), reverse=down)
            assert await listed(crm, "changes", sort=sort, limit=7, change="entered") == new
        for profile in erased:
            (await tenant.http.delete(f"/v1/profiles/{profile}")).raise_for_status()
            del told[profile]


@pytest.mark.rule("S66", "S67", "D16")
async def test_a_replace_takes_out_who_is_not_in_the_file_and_what_the_source_owns(tenant):
    crm = await source(tenant, crmid=CRMID, tier=TIER, town={"name": "town"})
    shop = await source(tenant, "Shop", crmid="crmid", color={"name": "color"}, town="town")
    await crm.ingest(tsv("crmid tier town", "c-1 gold Ulm", "c-2 gold Ulm", "c-3 tin Bonn", "c-4 tin Bonn"))
    await shop.ingest(tsv("crmid color town", "c-1 red Ulm", "c-4 blue Jena"))
    one, two, three, four = await ids(tenant, "c-1", "c-2", "c-3", "c-4")
    await crm.map(crmid="crmid", tier="tier")  # the file has no column for the town any more
    replaced = await crm.ingest(tsv("crmid tier", "c-1 gold", "c-2 tin"), mode="replace")
    assert (replaced["mode"], replaced["counts"]["removed"], replaced["counts"]["updated"]) == ("replace", 2, 2)
    assert await members(crm) == {one, two}
    assert await changes(crm, replaced) == {one: "changed", two: "changed", three: "left", four: "left"}
    assert await attributes(tenant, "c-1") == {"tier": "gold", "color": "red"}  # Ulm was the CRM's: it had it first
    assert await attributes(tenant, "c-2") == {"tier": "tin"}
    assert await attributes(tenant, "c-3") == {}  # a bare profile
    assert await attributes(tenant, "c-4") == {"color": "blue", "town": "Jena"}  # the shop's own by then
    again = await crm.ingest(tsv("crmid tier", "c-1 gold", "c-2 tin"), mode="replace")
    assert (again["counts"]["unchanged"], await changes(crm, again)) == (2, {})


@pytest.mark.rule("D16")
async def test_a_replace_that_takes_out_too_many_waits_until_it_is_confirmed(tenant):
    crm = await source(tenant, crmid=CRMID, tier=TIER)
    await crm.ingest(tsv("crmid tier", "c-1 a", "c-2 b", "c-3 c"))
    asked = (await crm.post(tsv("crmid tier", "c-1 z"), mode="replace")).json()
    held = await until(tenant, asked["id"], stage="held")
    assert held["held"] == {"leaving": 2, "of": 3}
    assert len(await members(crm)) == 3
    later = await crm.ingest(tsv("crmid tier", "c-4 d"))  # nobody waits for it
    assert later["status"] == "completed"
    of_it = {"id": ids_of.read(Prefix.INGESTION, asked["id"])}
    async with transaction(tenant.app.intake.sessions) as session:
        await session.execute(text("UPDATE ingestions SET delays = 3, attempts = 4 WHERE id = :id"), of_it)
    await tenant.http.post(f"/v1/ingestions/{asked['id']}/confirm")
    async with transaction(tenant.app.intake.sessions) as session:  # it begins anew, with nothing told of it yet
        count = await session.scalar(text("SELECT delays + attempts FROM ingestions WHERE id = :id"), of_it)
    assert count == 0
    done = await tenant.ended(asked["id"])
    assert (done["status"], done["held"], done["counts"]["removed"]) == ("completed", None, 3)
    assert await members(crm) == set(await ids(tenant, "c-1"))


@pytest.mark.rule("D16")
async def test_half_of_a_source_leaves_unasked(tenant):
    crm = await source(tenant, crmid=CRMID, tier=TIER)
    await crm.ingest(tsv("crmid tier", "c-1 a", "c-2 b"))
    assert (await crm.ingest(tsv("crmid tier", "c-1 a"), mode="replace"))["counts"]["removed"] == 1


@pytest.mark.rule("S66")
async def test_rejected_rows_that_are_tried_again_take_nobody_out(tenant):
    crm = await source(tenant, crmid=CRMID, age={"name": "age", "format": "INTEGER"})
    done = await crm.ingest(tsv("crmid age", "c-1 x", "c-2 2"), mode="replace")
    again = await tenant.http.post(f"/v1/ingestions/{done['id']}/retry", json={"rows": "rejected"})
    retried = await tenant.ended(again.raise_for_status().json()["id"])
    assert (retried["mode"], retried["counts"]["rejected"], retried["data_source"]["id"]) == ("append", 1, crm.id)
    assert await members(crm) == set(await ids(tenant, "c-2"))


async def test_a_dry_run_says_what_a_file_would_do_and_does_nothing(tenant):
    crm = await source(tenant, crmid=CRMID, age={"name": "age", "format": "INTEGER"})
    await crm.ingest(tsv("crmid age", "c-1 1", "c-2 2", "c-3 3"))
    data = tsv("crmid age", "c-9 x", "c-1 1", "c-2 22", "c-4 4")
    file = await upload(tenant, "dry.tsv", data)
    body = {"file_id": file["id"], "data_source_id": crm.id, "mode": "replace", "dry_run": True}
    asked = await tenant.http.post("/v1/ingestions", json=body)
    dry = await tenant.ended(asked.json()["id"])
    assert (dry["status"], dry["dry_run"]) == ("completed", True)
    found = (await tenant.http.get(f"/v1/ingestions/{dry['id']}/dry-run")).json()
    assert {what: each["count"] for what, each in found.items()} == {
        "create": 1, "update": 1, "leave": 1, "remove": 1, "reject": 1,
    }  # fmt: skip
    one, two, three = await ids(tenant, "c-1", "c-2", "c-3")
    assert found["leave"]["sample"] == [{"row": 2, "profile": one}]
    assert found["update"]["sample"] == [{"row": 3, "profile": two}]
    assert found["remove"]["sample"] == [{"row": None, "profile": three}]
    assert [each["row"] for each in found["create"]["sample"]] == [4]
    assert [(each["row"], each["codes"]) for each in found["reject"]["sample"]] == [(1, ["integer_invalid"])]
    assert await tenant.profile("c-4", "crmid") is None
    assert (await attributes(tenant, "c-2"), await members(crm)) == ({"age": 2}, {one, two, three})
    assert len(await changes(crm)) == 3  # the first upload's
    real = await tenant.http.post("/v1/ingestions", json=body | {"dry_run": False})  # the file still waits
    counts = (await tenant.ended(real.json()["id"]))["counts"]
    assert counts == dry["counts"]
    assert (await tenant.profile("c-4", "crmid"))["id"] == found["create"]["sample"][0]["profile"]
    assert (await tenant.http.get(f"/v1/ingestions/{real.json()['id']}/dry-run")).status_code == 404


@pytest.mark.rule("S50")
async def test_two_sources_with_one_identifier_make_one_profile_that_knows_where_each_value_is_from(tenant):
    crm = await source(tenant, crmid=CRMID, tier=TIER)
    shop = await source(tenant, "Shop", crmid="crmid", mail="email", color={"name": "color"})
    first = await crm.ingest(tsv("crmid tier", "c-1 gold"))
    second = await shop.ingest(tsv("crmid mail color", "c-1 ann@example.org red"))
    found = await tenant.profile("ann@example.org", "email")
    assert found == await tenant.profile("c-1", "crmid")
    assert found["identifiers"] == {"crmid": ["c-1"], "email": ["ann@example.org"]}
    shown = (await tenant.http.get(f"/v1/profiles/{found['id']}")).json()
    origins = {name: (each["ingestion"], each["data_source"]["name"]) for name, each in shown["provenance"].items()}
    assert origins == {"tier": (first["id"], "CRM"), "color": (second["id"], "Shop")}


@pytest.mark.rule("D54")
async def test_somebody_who_turns_out_to_be_another_is_in_the_source_once(tenant):
    crm = await source(tenant, crmid=CRMID, mail="email")
    await crm.ingest(b"crmid\tmail\nc-1\t\nc-2\t\n\tann@example.org\n")
    assert len(await members(crm)) == 3
    await crm.ingest(tsv("crmid mail", "c-1 ann@example.org"))
    assert len(await members(crm)) == 2


@pytest.mark.threat("T114")
async def test_an_erased_person_is_in_no_source(tenant):
    crm = await source(tenant, crmid=CRMID, tier=TIER)
    await crm.ingest(tsv("crmid tier", "c-1 a", "c-2 b"))
    one, two = await ids(tenant, "c-1", "c-2")
    assert (await tenant.http.delete(f"/v1/profiles/{one}")).status_code == 204
    assert (await members(crm), set(await changes(crm))) == ({two}, {two})
    assert await tenant.profile("c-1", "crmid") is None


@pytest.mark.rule("D14", "D5")
async def test_values_are_checked_and_kept_in_the_form_of_their_format(tenant):
    formats = {"hm": "PHONE", "mail": "EMAIL", "born": "DATE", "seen": "DATE", "vip": "BOOLEAN", "n": "LONG"}
    columns = {name: {"name": name, "format": each} for name, each in formats.items()}
    crm = await source(tenant, crmid=CRMID, **columns)
    header = "crmid hm mail born seen vip n"
    good = "c-1 919972752991 a@example.org 1990-05-17 1700000000 Yes 9000000000"
    done = await crm.ingest(tsv(header, good, "c-2 12 x 17.05.1990 soon maybe 1.5"))
    assert await attributes(tenant, "c-1") == {
        "hm": "+919972752991", "mail": "a@example.org", "born": "1990-05-17T00:00:00Z", "seen": "2023-11-14T22:13:20Z",
        "vip": True, "n": 9000000000,
    }  # fmt: skip
    found = (await tenant.http.get(f"/v1/ingestions/{done['id']}/errors")).json()["data"]
    assert found[0]["codes"] == ["long_invalid", "boolean_invalid", "moment_invalid", "moment_invalid",
                                 "phone_invalid", "email_invalid"]  # fmt: skip


@pytest.mark.rule("S53", "D11")
async def test_a_space_beside_a_tab_refuses_the_header_and_rejects_a_row(tenant):
    crm = await source(tenant, crmid=CRMID, tier=TIER)
    for header in (b"crmid \ttier", b" crmid\ttier", b"crmid\t\ttier", b"crmid\ttier\t"):
        refused = await crm.post(header + b"\nc-1\tgold\n")
        assert (refused.status_code, refused.json()["code"]) == (422, "header_incorrect"), header
    done = await crm.ingest(b"crmid\ttier\nc-1\tgold \nc-2\tvery good\n c-3\tgold\n")
    assert (done["counts"]["accepted"], done["counts"]["rejected"]) == (1, 2)
    assert "tier: a space stands before or after the value" in await tenant.error_file(done)


@pytest.mark.rule("S54", "D12")
async def test_a_header_name_has_no_space_and_no_hyphen_between_words(tenant):
    crm = await source(tenant, crmid=CRMID)
    for name in ("slot num", "slot-num", "slot\u00a0num"):
        refused = await crm.post(f"crmid\t{name}\nc-1\t1\n".encode())
        assert (refused.status_code, refused.json()["code"]) == (422, "header_incorrect"), name
        assert "column 2" in refused.json()["detail"]
    done = await crm.ingest(tsv("crmid slot_num", "c-1 1"))
    assert done["warnings"] == ["Column 'slot_num' is not mapped and was not read."]


@pytest.mark.rule("S52")
async def test_a_file_that_is_no_tsv_is_refused(tenant):
    crm = await source(tenant, crmid=CRMID, tier=TIER)
    named = await crm.post(b"crmid\ttier\nc-1\tgold\n", name="x.csv")
    assert (named.status_code, named.json()["code"]) == (422, "file_unreadable")
    cut = await crm.post(b"crmid,tier\nc-1,gold\n")
    assert (cut.status_code, cut.json()["code"]) == (422, "header_incorrect")
    assert "separated by a comma" in cut.json()["detail"]
    packed = await crm.post(b"PK\x03\x04" + bytes(60))
    assert (packed.status_code, packed.json()["code"]) == (422, "file_unreadable")


@pytest.mark.rule("S55", "S58", "S60")
async def test_nothing_begins_without_a_mapping_that_fits_and_a_row_needs_an_identifier(tenant):
    unmapped = await source(tenant, "new")
    assert (await unmapped.post(tsv("crmid", "c-1"))).json()["code"] == "mapping_missing"
    crm = await source(tenant, crmid=CRMID, tier=TIER)
    lacking = await crm.post(tsv("crmid color", "c-1 red"))
    assert (lacking.status_code, lacking.json()["code"]) == (422, "header_incorrect")
    assert "'tier'" in lacking.json()["detail"]
    done = await crm.ingest(b"crmid\ttier\n\tgold\nc-1\tgold\n")
    assert done["counts"]["rejected"] == 1
    assert "At least one identifier is mandatory" in await tenant.error_file(done)
    assert (await tenant.newest())["id"] == done["id"]  # what was refused left nothing


@pytest.mark.rule("S58", "S62")
async def test_a_mapping_can_come_with_the_file_and_later_files_keep_it(tenant):
    crm = await source(tenant)
    await attribute(tenant, "crmid", identifier=True)
    mapping = [{"column": "id", "attribute": "crmid"}, {"column": "slot", "new_attribute": {"name": "slot_num"}}]
    await crm.ingest(tsv("id slot", "c-1 12"), mapping=mapping)
    assert await attributes(tenant, "c-1") == {"slot_num": "12"}
    await crm.ingest(tsv("id slot", "c-1 13"))
    assert await attributes(tenant, "c-1") == {"slot_num": "13"}
    wrong = await crm.post(tsv("id", "c-1"), mapping=[{"column": "id", "attribute": "nothing"}])
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/body/mapping/0/attribute")


@pytest.mark.rule("S68", "D39")
async def test_only_who_may_be_written_to_is_told(tenant):
    crm = await source(tenant, crmid=CRMID)
    refused = await crm.post(tsv("crmid", "c-1"), notify=["a@example.org", "ann", "eve@elsewhere.example"])
    assert {each["pointer"]: each["code"] for each in refused.json()["errors"]} == {
        "/body/notify/1": "address",
        "/body/notify/2": "recipient_unknown",
    }
    assert (await crm.ingest(tsv("crmid", "c-1"), notify=["A@example.org"]))["status"] == "completed"


async def test_what_is_for_a_data_source_alone_is_refused_elsewhere(tenant):
    crm = await source(tenant, crmid=CRMID)
    file = await upload(tenant, "x.csv", b"identity\nann\n")
    for body in ({}, {"manifest": {}, "data_source_id": crm.id}, {"manifest": {}, "dry_run": True}):
        assert (await tenant.http.post("/v1/ingestions", json={"file_id": file["id"]} | body)).status_code == 422


async def test_a_dry_run_takes_no_mapping_since_that_would_be_written(tenant):
    crm = await source(tenant, crmid=CRMID)
    new = [{"column": "id", "new_attribute": {"name": "mail", "format": "EMAIL", "identifier": True, "pii": True}}]
    refused = await crm.post(tsv("id", "a@example.org"), mapping=new, dry_run=True)
    told = [(each["pointer"], each["code"]) for each in refused.json()["errors"]]
    assert (refused.status_code, told) == (422, [("/body/mapping", "not_here")])
    assert (await tenant.http.get(f"{crm.path}/mapping")).json()["version"] == 1


@pytest.mark.threat("T50")
async def test_nothing_of_another_account_is_used(tenant, other):
    mine, theirs = await source(tenant, crmid=CRMID), await source(other, crmid=CRMID)
    done = await theirs.ingest(tsv("crmid", "c-1"))
    file = await upload(tenant, "x.tsv", tsv("crmid", "c-1"))
    body = {"file_id": file["id"], "data_source_id": theirs.id}
    assert (await tenant.http.post("/v1/ingestions", json=body)).status_code == 404
    body = {"file_id": done["file"]["id"], "data_source_id": mine.id}
    assert (await tenant.http.post("/v1/ingestions", json=body)).status_code == 404
    assert (await tenant.http.get(f"{mine.path}/changes", params={"ingestion": done["id"]})).status_code == 404


@pytest.mark.rule("S65", "S75", "D15")
async def test_the_people_of_a_file_become_a_segment_or_join_one(tenant):
    crm = await source(tenant, crmid=CRMID, mail="email")
    none = await crm.ingest(tsv("crmid mail", "c-1 a@example.org"))
    assert none["segment"] is None
    first = await crm.ingest(b"crmid\tmail\nc-1\t\n\tb@example.org\nc-1\ta@example.org\n", segment={"name": "festive"})
    path = f"/v1/segments/{first['segment']['id']}"
    made = (await tenant.http.get(path)).json()
    assert (made["name"], made["status"], made["members"]) == ("festive", "active", 2)
    again = await crm.ingest(tsv("crmid mail", "c-1 a@example.org", "c-7 z@example.org"), segment={"id": made["id"]})
    assert again["status"] == "completed"
    assert (await tenant.http.get(path)).json()["members"] == 3
    taken = await crm.post(tsv("crmid mail", "c-1 a@example.org"), segment={"name": "festive"})
    assert (taken.status_code, taken.json()["code"]) == (409, "segment_exists")
    for wrong in ({}, {"name": "x", "id": made["id"]}):
        assert (await crm.post(tsv("crmid mail", "c-1 a@example.org"), segment=wrong)).status_code == 422


@pytest.mark.rule("S65", "S136")
async def test_of_the_segment_that_a_file_fills_it_is_told_that_it_was_refreshed(tenant, receiver):
    crm = await source(tenant, crmid=CRMID)
    done = await crm.ingest(tsv("crmid", "c-1"), segment={"name": "festive"})
    told = await receiver.until("segment.refreshed", done["segment"]["id"])
    assert (told["name"], told["status"], told["members"]) == ("festive", "active", 1)


async def test_a_segment_is_noted_and_told_whatever_makes_it(tenant, receiver):
    crm = await source(tenant, crmid=CRMID, tier=TIER | {"use_in_segments": True})
    plain = {"name": "plain", "description": "x", "type": "SCD", "method": "upload", "upload_type": "manual"}
    fitting = {"name": "fitting", "description": "x", "type": "SCD", "condition": {"attribute": "tier", "op": "exists"}}
    made = [
        (await tenant.http.post(path, json=body)).raise_for_status().json()["id"]
        for path, body in (("/v1/segments", plain), ("/v1/filters", fitting))
    ]
    made.append((await crm.ingest(tsv("crmid tier", "c-1 gold"), segment={"name": "festive"}))["segment"]["id"])
    trail = (await tenant.http.get("/v1/audit", params={"action": "segment.created"})).json()["data"]
    assert [each["target"] for each in trail] == made[::-1]
    for segment in made:
        await receiver.until("segment.created", segment)


@pytest.mark.rule("S52", "S128")
async def test_rejected_rows_are_mended_and_uploaded_as_tsv(tenant):
    crm = await source(tenant, crmid=CRMID, mail="email")
    failed = await crm.ingest(tsv("crmid mail", "c-1 a", "c-2 b"))
    assert (failed["status"], failed["error"]["code"]) == ("failed", "nothing_applied")
    assert failed["error"]["remedy"] == "Download the error file, which is CSV, mend the rows, and upload them as TSV."
    rows = csv.reader(io.StringIO(await tenant.error_file(failed)))
    mended = "".join("\t".join(row).replace("\ta\t", "\ta@x.example\t") + "\n" for row in rows).encode()
    done = await crm.ingest(mended)
    assert (done["counts"]["accepted"], done["counts"]["rejected"], done["retry_of"]) == (1, 1, failed["id"])
    assert await members(crm) == set(await ids(tenant, "c-1"))


@pytest.mark.rule("S65")
async def test_a_segment_goes_with_the_upload_that_made_it_unless_somebody_is_put_into_it(ground, tenant):
    crm = await source(tenant, crmid=CRMID, mail="email")
    good, bad, festive = (
        tsv("crmid mail", "c-1 a@x.example"),
        tsv("crmid mail", "c-1 a"),
        {"segment": {"name": "festive"}},
    )

    async def status(ingestion):
        shown = await tenant.http.get(f"/v1/segments/{ingestion['segment']['id']}")
        return shown.json().get("status") if shown.status_code == 200 else shown.status_code

    failed = await crm.ingest(bad, **festive)
    assert (failed["status"], failed["segment"]["name"], await status(failed)) == ("failed", "festive", 404)
    async with nothing_is_checked(ground):
        waits = (await crm.post(good, **festive)).raise_for_status().json()
        joins = (await crm.post(bad, segment={"id": waits["segment"]["id"]})).raise_for_status().json()
        (await tenant.http.post(f"/v1/ingestions/{waits['id']}/cancel")).raise_for_status()
        assert await status(waits) == "in_progress"  # another file may still fill it
    assert ((await tenant.ended(joins["id"]))["status"], await status(waits)) == ("failed", 404)
    again = await tenant.http.post(f"/v1/ingestions/{waits['id']}/retry", json={"rows": "all"})
    done = await tenant.ended(again.raise_for_status().json()["id"])
    assert (done["status"], await status(done), await status(waits)) == ("completed", "active", "active")
    mine = {"name": "mine", "description": "x", "type": "SCD", "method": "upload", "upload_type": "manual"}
    own = (await tenant.http.post("/v1/segments", json=mine)).json()["id"]
    (await tenant.http.post(f"/v1/segments/{own}/activate")).raise_for_status()
    assert await status(await crm.ingest(bad, segment={"id": own})) == "in_progress"  # no upload made it


@pytest.mark.rule("S65")
async def test_a_segment_that_somebody_sets_up_meanwhile_stays(ground, tenant):
    crm = await source(tenant, crmid=CRMID)
    draft = {"upload_type": "scheduled"}
    async with nothing_is_checked(ground):
        waiting = [
            (await crm.post(tsv("crmid", "c-1"), segment={"name": name})).raise_for_status().json()
            for name in ("scheduled", "edited")
        ]
        scheduled, edited = [f"/v1/segments/{each['segment']['id']}" for each in waiting]
        await put_schedule(tenant, waiting[0]["segment"], daily(await new_connection(tenant)))
        (await tenant.http.put(f"{edited}/draft", json=draft)).raise_for_status()
        for each in waiting:
            (await tenant.http.post(f"/v1/ingestions/{each['id']}/cancel")).raise_for_status()
    for segment in (scheduled, edited):
        assert (await tenant.http.get(segment)).raise_for_status().json()["status"] == "in_progress"
    (await tenant.http.delete(f"{scheduled}/schedule")).raise_for_status()


@pytest.mark.rule("S65")
async def test_an_upload_says_that_the_segment_for_its_people_was_deleted(ground, tenant):
    crm = await source(tenant, crmid=CRMID)
    mine = {"name": "mine", "description": "x", "type": "SCD", "method": "upload", "upload_type": "manual"}
    own = f"/v1/segments/{(await tenant.http.post('/v1/segments', json=mine)).raise_for_status().json()['id']}"
    (await tenant.http.post(f"{own}/activate")).raise_for_status()
    async with nothing_is_checked(ground):
        waits = (await crm.post(tsv("crmid", "c-1"), segment={"id": own.rpartition("/")[2]})).raise_for_status().json()
        (await tenant.http.post(f"{own}/deactivate")).raise_for_status()
        (await tenant.http.delete(own)).raise_for_status()
    done = await tenant.ended(waits["id"])
    assert (done["status"], done["counts"]["created"]) == ("completed", 1)
    assert done["warnings"] == ["The segment was deleted; nobody was put into it."]


@pytest.mark.rule("S73", "S74", "D32")
async def test_an_upload_is_scheduled_until_it_begins_and_in_progress_until_it_ends(ground, tenant):
    crm = await source(tenant, crmid=CRMID)
    async with nothing_is_checked(ground):
        first, second = [(await crm.post(tsv("crmid", "c-1"))).json()["id"] for _ in range(2)]
        await until(tenant, first, status="in_progress")
        assert (await tenant.http.get(f"/v1/ingestions/{second}")).json()["status"] == "scheduled"
    assert [(await tenant.ended(each))["status"] for each in (first, second)] == ["completed"] * 2


@pytest.mark.rule("S51", "D10", "D50")
async def test_a_file_has_at_most_forty_mebibytes(tenant):
    crm = await source(tenant, crmid=CRMID)
    limit = tenant.app.settings.data_sources.file_bytes
    assert limit == 40 * 1024 * 1024
    assert (await tenant.http.get("/v1/limits")).json()["data_source_file_bytes"] == limit
    refused = await crm.post(b"crmid\n" + bytes(limit - 5))
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    for more, fits in ((0, True), (1, False)):
        file = await upload(tenant, f"{more}.tsv", b"crmid\nc-1\n")
        tight = replace(tenant.app.intake, source_file_bytes=file["size_bytes"] - more)
        read = header_of(tight, account_of(tenant), ids_of.read(Prefix.FILE, file["id"]))
        if fits:
            assert await read == ("crmid",)
        else:
            with pytest.raises(Invalid):
                await read


def form(data, name="people.tsv", **wishes):
    """An upload in one request."""
    return {"files": {"file": (name, data)}, "data": {"upload": json.dumps(wishes)} if wishes else {}}


@pytest.mark.rule("S51", "S52", "S57", "S70")
async def test_a_file_is_uploaded_and_ingested_in_one_request(tenant):
    crm = await source(tenant, crmid=CRMID, tier=TIER)
    plain = await tenant.http.post(f"{crm.path}/uploads", **form(tsv("crmid tier", "c-1 gold", "c-2 gold")))
    assert (plain.status_code, plain.headers["location"]) == (202, f"/v1/ingestions/{plain.json()['id']}"), plain.text
    done = await tenant.ended(plain.json()["id"])
    assert (done["status"], done["mode"], done["file"]["name"]) == ("completed", "append", "people.tsv")
    asked = form(tsv("crmid level", "c-2 tin"), mode="replace", mapping=[
        {"column": "crmid", "attribute": "crmid"}, {"column": "level", "attribute": "tier"},
    ])  # fmt: skip
    key = {"Idempotency-Key": "once"}
    first, again = [await tenant.http.post(f"{crm.path}/uploads", headers=key, **asked) for _ in range(2)]
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
    replaced = await tenant.ended(first.json()["id"])
    assert (replaced["mode"], replaced["counts"]["removed"], replaced["counts"]["updated"]) == ("replace", 1, 1)
    assert await attributes(tenant, "c-2") == {"tier": "tin"}
    page = (await tenant.http.get("/v1/files", params={"name": "people.tsv"})).json()
    assert [each["state"] for each in page["data"]] == ["consumed", "consumed"]


@pytest.mark.threat("T55")
@pytest.mark.rule("S51", "S52", "S54", "S60", "D10")
async def test_a_form_that_does_not_fit_leaves_nothing(tenant):
    crm = await source(tenant, crmid=CRMID, tier=TIER)
    rows = tsv("crmid tier", "c-1 gold")
    stored = {each.name for each in tenant.app.intake.blobs.list("files")}
    many = bytes(tenant.app.intake.source_file_bytes + 1)
    lone = [{"column": "tier", "attribute": "tier"}]
    unknown = [{"column": "crmid", "attribute": "nothing"}]
    fitting = [{"column": "crmid", "attribute": "crmid"}]
    twice = [("file", ("people.tsv", rows)), ("file", ("people.tsv", rows))]
    cases = [
        (form(rows, "people.csv"), 422, "file_unreadable", None),
        (form(tsv("crm-id tier", "c-1 gold")), 422, "header_incorrect", None),
        (form(rows, mode="other"), 422, "invalid", "/body/upload/mode"),
        (form(rows, segment={}), 422, "invalid", "/body/upload/segment"),
        (form(rows, notify=["ann"]), 422, "invalid", "/body/upload/notify/0"),
        (form(rows, mapping=[{"column": 1}]), 422, "invalid", "/body/upload/mapping/0/column"),
        (form(rows, mapping=lone), 422, "mapping_incorrect", "/body/upload/mapping"),
        (form(rows, mapping=unknown), 422, "mapping_incorrect", "/body/upload/mapping/0/attribute"),
        (form(rows, mapping=fitting, dry_run=True), 422, "invalid", "/body/upload/mapping"),
        (form(rows, "../people.tsv"), 422, "file_name_invalid", "/body/file"),
        ({"files": {"file": ("people.tsv", rows), "more": b"x"}}, 422, "invalid", "/body/more"),
        ({"files": twice}, 422, "invalid", "/body/file"),
        ({"files": {"upload": (None, b"{}")}}, 422, "invalid", "/body/file"),
        ({"files": {"file": ("people.tsv", rows), "upload": (None, b"[]")}}, 422, "invalid", "/body/upload"),
        ({"files": {"file": ("people.tsv", rows), "upload": (None, b"{")}}, 400, "bad_request", None),
        (form(many), 413, "too_large", None),
        (
            {"content": b"--x\r\nno form", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            400,
            "bad_request",
            None,
        ),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "bad_request", None),
        ({"json": {}}, 415, "unsupported_media_type", None),
    ]
    for asked, status, code, pointer in cases:
        answer = await tenant.http.post(f"{crm.path}/uploads", **asked)
        assert (answer.status_code, answer.json()["code"]) == (status, code), (answer.text, asked.get("data"))
        assert [each["pointer"] for each in answer.json()["errors"]] == ([pointer] if pointer else []), answer.text
    assert (await tenant.http.get("/v1/files")).json()["data"] == []
    assert (await tenant.http.get("/v1/ingestions")).json()["data"] == []
    key = {"Idempotency-Key": "once"}
    first = await tenant.http.post(f"{crm.path}/uploads", headers=key, **form(rows))
    await tenant.ended(first.json()["id"])
    reused = await tenant.http.post(f"{crm.path}/uploads", headers=key, **form(tsv("crmid tier", "c-1 tin")))
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")
    await tenant.app.intake.close()
    assert len({each.name for each in tenant.app.intake.blobs.list("files")} - stored) == 1


MAPPING = [
    {"column": "crmid", "new_attribute": {"name": "crmid", "identifier": True}},
    {"column": "town", "new_attribute": {"name": "town", "pii": True}},
]


@pytest.mark.rule("S58", "S62")
@pytest.mark.threat("T116")
@pytest.mark.parametrize("form", [False, True])
async def test_a_mapping_beside_a_file_needs_its_own_scope_and_is_in_the_audit_trail(tenant, form):
    crm = await source(tenant)
    data = tsv("crmid town", "c-1 Ulm")
    file = await upload(tenant, "people.tsv", data)
    wishes = {"mapping": MAPPING}

    async def post(http):
        if form:
            parts = {"file": ("form.tsv", data), "upload": (None, json.dumps(wishes))}
            return await http.post(f"{crm.path}/uploads", files=parts)
        return await http.post("/v1/ingestions", json=wishes | {"file_id": file["id"], "data_source_id": crm.id})

    async with await client_with(tenant, "ingestions:write") as narrow:
        refused = await post(narrow)
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
    assert "data_sources:write" in refused.json()["detail"]
    assert (await tenant.http.get("/v1/attributes")).json()["data"] == []
    async with await client_with(tenant, "ingestions:write", "data_sources:write") as wide:
        made = (await post(wide)).raise_for_status().json()
        me = (await wide.get("/v1/me")).json()["key_id"]
    assert (await tenant.ended(made["id"]))["counts"]["created"] == 1
    trail = (await tenant.http.get("/v1/audit", params={"actor": me})).json()["data"]
    told = {(each["action"], each["target"]) for each in trail}
    made_ones = (await tenant.http.get("/v1/attributes")).json()["data"]
    assert {("mapping.written", crm.id)} | {("attribute.created", each["id"]) for each in made_ones} <= told
    assert len(made_ones) == 2


@pytest.mark.threat("T116")
async def test_attributes_that_a_mapping_makes_are_in_the_audit_trail(tenant):
    crm = await source(tenant, crmid=CRMID)
    made = (await tenant.http.get("/v1/attributes")).json()["data"][0]
    trail = (await tenant.http.get("/v1/audit")).json()["data"]
    assert [each["target"] for each in trail if each["action"] == "attribute.created"] == [made["id"]]
    assert [each["target"] for each in trail if each["action"] == "mapping.written"] == [crm.id]


@pytest.mark.rule("D15")
async def test_what_writes_a_segment_needs_its_scope(tenant):
    body = {"name": "buyers", "description": "Who buys", "type": "SCD", "method": "upload", "upload_type": "manual"}
    segment = (await tenant.http.post("/v1/segments", json=body)).raise_for_status().json()["id"]
    (await tenant.http.post(f"/v1/segments/{segment}/activate")).raise_for_status()
    first = await upload(tenant, "buyers__1.csv", b"user_id,p\nu-1,a\nu-2,a\nu-3,b\n,c\n")
    body = {"file_id": first["id"], "segment_id": segment}
    async with await client_with(tenant, "ingestions:write") as narrow:
        refused = [await narrow.post("/v1/ingestions", json=body)]
        done = await tenant.ended((await tenant.http.post("/v1/ingestions", json=body)).json()["id"])
        refused.append(await narrow.post(f"/v1/ingestions/{done['id']}/retry", json={"rows": "rejected"}))
        second = await upload(tenant, "buyers__2.csv", b"user_id,p\nu-1,a\n")
        body = {"file_id": second["id"], "segment_id": segment}
        held = (await tenant.http.post("/v1/ingestions", json=body)).json()["id"]
        await until(tenant, held, stage="held")
        refused.append(await narrow.post(f"/v1/ingestions/{held}/confirm"))
        for each in refused:
            assert (each.status_code, each.json()["code"]) == (403, "scope_missing")
            assert "segments:write" in each.json()["detail"]
    (await tenant.http.post(f"/v1/ingestions/{held}/confirm")).raise_for_status()
    assert (await tenant.ended(held))["counts"]["removed"] == 2
