"""What crashes again and again is given up after a few attempts, and what comes after it is served (P6)."""

import csv

import pytest
from tests.faults.program import ATTEMPTS, NEW_ERROR_FILE, until
from tests.faults.world import PARTS, PEOPLE, adding, other

from ingestd.ingest.flow import UNNAMED
from ingestd.ingest.work import UNREPORTED

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
