"""A database that ends at once, answers that are lost, a replica that is frozen: nothing is lost, nothing doubled."""

import asyncio
import shutil

import psutil
import pytest
import pytest_asyncio
from tests.faults.conftest import TALLY
from tests.faults.history import History
from tests.faults.invariants import check_invariants
from tests.faults.outside import Database
from tests.faults.program import OPENING, PATIENCE, SETTLING, Client, Program, until
from tests.faults.world import adding, exact

pytestmark = [pytest.mark.fault, pytest.mark.loop, pytest.mark.timeout(1800)]

OUTAGES = 5
FEW = 60


@pytest_asyncio.fixture(scope="module")
async def database(temporary_folder):
    """A database outside the service."""
    folder = temporary_folder()
    made = Database(folder)
    await made.open()
    yield made
    await made.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest_asyncio.fixture
async def start(database, temporary_folder):
    """Start services on that database; in the end the invariants hold, and they end."""
    started = []

    async def new():
        started.append(Program(temporary_folder(), database))
        await started[-1].start()
        return started[-1]

    yield new
    try:
        with started[-1].ground() as ground:
            await asyncio.to_thread(check_invariants, ground, started[-1])
    finally:
        for each in started:
            await each.kill()
            shutil.rmtree(each.folder)


MARKERS = {
    "a file": b"INSERT INTO files",
    "a submission": b"INSERT INTO ingestions",
    "a claim": b"fence=(ingestions.fence",
    "a part": b"FOR SHARE",
    "a report": b"finished_at=",
    "a delivery": b"UPDATE deliveries",
}


async def test_the_reply_to_a_commit_that_is_lost_repeats_nothing(start, database, tmp_path):
    program = await start()
    client = Client(program, tmp_path)
    async with client.told() as receiver:
        for n, (what, statement) in enumerate(MARKERS.items()):
            database.swallow(statement)
            await client.insist(f"song-{n}", adding(f"song-{n}", FEW))
            ended = await client.survive(client.newest)
            await asyncio.wait_for(receiver.until("ingestion.completed", ended["id"]), PATIENCE)
            await until(lambda: database.swallowed == 1)
            TALLY["commit of " + what, "answer lost"] += 1
    assert [each["counts"]["updated"] for each in await client.ended()] == [0, *[FEW] * (len(MARKERS) - 1)]
    assert await client.playlist("person-1") == [f"song-{n}" for n in range(len(MARKERS))]


async def test_a_part_that_a_database_lost_with_its_commit_is_applied_again(start, database, tmp_path):
    program = await start()
    client, songs, lost = Client(program, tmp_path), [], 0
    while not lost and len(songs) < OUTAGES:
        songs.append(f"song-{len(songs)}")
        program.arm(SETTLING)
        await client.push(songs[-1], adding(songs[-1], FEW))
        await program.held()
        await database.crash()
        with program.sql() as sql:
            newest = "SELECT id FROM ingestions ORDER BY id DESC LIMIT 1"
            lost += not sql.execute(f"SELECT FROM ledger WHERE ingestion_id = ({newest})").rowcount
        program.release()
        await client.survive(client.newest)
        TALLY["part just committed", "database ended"] += 1
    assert lost, "every part was on the disk: the test shows nothing"
    assert await client.playlist("person-1") == songs


async def test_a_database_that_ends_again_and_again_under_load_loses_and_doubles_nothing(start, database, tmp_path):
    program = await start()
    histories = {}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        histories[Client(program, tmp_path / name)] = History()
    enough = asyncio.Event()

    async def load(client, history):
        while not enough.is_set() or history.files < 2:  # a busy machine works off no second one meanwhile
            await history.push(client, 200)
            await client.survive(client.newest)  # no faster than it is worked off, on whatever machine

    async with asyncio.TaskGroup() as group:
        for client, history in histories.items():
            group.create_task(load(client, history))
        for pause in range(OUTAGES):
            await asyncio.sleep(2 + pause)
            await database.crash()
            TALLY["load", "database ended"] += 1
        enough.set()
    for client, history in histories.items():
        await client.survive(client.newest)
        await history.check(client)


@pytest.mark.parametrize("point", [OPENING, "in a part, all written"], ids=["before", "after"])
async def test_a_replica_that_was_frozen_in_a_part_changes_nothing_when_it_wakes(start, database, tmp_path, point):
    one, two = await start(), await start()
    client = Client(one, tmp_path)
    for program in (one, two):
        program.arm(point)
    await client.push("one", adding("Rock"))
    frozen, other = await first_held(one, two)
    other.release()
    family = [psutil.Process(pid) for pid in (frozen.process.pid, *frozen.workers())]
    for each in family:
        each.suspend()
    frozen.release()
    client = client.of(other)
    with other.sql() as sql:  # as the server does by itself, after five minutes
        sql.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'")
    await exact(client, ["Rock"])
    for each in family:
        each.resume()
    TALLY["part", "replica frozen"] += 1
    await client.push("two", adding("Jazz"))
    await exact(client, ["Rock", "Jazz"])


async def first_held(*programs):
    """Wait until a process of one of the programs is held; gives that program, then the others."""
    await until(lambda: any(each.held_by.exists() for each in programs))
    return sorted(programs, key=lambda each: not each.held_by.exists())
