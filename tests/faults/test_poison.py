"""What crashes again and again is given up after a few attempts, and what comes after it is served (P6)."""

import csv
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from tests.api.sources import source, tsv
from tests.faults.program import ATTEMPTS, COMPLETING, FILTERING, NEW_ERROR_FILE, ROTATING, until
from tests.faults.world import PARTS, PEOPLE, adding, other

from ingestd.ingest.filters import NOT_RECOMPUTED
from ingestd.ingest.giving_up import GIVEN_UP, UNNAMED, WRITTEN_OFF
from ingestd.ingest.work import LEAVE, SEGMENT, UNREPORTED

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

PART = "part-0003"


@pytest.mark.rule("S121")
async def test_a_file_that_kills_every_worker_fails_and_the_next_one_is_walked(program, client):
    program.arm("before the check", act="die", always=True)
    await client.push("first", adding("Rock"))
    (poison,) = await client.ended()
    assert (poison["status"], poison["error"]["code"]) == ("failed", "infrastructure")
    assert poison["error"]["message"] == "Internal infra error"
    assert poison["error"]["remedy"] == "Upload the file again followed by a new manifest file."
    assert await client.playlist("person-0") is None
    program.release()
    await client.push("second", adding("Jazz"))
    assert [each["status"] for each in await client.ended()] == ["failed", "completed"]
    assert await client.playlist("person-0") == ["Jazz"]


@pytest.mark.rule("S123", "D37")
async def test_a_part_that_kills_every_worker_comes_back_as_rejected_rows(program, client):
    program.arm("in a part, nothing written", act="die", always=True, only=PART)
    await client.push("first", adding("Rock"))
    await all_but_a_part(client)


@pytest.mark.loop
async def test_a_part_that_kills_the_service_comes_back_as_rejected_rows(program, client):
    program.arm("in a part, nothing written", only=PART)
    await client.push("first", adding("Rock"))
    for _ in range(ATTEMPTS):
        await program.held()
        await until(lambda: applied(program) == PARTS - 1)  # what is not in the ledger after the crashes is given up
        await program.kill()
        program.arm("in a part, nothing written", only=PART)
        await program.start()
    await all_but_a_part(client)


async def test_an_error_file_that_cannot_be_written_does_not_keep_an_ingestion_open(program, client):
    program.arm("in a part, nothing written", NEW_ERROR_FILE, act="die", always=True, only=PART)
    await client.push("first", adding("Rock"))
    (poison,) = await client.ended()
    assert poison["status"] == "completed"
    assert poison["counts"]["accepted"] + poison["counts"]["rejected"] == 2 * PEOPLE
    assert poison["counts"]["rejected"] > 0
    assert poison["warnings"] == [UNREPORTED]


@pytest.mark.rule("D54")
@pytest.mark.loop
async def test_identifiers_that_kill_every_worker_are_told_of_and_found_once_the_file_comes_again(program, client):
    program.arm("in a part, nothing written", act="die", always=True, only="new-0002")
    await client.push("first", adding("Rock"))
    (poison,) = await client.ended()
    assert (poison["status"], poison["counts"]["created"], poison["warnings"]) == ("completed", PEOPLE, [UNNAMED])
    found = [await client.playlist(other(n), kind="objectId") for n in range(PEOPLE)]
    assert found.count(None) == PEOPLE - found.count(["Rock"]) > 0
    program.release()
    await client.push("second", adding("Rock"))
    assert (await client.ended())[1]["warnings"] == []
    assert [await client.playlist(other(n), kind="objectId") for n in range(PEOPLE)] == [["Rock"]] * PEOPLE


@pytest.mark.rule("D45", "D54")
async def test_a_part_that_is_lost_makes_nobody_one(program, client):
    pairs = "".join(f"person-{n},{other(n)}\n" for n in range(PEOPLE))
    apart = "".join(f"person-{n},,Rock\n,{other(n)},Jazz\n" for n in range(PEOPLE))
    await client.push("first", f"identity,objectId,Playlist\n{apart}".encode())
    assert (await client.ended())[0]["counts"]["created"] == 2 * PEOPLE
    program.arm("in a part, nothing written", act="die", always=True, only="moved-0003")
    await client.push("second", f"identity,objectId\n{pairs}".encode())
    poison = (await client.ended())[1]
    _, *rows = csv.reader(await client.error_file(poison))
    assert 0 < len(rows) < PEOPLE
    assert (poison["status"], poison["counts"]["merged"]) == ("completed", PEOPLE - len(rows))
    assert [await client.playlist(row[1], kind="objectId") for row in rows] == ["Jazz"] * len(rows)
    program.release()
    async with client.http() as http:
        retry = await http.post(f"/v1/ingestions/{poison['id']}/retry", json={"rows": "rejected"})
    retry.raise_for_status()
    assert (await client.ended())[2]["counts"]["merged"] == len(rows)


@pytest.mark.rule("D16")
async def test_leaving_that_kills_every_worker_is_told_of(program, client):
    rows = [f"p-{n} gold" for n in range(20)]
    async with sourced(client) as made:
        await made.post(tsv("id tier", *rows))
        program.arm("in a part, nothing written", act="die", always=True, only=LEAVE)
        await made.post(tsv("id tier", *rows[1:]), mode="replace")
        poison = (await client.ended())[1]
        assert (poison["status"], poison["counts"]["removed"]) == ("completed", 0)
        assert poison["warnings"] == [WRITTEN_OFF[LEAVE]]
        program.release()
        await made.post(tsv("id tier", *rows[1:]), mode="replace")
    mended = (await client.ended())[2]
    assert (mended["counts"]["removed"], mended["warnings"]) == (1, [])


@pytest.mark.rule("S65", "S75")
async def test_a_segment_that_kills_every_worker_goes_is_told_of_and_its_name_is_free(program, client):
    async with sourced(client) as made:
        program.arm("in a part, nothing written", act="die", always=True, only=SEGMENT)
        await made.post(tsv("id tier", "p-1 gold"), segment={"name": "golden"})
        (poison,) = await client.ended()
        assert (poison["status"], poison["warnings"]) == ("completed", [WRITTEN_OFF[SEGMENT]])
        program.release()
        assert (await made.tenant.http.get(f"/v1/segments/{poison['segment']['id']}")).status_code == 404
        await made.post(tsv("id tier", "p-1 gold"), segment={"name": "golden"})
        again = (await client.ended())[1]
        assert (again["warnings"], (await segment_of(made, again["segment"]))["members"]) == ([], 1)


@pytest.mark.rule("S65", "S76", "D45")
@pytest.mark.parametrize("people", [1, 500])
async def test_who_stands_in_a_part_that_is_lost_is_put_into_no_segment(program, client, people):
    async with sourced(client) as made:
        program.arm("in a part, nothing written", act="die", always=True, only=PART if people > 1 else "part-0000")
        await made.post(tsv("id tier", *(f"p-{n} gold" for n in range(people))), segment={"name": "golden"})
        (poison,) = await client.ended()
        counts = poison["counts"]
        assert (counts["accepted"] + counts["rejected"], counts["created"]) == (people, counts["accepted"])
        if people == 1:
            assert poison["status"] == "failed"
            assert (await made.tenant.http.get(f"/v1/segments/{poison['segment']['id']}")).status_code == 404
        else:
            assert (poison["status"], 0 < counts["rejected"] < people) == ("completed", True)
            assert (await segment_of(made, poison["segment"]))["members"] == counts["accepted"]


@pytest.mark.rule("S65")
async def test_a_segment_that_was_there_before_stays_though_nobody_can_be_put_into_it(program, client):
    async with sourced(client) as made:
        await made.post(tsv("id tier", "p-1 gold"), segment={"name": "golden"})
        (first,) = await client.ended()
        program.arm("in a part, nothing written", act="die", always=True, only=SEGMENT)
        await made.post(tsv("id tier", "p-2 gold"), segment={"id": first["segment"]["id"]})
        assert (await client.ended())[1]["warnings"] == [WRITTEN_OFF[SEGMENT]]
        kept = await segment_of(made, first["segment"])
        assert (kept["status"], kept["members"]) == ("active", 1)


@pytest.mark.rule("D41", "S75")
async def test_a_segment_that_cannot_be_found_anew_keeps_its_members_and_is_told_of(program, client):
    async with sourced(client) as made:
        segment = await golden(made)
        program.arm(FILTERING, act="fail", always=True)
        await made.post(tsv("id tier", "p-1 gold"))
        (poison,) = await client.ended()
        assert (poison["status"], poison["warnings"]) == ("completed", [NOT_RECOMPUTED.format("golden")])
        assert (await segment_of(made, segment))["members"] == 0
        program.release()
        await made.post(tsv("id tier", "p-2 gold"))
        assert (await client.ended())[1]["warnings"] == []
        assert (await segment_of(made, segment))["members"] == 2


@pytest.mark.rule("D41")
async def test_a_segment_whose_members_cannot_be_found_is_taken_out_of_use_and_holds_nothing_up(program, client):
    async with sourced(client) as made:
        program.arm(FILTERING, act="fail", always=True)
        segment = await golden(made, until="inactive")
        await made.post(tsv("id tier", "p-1 gold"))
        (after,) = await client.ended()
        assert (after["status"], after["warnings"]) == ("completed", [])
        program.release()
        (await made.tenant.http.post(f"/v1/segments/{segment['id']}/activate")).raise_for_status()
        assert (await shown_as(made, segment, "active"))["members"] == 1


@pytest.mark.threat("T111")
async def test_a_rotation_that_fails_is_shown_holds_nothing_up_and_can_be_asked_for_again(program, client):
    async with sourced(client, tier={"name": "tier", "pii": True}) as made:
        await made.post(tsv("id tier", "p-1 gold"))
        program.arm(*ROTATING, act="fail", always=True)
        for release, result in ((False, "failed"), (True, None)):
            if release:
                program.release()
            (await made.tenant.http.post("/v1/account/rotate-keys")).raise_for_status()
            await made.post(tsv("id tier", "p-2 tin"))
            assert {each["status"] for each in await client.ended()} == {"completed"}
            assert (await made.tenant.http.get("/v1/account")).json()["key_rotation"] == result


@pytest.mark.rule("D13")
async def test_sealing_that_a_mark_asked_for_and_that_fails_is_shown_and_a_rotation_does_it(program, client):
    async with sourced(client) as made:
        http = made.tenant.http
        await made.post(tsv("id tier", "p-1 gold"))
        [path] = [f"/v1/attributes/{each['id']}" for each in await attributes_of(http) if each["name"] == "tier"]
        program.arm(*ROTATING, act="fail", always=True)
        (await http.patch(path, json={"pii": True})).raise_for_status()
        await made.post(tsv("id tier", "p-2 tin"))
        assert {each["status"] for each in await client.ended()} == {"completed"}
        account, attribute = await http.get("/v1/account"), await http.get(path)
        assert (account.json()["key_rotation"], attribute.json()["sealed_at"]) == ("failed", None)
        program.release()
        (await http.post("/v1/account/rotate-keys")).raise_for_status()
        await made.post(tsv("id tier", "p-3 tin"))
        await client.ended()
        account, attribute = await http.get("/v1/account"), await http.get(path)
        assert (account.json()["key_rotation"], attribute.json()["sealed_at"] is None) == (None, False)


async def test_an_ingestion_that_cannot_be_reported_is_ended_and_holds_nothing_up(program, client):
    program.arm(COMPLETING, act="fail", always=True)
    await client.push("first", adding("Rock"))
    (poison,) = await client.ended()
    assert (poison["status"], poison["counts"]["created"], poison["warnings"]) == ("completed", PEOPLE, [GIVEN_UP])
    program.release()
    await client.push("second", adding("Jazz"))
    assert (await client.ended())[1]["counts"]["updated"] == PEOPLE


@asynccontextmanager
async def sourced(client, **columns):
    """A data source of the columns `id` and `tier`, which may be used in segments."""
    goals = {"id": "identity", "tier": {"name": "tier", "use_in_segments": True}} | columns
    async with client.http() as http:
        yield await source(SimpleNamespace(http=http), **goals)


async def golden(made, *, until="active"):
    """A filter segment of the golden, activated, when it has a status."""
    condition = {"attribute": "tier", "op": "equals", "value": "gold"}
    body = {"name": "golden", "description": "Who is golden", "type": "SCD", "condition": condition}
    segment = (await made.tenant.http.post("/v1/filters", json=body)).raise_for_status().json()
    (await made.tenant.http.post(f"/v1/segments/{segment['id']}/activate")).raise_for_status()
    return await shown_as(made, segment, until)


async def attributes_of(http):
    """The attributes of the account."""
    return (await http.get("/v1/attributes")).raise_for_status().json()["data"]


async def shown_as(made, segment, status):
    """A segment when it has a status; the test's time limit ends a wait in vain."""
    while (shown := await segment_of(made, segment))["status"] != status:
        pass
    return shown


async def segment_of(made, segment):
    """A segment as it stands."""
    return (await made.tenant.http.get(f"/v1/segments/{segment['id']}")).raise_for_status().json()


def applied(program):
    """How many parts of people of the newest ingestion are in the ledger."""
    newest = "SELECT id FROM ingestions ORDER BY id DESC LIMIT 1"
    with program.sql() as sql:
        return sql.execute(
            f"SELECT count(*) FROM ledger WHERE ingestion_id = ({newest}) AND part LIKE 'part-%'"
        ).fetchone()[0]


async def all_but_a_part(client):
    """Assert that the first file completed without one part, whose rows are in its error file; the next is walked."""
    (poison,) = await client.ended()
    _, *rows = csv.reader(await client.error_file(poison))
    lost = {row[0] for row in rows}
    assert {row[-1] for row in rows} == {"[Internal error] Error while importing data"}
    assert (len(rows), 0 < len(lost) < PEOPLE) == (2 * len(lost), True)
    counts = poison["counts"]
    assert (poison["status"], counts["created"]) == ("completed", PEOPLE - len(lost))
    assert (counts["accepted"], counts["rejected"]) == (2 * PEOPLE - len(rows), len(rows))
    assert await client.playlist(lost.pop()) is None
    client.program.release()
    await client.push("second", adding("Jazz"))
    assert (await client.ended())[1]["counts"]["created"] == len(lost) + 1
