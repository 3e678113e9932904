"""Files of segments, from the upload to who is in which partition."""

import asyncio
from pathlib import Path

import psycopg
import pytest
from tests.api.walk import client_with
from tests.api.world import upload

from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.domain.segment import MAX_NUMBER, MAX_PARTITIONS
from ingestd.store.segments import LOCK_MEMBERS

SAMPLE = (Path(__file__).parent / "files" / "loyalty__2026-11-22.csv").read_bytes()
LOYALTY = {"name": "loyalty", "description": "Who is how loyal", "method": "upload", "upload_type": "manual"}


async def make(tenant, kind="SCD", **changes):
    """A segment that waits for its first file."""
    made = await tenant.http.post("/v1/segments", json=LOYALTY | {"type": kind} | changes)
    segment = made.raise_for_status().json()["id"]
    (await tenant.http.post(f"/v1/segments/{segment}/activate")).raise_for_status()
    return segment


async def submit(tenant, segment, data, **more):
    file = await upload(tenant, "members.csv", data)
    answer = await tenant.http.post("/v1/ingestions", json={"file_id": file["id"], "segment_id": segment} | more)
    return answer.raise_for_status().json()["id"]


async def refresh(tenant, segment, data, **more):
    """Upload a file for a segment, and give the ingestion when it has ended."""
    return await tenant.ended(await submit(tenant, segment, data, **more))


async def show(tenant, segment):
    return (await tenant.http.get(f"/v1/segments/{segment}")).raise_for_status().json()


@pytest.mark.rule("S1", "S10", "S24", "S25", "S44")
async def test_the_sample_refreshes_a_segment_and_makes_it_active(tenant):
    segment = await make(tenant)
    done = await refresh(tenant, segment, SAMPLE)
    counts = done["counts"]
    assert (done["status"], done["segment"]["id"], done["target"]) == ("completed", segment, "segment")
    assert (counts["read"], counts["accepted"], counts["rejected"], counts["created"]) == (7, 4, 3, 4)
    shown = await show(tenant, segment)
    assert (shown["status"], shown["members"]) == ("active", 4)
    assert shown["refreshed_at"] > shown["data_as_of"]
    text = await tenant.error_file(done)
    assert [line.rpartition('","')[2] for line in text.splitlines()[1:]] == [
        'Phone number is not valid"',
        'mobile: write the number with its country code and without +"',
        'loyalty: no partition: blank, over 120 characters, or a control character"',
    ]


@pytest.mark.rule("S23", "D4")
@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("User ID", "u1"),
        ("user_id", "u1"),
        ("external_ID", "x"),
        ("EMAIL", "ann@example.org"),
        ("Mobile", "4915112345678"),
    ],
)
async def test_the_first_column_is_an_identifier_in_any_of_its_spellings(tenant, header, value):
    segment = await make(tenant)
    done = await refresh(tenant, segment, f"{header},level\n{value},High\n".encode())
    assert (done["status"], done["counts"]["created"]) == ("completed", 1)


@pytest.mark.rule("S22", "S23", "S25")
@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"919972752991,High\n919972752992,Low\n", "first line"),
        (b"phone,level\n919972752991,High\n", "first column"),
        (b"user_id\nann\n", "second column"),
        (b"user_id,\nann,High\n", "second column"),
        (b"user_id;level\nann;High\n", "';'"),
    ],
)
async def test_a_file_whose_header_is_none_of_a_segment_is_refused(tenant, data, what):
    segment = await make(tenant)
    done = await refresh(tenant, segment, data)
    assert (done["status"], done["error"]["message"]) == ("failed", "File couldn't be read")
    assert what in done["error"]["detail"]
    assert ("CSV" in done["error"]["remedy"], "manifest" in done["error"]["remedy"]) == (True, False)
    assert (await show(tenant, segment))["status"] == "in_progress"


async def test_rows_that_are_all_rejected_are_mended_and_uploaded_for_the_segment(tenant):
    segment = await make(tenant)
    done = await refresh(tenant, segment, b"user_id,level\nann,\n")
    assert (done["status"], done["error"]["code"]) == ("failed", "nothing_applied")
    assert done["error"]["remedy"] == "Download the error file, mend the rows and upload it for the segment."


@pytest.mark.rule("D6")
async def test_further_columns_are_ignored_and_the_last_row_of_a_person_counts(tenant):
    segment = await make(tenant)
    done = await refresh(tenant, segment, b"user_id,level,a,a\nann,High,1,2\nann,Low,1,2\n")
    assert done["counts"]["created"] == 1
    assert [warning.partition(" ")[0] for warning in done["warnings"]] == ["Column", "Column", "People"]


@pytest.mark.rule("S41", "S45")
async def test_a_segment_has_a_thousand_partitions_at_most_whatever_files_bring(tenant):
    def file(first, last):
        return "".join(["user_id,level\n", *(f"u{each},p{each}\n" for each in range(first, last))]).encode()

    segment = await make(tenant)
    done = await refresh(tenant, segment, file(0, MAX_PARTITIONS))
    assert (done["status"], done["counts"]["created"]) == ("completed", MAX_PARTITIONS)
    again = await refresh(tenant, segment, file(0, 10), mode="append")
    assert (again["status"], again["counts"]["created"]) == ("completed", 0)
    refused = await refresh(tenant, segment, file(MAX_PARTITIONS, MAX_PARTITIONS + 1), mode="append")
    assert (refused["status"], refused["error"]["code"]) == ("failed", "too_many_partitions")
    assert "1000 partitions" in refused["error"]["detail"]
    path = f"/v1/segments/{segment}/partitions"
    listed = (await tenant.http.get(path)).json()["data"]
    assert len(listed) == MAX_PARTITIONS
    (await tenant.http.delete(f"{path}/{listed[0]['id']}")).raise_for_status()
    done = await refresh(tenant, segment, file(MAX_PARTITIONS, MAX_PARTITIONS + 1), mode="append")
    assert done["status"] == "completed"


@pytest.mark.rule("S41", "S45")
async def test_a_replacing_file_may_bring_as_many_partitions_as_there_can_be_whatever_was_there_before(tenant):
    def file(first, last):
        return "".join(["user_id,level\n", *(f"u{each},p{each}\n" for each in range(first, last))]).encode()

    segment = await make(tenant)
    await refresh(tenant, segment, file(0, 600))
    some = await refresh(tenant, segment, file(300, 900))
    assert some["status"] == "completed"
    path = f"/v1/segments/{segment}/partitions"
    assert len((await tenant.http.get(path)).json()["data"]) == 900  # one that is empty stays while there is room
    done = await refresh(tenant, segment, file(600, 1200))
    assert (done["status"], done["counts"]["created"], done["counts"]["removed"]) == ("completed", 300, 300)
    listed = (await tenant.http.get(path)).json()["data"]
    assert {each["value"] for each in listed} == {f"p{each}" for each in range(600, 1200)}


@pytest.mark.rule("S5", "S41")
async def test_a_segment_whose_history_is_full_of_partitions_refuses_more_and_takes_what_it_had(tenant, ground):
    segment = await make(tenant)
    await refresh(tenant, segment, b"user_id,level\nann,High\n")
    with psycopg.connect(ground.database_url) as sql:
        sql.execute(
            "INSERT INTO partitions (id, account_id, segment_id, number, value, name, disabled, members, created_at,"
            " removed_at) SELECT gen_random_uuid(), account_id, segment_id, n, 'p' || n, 'p' || n, false, 0, now(),"
            " now() FROM partitions, generate_series(2, %s) n WHERE segment_id = %s",
            [MAX_NUMBER - 1, ids.read(Prefix.SEGMENT, segment)],
        )
    refused = await refresh(tenant, segment, b"user_id,level\nann,New\nbob,Newer\n")
    assert (refused["status"], refused["error"]["code"]) == ("failed", "too_many_partitions")
    assert "history" in refused["error"]["detail"]
    done = await refresh(tenant, segment, b"user_id,level\nann,New\nbob,p2\ncem,High\n")
    assert (done["status"], done["counts"]["created"], done["counts"]["updated"]) == ("completed", 2, 1)
    assert (await show(tenant, segment))["members"] == 3


@pytest.mark.rule("S41")
async def test_rows_that_are_mended_bring_no_more_partitions_than_there_can_be(tenant):
    rows = [f"u{each},p{each}\n" for each in range(MAX_PARTITIONS)]
    segment = await make(tenant)
    first = await refresh(tenant, segment, "".join(["user_id,level\n", *rows, "bob,\n"]).encode())
    mended = (await tenant.error_file(first)).replace('"bob",""', '"bob","one more"')
    refused = await refresh(tenant, segment, mended.encode())
    assert (refused["status"], refused["error"]["code"]) == ("failed", "too_many_partitions")


async def test_members_need_no_profile_and_make_none(tenant):
    segment = await make(tenant)
    await refresh(tenant, segment, b"user_id,level\nann,High\n")
    assert await tenant.profile("ann") is None


async def test_a_draft_and_an_inactive_segment_take_no_file(tenant):
    made = await tenant.http.post("/v1/segments", json=LOYALTY | {"type": "SCD"})
    file = await upload(tenant, "members.csv", b"user_id,level\nann,High\n")
    body = {"file_id": file["id"], "segment_id": made.json()["id"]}
    refused = await tenant.http.post("/v1/ingestions", json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "segment_inactive")


@pytest.mark.parametrize("more", [{}, {"manifest": {}, "segment_id": "seg_01k9c3v0g8e5wr6q4x2n7m1hzt"}])
async def test_an_ingestion_is_for_a_manifest_or_for_a_segment(tenant, more):
    file = await upload(tenant, "members.csv", b"user_id,level\nann,High\n")
    refused = await tenant.http.post("/v1/ingestions", json={"file_id": file["id"]} | more)
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "one_of")


async def test_a_refresh_that_removes_too_many_waits_to_be_confirmed(tenant, receiver):
    segment = await make(tenant)
    recipient = {"address": "ann@example.net", "name": "Ann", "milestones": ["attention"]}
    (await tenant.http.post("/v1/recipients", json=recipient)).raise_for_status()
    await refresh(tenant, segment, b"user_id,level\nann,High\nbob,High\ncem,Low\n")
    held = await submit(tenant, segment, b"user_id,level\nann,Low\n")
    told = await asyncio.wait_for(receiver.until("ingestion.held", held), 30)
    assert (told["stage"], told["status"], told["held"]) == ("held", "in_progress", {"leaving": 2, "of": 3})
    assert (await show(tenant, segment))["members"] == 3
    other = await refresh(tenant, segment, b"user_id,level\ndan,Low\n", mode="append")
    assert other["counts"]["created"] == 1  # what is held keeps nobody waiting
    (await tenant.http.post(f"/v1/ingestions/{held}/confirm")).raise_for_status()
    trail = (await tenant.http.get("/v1/audit", params={"action": "ingestion.confirmed"})).json()["data"]
    assert [entry["target"] for entry in trail] == [held]
    done = await tenant.ended(held)
    assert (done["status"], done["counts"]["removed"], done["counts"]["updated"]) == ("completed", 3, 1)
    again = await tenant.http.post(f"/v1/ingestions/{held}/confirm")
    assert (again.status_code, again.json()["code"]) == (409, "not_held")
    mails = (await tenant.http.get("/v1/messages", params={"ingestion": held})).json()["data"]
    assert [(mail["type"], mail["to"]) for mail in mails] == [("ingestion.held", "ann@example.net")]


async def test_what_is_held_is_over_when_a_newer_file_is_in_force_or_held_in_its_place(tenant, receiver):
    segment = await make(tenant)
    people = b"user_id,level\nann,High\nbob,High\n"
    await refresh(tenant, segment, people)
    first = await submit(tenant, segment, b"user_id,level\ncem,Low\n")
    await asyncio.wait_for(receiver.until("ingestion.held", first), 30)
    second = await submit(tenant, segment, b"user_id,level\ndan,Low\n")
    await asyncio.wait_for(receiver.until("ingestion.cancelled", first), 30)
    waits = (await tenant.http.get(f"/v1/ingestions/{second}")).json()
    assert (waits["status"], waits["stage"]) == ("in_progress", "held")
    await refresh(tenant, segment, people + b"eve,Low\n")
    for over in (first, second):
        ended = await tenant.ended(over)
        assert (ended["status"], ended["warnings"][-1][:12]) == ("cancelled", "A newer file")
    refused = await tenant.http.post(f"/v1/ingestions/{second}/confirm")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_held")
    assert (await show(tenant, segment))["members"] == 3


async def test_what_is_held_is_not_confirmed_over_a_newer_file_that_is_on_its_way(tenant, receiver, ground):
    segment = await make(tenant)
    people = b"user_id,level\nann,High\nbob,High\n"
    await refresh(tenant, segment, people)
    held = await submit(tenant, segment, b"user_id,level\ncem,Low\n")
    await asyncio.wait_for(receiver.until("ingestion.held", held), 30)
    async with await psycopg.AsyncConnection.connect(ground.database_url) as lock:  # no member is written meanwhile
        await lock.execute(LOCK_MEMBERS, {"segment": ids.read(Prefix.SEGMENT, segment)})
        added = await submit(tenant, segment, b"user_id,level\neve,Low\n", mode="append")
        newer = await submit(tenant, segment, people)
        refused = await tenant.http.post(f"/v1/ingestions/{held}/confirm")
        assert (refused.status_code, refused.json()["code"]) == (409, "newer_file")
        (await tenant.http.post(f"/v1/ingestions/{newer}/cancel")).raise_for_status()
        (await tenant.http.post(f"/v1/ingestions/{held}/confirm")).raise_for_status()
    assert [(await tenant.ended(each))["status"] for each in (added, newer, held)] == [
        *("completed", "cancelled", "completed")
    ]
    listed = (await tenant.http.get(f"/v1/segments/{segment}/members")).json()["data"]
    assert [each["value"] for each in listed] == ["cem"]


async def test_what_happens_to_a_segment_is_told(tenant, receiver):
    segment = await make(tenant)
    await refresh(tenant, segment, b"user_id,level\nann,High\nbob,Low\n")
    (await tenant.http.post(f"/v1/segments/{segment}/deactivate")).raise_for_status()
    for kind, status, members in (
        ("segment.created", "draft", 0),
        ("segment.activated", "in_progress", 0),
        ("segment.refreshed", "active", 2),
        ("segment.deactivated", "inactive", 2),
    ):
        told = await asyncio.wait_for(receiver.until(kind, segment), 30)
        assert (told["name"], told["status"], told["members"]) == ("loyalty", status, members), kind
        assert (told["refreshed_at"] is None) == (members == 0)


async def test_what_is_held_can_be_cancelled(tenant, receiver):
    segment = await make(tenant)
    await refresh(tenant, segment, b"user_id,level\nann,High\nbob,High\n")
    held = await submit(tenant, segment, b"user_id,level\ncem,Low\n")
    await asyncio.wait_for(receiver.until("ingestion.held", held), 30)
    (await tenant.http.post(f"/v1/ingestions/{held}/cancel")).raise_for_status()
    assert (await tenant.ended(held))["status"] == "cancelled"
    assert (await show(tenant, segment))["members"] == 2


async def test_rejected_rows_that_are_mended_join_and_nobody_leaves(tenant):
    segment = await make(tenant)
    first = await refresh(tenant, segment, b"user_id,level\nann,High\nbob,\n")
    mended = (await tenant.error_file(first)).replace('"bob",""', '"bob","Low"')
    done = await refresh(tenant, segment, mended.encode())
    assert (done["counts"]["created"], done["counts"]["removed"], done["retry_of"]) == (1, 0, first["id"])
    assert (await show(tenant, segment))["members"] == 2


async def test_mended_rows_stem_from_the_file_of_their_own_segment(tenant):
    segment, other = await make(tenant), await make(tenant, name="spending")
    data = b"user_id,level\nann,High\nbob,\n"
    first, _ = await refresh(tenant, segment, data), await refresh(tenant, other, data)
    mended = (await tenant.error_file(first)).replace('"bob",""', '"bob","Low"')
    assert (await refresh(tenant, segment, mended.encode()))["retry_of"] == first["id"]


@pytest.mark.rule("S12", "S43", "S45")
async def test_a_draft_gives_partitions_the_names_that_others_have_had(tenant):
    segment = await make(tenant)
    await refresh(tenant, segment, b"user_id,level\nann,Silver\nbob,Gold\n")
    path = f"/v1/segments/{segment}"
    ids = {each["value"]: each["id"] for each in (await tenant.http.get(f"{path}/partitions")).json()["data"]}
    for silver, gold in (("Gold", "Platinum"), ("Platinum", "Gold"), ("Silver", "Silver")):
        edits = [{"id": ids["Gold"], "name": gold}, {"id": ids["Silver"], "name": silver}]
        (await tenant.http.put(f"{path}/draft", json={"partitions": edits})).raise_for_status()
        published = await tenant.http.post(f"{path}/activate")
        if silver == gold:
            assert (published.status_code, published.json()["code"]) == (409, "partition_exists")
            continue
        published.raise_for_status()
        found = (await tenant.http.get(f"{path}/partitions")).json()["data"]
        assert {each["value"]: each["name"] for each in found} == {"Silver": silver, "Gold": gold}


async def test_a_file_that_is_appended_lets_nobody_leave(tenant):
    segment = await make(tenant)
    await refresh(tenant, segment, b"user_id,level\nann,High\n")
    await refresh(tenant, segment, b"user_id,level\nbob,High\n", mode="append")
    assert (await show(tenant, segment))["members"] == 2


@pytest.mark.rule("S13", "S76")
async def test_nothing_is_tried_again_or_confirmed_for_a_segment_that_is_out_of_use_or_gone(tenant, receiver):
    segment = await make(tenant)
    first = await refresh(tenant, segment, b"user_id,level\nann,High\nbob,High\n")
    held = await submit(tenant, segment, b"user_id,level\ncem,Low\n")
    await asyncio.wait_for(receiver.until("ingestion.held", held), 30)
    (await tenant.http.post(f"/v1/segments/{segment}/deactivate")).raise_for_status()
    asked = [(f"/v1/ingestions/{first['id']}/retry", {"rows": "all"}), (f"/v1/ingestions/{held}/confirm", None)]
    for path, body in asked:
        refused = await tenant.http.post(path, json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "segment_inactive")
    (await tenant.http.delete(f"/v1/segments/{segment}")).raise_for_status()
    assert (await tenant.ended(held))["status"] == "cancelled"
    await asyncio.wait_for(receiver.until("ingestion.cancelled", held), 30)
    for path, body in asked:
        assert (await tenant.http.post(path, json=body)).status_code == 404


@pytest.mark.rule("S13", "S15")
async def test_a_key_that_only_reads_sees_a_segment_while_it_is_active(tenant):
    segment = await make(tenant)
    async with await client_with(tenant, "segments:read") as consumer:
        assert (await consumer.get(f"/v1/segments/{segment}")).status_code == 404
        await refresh(tenant, segment, b"user_id,level\nann,High\n")
        assert (await consumer.get(f"/v1/segments/{segment}")).status_code == 200
        assert len((await consumer.get("/v1/segments")).json()["data"]) == 1
        (await tenant.http.post(f"/v1/segments/{segment}/deactivate")).raise_for_status()
        assert (await consumer.get(f"/v1/segments/{segment}")).status_code == 404
    (await tenant.http.post(f"/v1/segments/{segment}/activate")).raise_for_status()
    assert (await show(tenant, segment))["status"] == "active"
