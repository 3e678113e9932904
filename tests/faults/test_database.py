"""A database that fails for a moment, and a process that has lost its ingestion to another: neither changes a thing."""

import asyncio

import pytest
from dbos import DBOSClient
from tests.faults.conftest import TALLY
from tests.faults.program import HEARTBEAT, PATIENCE, until
from tests.faults.world import adding, crashes, exact

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

CUT_ALL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'ingestd' AND pid <> pg_backend_pid()"


@pytest.mark.parametrize("point", ["in the check, rows read", "in a part, all written", "between apply and report"])
async def test_a_lost_connection_is_no_crash_and_repeats_nothing(program, client, point):
    async with client.told() as receiver:
        program.arm(point)
        await client.push("one", adding("Rock"))
        await program.held()
        with program.sql() as sql:
            sql.execute(CUT_ALL)
        TALLY["named boundary of a worker", "cut"] += 1
        program.release()
        (ended,) = await exact(client, ["Rock"])
        await asyncio.wait_for(receiver.until("ingestion.completed", ended["id"]), PATIENCE)
    assert crashes(program, newest=1) == [0]


async def test_a_heartbeat_that_failed_is_followed_by_the_next(program):
    program.arm(HEARTBEAT, act="cut")
    await until(lambda: program.calls() == 1)
    before = seen(program)
    await until(lambda: seen(program) > before)


def seen(program):
    """When the program's replica was last heard of."""
    with program.sql() as sql:
        return sql.execute("SELECT max(seen_at) FROM replicas").fetchone()


@pytest.mark.parametrize("point", ["in the check, rows read", "in a part, all written", "between apply and report"])
async def test_whoever_has_lost_an_ingestion_to_another_changes_nothing(program, client, point):
    program.arm(point)
    await client.push("one", adding("Rock"))
    await program.held()
    taken_over(program)
    TALLY["named boundary of a worker", "taken over"] += 1
    program.release()
    await exact(client, ["Rock"])


def taken_over(program):
    """Let the newest ingestion be begun a second time, as if its process had been silent."""
    with program.sql() as sql, program.ground() as ground:
        (found,) = sql.execute("SELECT id FROM ingestions ORDER BY id DESC LIMIT 1").fetchone()
        jobs = DBOSClient(system_database_url=ground.database_url)
        jobs.resume_workflow(str(found), queue_name="ingestions")
        jobs.destroy()
