"""`kill -9` of the service anywhere: counts and effects are exact, the order is kept, one completion is told."""

import asyncio
import importlib
import os
import signal
from functools import partial, reduce
from pathlib import Path

import psutil
import pytest
from tests.faults.conftest import TALLY
from tests.faults.program import ARMED, ATTEMPTS, PATIENCE, POINTS, ROTATING, until
from tests.faults.world import PARTS, adding, crashes, exact

from ingestd.domain import ids
from ingestd.domain.ids import Prefix

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

TELLING = {"in a part, all written", "between apply and report"}
"""Where a repeat would show most; the others come with `make test-faults`."""

LOOP = pytest.mark.loop

SONGS = "SELECT DISTINCT attributes ->> 'Playlist' FROM profiles WHERE account_id = %s"
"""The ways in which the one song that all have is stored; each key seals it in its own."""

ROTATION = "SELECT rotation FROM accounts WHERE id = %s"


@pytest.mark.parametrize("point", sorted(ARMED))
def test_every_call_that_can_be_broken_is_there(point):
    module, _, name = point.partition(":")
    assert callable(reduce(getattr, name.split("."), importlib.import_module(module)))


@pytest.mark.parametrize("point", [each if each in TELLING else pytest.param(each, marks=LOOP) for each in POINTS])
@pytest.mark.rule("S103", "S135")
async def test_a_killed_service_finishes_what_it_began_exactly_once(program, client, point):
    async with client.told() as receiver:
        program.arm(point, call=1 + (" part" in point) * PARTS // 4)
        await client.push("first", adding("Rock"))
        await program.held()
        await client.push("second", adding("Jazz"))
        await cut_short(client, program.kill)
        TALLY["named boundary of the service", "die"] += 1
        await program.start()
        assert [each.name for each in (program.folder / "data" / "blobs").glob(".part-*")] == []
        first, second = await exact(client, ["Rock", "Jazz"])
        for each in (first, second):
            await asyncio.wait_for(receiver.until("ingestion.completed", each["id"]), PATIENCE)
        told = {(each["data"]["id"], each["id"]) for each in receiver.told if each["type"] == "ingestion.completed"}
    assert len(told) == 2


@pytest.mark.rule("S136")
async def test_a_webhook_that_was_taken_but_not_marked_comes_again_under_its_id(program, client):
    async with client.told() as receiver:
        program.arm("ingestd.store.outgoing:mark")
        async with client.http() as http:
            (webhook,) = (await http.get("/v1/webhooks")).raise_for_status().json()["data"]
            (await http.post(f"/v1/webhooks/{webhook['id']}/test")).raise_for_status()
        await program.held()
        (taken,) = receiver.told
        await program.kill()
        await program.start()
        with program.sql() as sql:  # a minute later
            sql.execute("UPDATE deliveries SET next_attempt_at = now() WHERE state = 'sending'")
            sql.execute("NOTIFY ingestd_deliveries")
        async with receiver.news:
            await asyncio.wait_for(receiver.news.wait_for(lambda: len(receiver.told) > 1), PATIENCE)
    assert receiver.told == [taken, taken]
    assert taken["type"] == "webhook.test"


@pytest.mark.parametrize("point", ["in the check, rows read", "in a part, all written"])
async def test_a_killed_worker_costs_only_its_own_ingestion_a_repeat(program, client, other, point):
    program.arm(point)
    await client.push("one", adding("Rock"))
    worker = await program.held()
    await other.push("two", adding("Jazz"))
    os.kill(worker, signal.SIGKILL)
    TALLY["named boundary of a worker", "die"] += 1
    program.release()
    await exact(client, ["Rock"])
    await exact(other, ["Jazz"])
    assert crashes(program) == [0, int("check" in point)]


@pytest.mark.threat("T111")
@LOOP
async def test_a_rotation_of_the_data_keys_that_is_killed_at_each_step_ends_whole(program, client):
    """Before the new keys stand, amid the people, and before the older keys are gone."""
    async with client.http() as http:
        (await http.post("/v1/attributes", json={"name": "Playlist", "pii": True})).raise_for_status()
        await client.push("one", adding("Rock"))
        await exact(client, ["Rock"])
        [old] = stored(program, client, SONGS)
        program.arm(ROTATING[0])
        (await http.post("/v1/account/rotate-keys")).raise_for_status()
    for point, call in ((ROTATING[1], PARTS // 2), (ROTATING[2], 1), (None, None)):
        await program.held()
        await program.kill()
        TALLY["named boundary of a rotation", "die"] += 1
        if point:
            program.arm(point, call=call)
        await program.start()
    await until(lambda: stored(program, client, ROTATION) == [None])
    [new] = stored(program, client, SONGS)
    assert new != old
    assert await client.playlist("person-7") == ["Rock"]


def stored(program, client, query):
    """The first column of what is stored of the account."""
    with program.sql() as sql:
        return [row[0] for row in sql.execute(query, [ids.read(Prefix.ACCOUNT, client.account)])]


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux chooses by this figure")
async def test_a_worker_is_what_dies_when_memory_runs_out(program):
    await until(lambda: {willing_to_die(pid) for pid in program.workers()} == {1000})
    assert willing_to_die(program.process.pid) < 1000


def willing_to_die(pid):
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


async def test_idle_workers_that_die_are_replaced(program, client):
    workers = [psutil.Process(pid) for pid in program.workers()]
    for each in workers:
        each.kill()
    await client.push("one", adding("Rock"))
    await exact(client, ["Rock"])
    assert crashes(program, newest=1) == [0]


async def test_a_stopped_service_leaves_its_work_for_the_next_start_and_counts_no_crash(program, client):
    """Nor where it was taken for dead before it ended."""
    for stop in range(ATTEMPTS):
        program.arm("in a part, all written", call=stop + 1)
        if not stop:
            await client.push("first", adding("Rock"))
        await program.held()
        assert await cut_short(client, partial(stopped, program, taken_for_dead=bool(stop))) == 0
        program.release()
        await program.start()
    await exact(client, ["Rock"])
    assert crashes(program, newest=1) == [0]
    async with client.sftp() as sftp:
        assert "half.csv" not in await sftp.listdir("/")


async def test_work_of_a_replica_that_was_taken_for_dead_before_it_was_killed_is_taken_up_again(program, client):
    program.arm("in a part, all written")
    await client.push("first", adding("Rock"))
    await program.held()
    take_for_dead(program)
    await program.kill()
    program.release()
    await program.start()
    await exact(client, ["Rock"])
    assert crashes(program, newest=1) == [1]


def take_for_dead(program):
    """As another replica does where one is silent for long."""
    with program.sql() as sql:
        assert sql.execute("DELETE FROM replicas").rowcount == 1


async def stopped(program, *, taken_for_dead):
    """Stop the service; gives its exit code."""
    if taken_for_dead:
        take_for_dead(program)
    return await program.stop()


async def cut_short(client, end):
    """End the service amid an upload; gives what that gives."""
    async with client.sftp() as sftp:
        upload = await sftp.open("/half.csv", "wb")
        await upload.write(b"identity\nann\n")
        return await end()


async def test_a_second_service_on_the_same_folder_is_refused_with_a_clear_line(program):
    before = program.log.stat().st_size
    second = await program.spawn()
    async with asyncio.timeout(PATIENCE):
        assert await second.wait() == 1
    said = program.log.read_bytes()[before:].decode()
    assert f"in use by process {program.process.pid}" in " ".join(said.split())
    assert "Traceback" not in said
