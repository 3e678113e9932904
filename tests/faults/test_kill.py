"""`kill -9` anywhere: counts and effects are exact, the order is kept, one completion is told (P3, P4, P6)."""

import asyncio

import pytest


pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]

PEOPLE = 300
POINTS = {
    "before checking": ("ingestd.ingest.work", "check", 1, "service"),
    "while checking": ("ingestd.pipeline.check", "bind", 1, "service"),
    "between two parts": ("ingestd.ingest.work", "apply_part", 3, "service"),
    "in a part, before its commit": ("ingestd.store.ingestions", "close_part", 2, "service"),
    "between apply and report": ("ingestd.ingest.tell", "tell_ingestion", 3, "service"),
}


def adding(song):
    """A file in which everyone adds a song, twice in two rows."""
    rows = "".join(f"person-{n},{song},$add\n" * 2 for n in range(PEOPLE))
    return ("identity,Playlist,Playlist.operation\n" + rows).encode()


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.rule("S103", "S135")
async def test_a_killed_service_finishes_what_it_began_exactly_once(program, point):
    await program.start(kill=POINTS[point])
    async with program.told() as receiver:
        await program.push("first", adding("Rock"))
        await program.dead()
        await program.start()
        await program.push("second", adding("Jazz"))
        first, second = await program.ended()
        completed = [each for each in receiver.told if each["type"] == "ingestion.completed"]
    for ended, created in ((first, PEOPLE), (second, 0)):
        assert ended["status"] == "completed"
        assert ended["counts"] | {"accepted": 2 * PEOPLE, "rejected": 0, "created": created} == ended["counts"]
    assert first["finished_at"] <= second["started_at"]
    for n in (0, PEOPLE - 1):
        profile = await program.profile(f"person-{n}")
        assert profile["attributes"]["Playlist"] == ["Rock", "Jazz"]
    assert {each["data"]["id"] for each in completed} >= {first["id"]}
    told_of_first = {each["id"] for each in completed if each["data"]["id"] == first["id"]}
    assert len(told_of_first) == 1


async def test_a_dead_worker_costs_only_its_own_ingestion_a_repeat(program):
    await program.start(kill=("ingestd.store.ingestions", "close_part", 1, "worker"))
    await asyncio.gather(program.push("one", adding("Rock")), program.push("two", adding("Jazz")))
    ended = await program.ended()
    assert [each["status"] for each in ended] == ["completed", "completed"]
    assert sorted((await program.profile("person-7"))["attributes"]["Playlist"]) == ["Jazz", "Rock"]


async def test_a_stopped_service_leaves_its_work_for_the_next_start(program):
    await program.start()
    await program.push("first", adding("Rock"))
    await program.stop()
    assert program.process.returncode == 0
    await program.start()
    (ended,) = await program.ended()
    assert ended["counts"]["created"] == PEOPLE
