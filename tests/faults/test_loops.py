"""Every call at which something can break, broken in every way, one after the other (`make test-faults`).

SQLite's loop: for n = 1, 2, 3 … the n-th call of a kind breaks, until a round passes in which nothing did. After each
round the file has taken effect exactly once and in its order, and is told as completed under one id.
"""

import asyncio

import asyncssh
import pytest
from tests.faults.conftest import TALLY
from tests.faults.program import ATTEMPTS, DATABASE_CALLS, DOORS, PATIENCE, STORAGE_CALLS, TELLING, WALK
from tests.faults.world import PEOPLE, adding

pytestmark = [pytest.mark.fault, pytest.mark.loop, pytest.mark.timeout(3600)]

FEW = 60  # people of a file that is one part, whose calls are soon counted
DATABASE_KINDS = ("cut", "cut_after", "fail", "die")
STORAGE_KINDS = ("io_error", "disk_full", "fail", "die")


async def test_the_files_fit_the_loops():
    assert len(adding("song", FEW)) < 4000 < len(adding("song"))
    assert ATTEMPTS > 1  # a fault is one crash, which is forgiven


class Rounds:
    """An account whose files meet one fault each."""

    def __init__(self, program, client, receiver, what):
        self.program, self.client, self.receiver, self.what = program, client, receiver, what
        self.songs = []

    async def round(self, *points, act, people=FEW, **fault):
        """Push a file while a fault is armed, assert that it took effect once, and tell whether the fault struck."""
        self.songs.append(f"song-{len(self.songs)}")
        self.program.arm(*points, act=act, **fault)
        await self.client.insist(self.songs[-1], adding(self.songs[-1], people))
        ended = await self.client.survive(self.client.newest)
        counts = ended["counts"]
        changed = (people, 0) if len(self.songs) == 1 else (0, people)
        assert (ended["status"], counts["accepted"], counts["rejected"]) == ("completed", 2 * people, 0), fault
        assert (counts["created"], counts["updated"]) == changed, fault
        await asyncio.wait_for(self.receiver.until("ingestion.completed", ended["id"]), PATIENCE)
        await self.program.start_again()
        struck = self.program.calls() >= fault.get("call", 1)
        self.program.release()
        TALLY[self.what, act] += struck
        return struck

    async def close(self, people=FEW):
        """Assert that everybody has every song, in the order of the files, and that each notice has one id."""
        for n in (0, people // 2, people - 1):
            assert await self.client.playlist(f"person-{n}") == self.songs
        told = {(each["data"]["id"], each["id"]) for each in self.receiver.told if each["type"].endswith("completed")}
        assert len(told) == len(self.songs)


@pytest.mark.parametrize("act", DATABASE_KINDS)
async def test_every_call_of_the_database_by_a_worker(program, client, act):
    await every_call(program, client, *DATABASE_CALLS, act=act, where="worker", what="database call of a worker")


@pytest.mark.parametrize("act", STORAGE_KINDS)
@pytest.mark.parametrize("where", ["worker", "service"])
async def test_every_call_that_makes_a_blob_durable(program, client, where, act):
    await every_call(program, client, *STORAGE_CALLS, act=act, where=where, what=f"storage call of a {where}")


async def every_call(program, client, *points, what, **fault):
    async with client.told() as receiver:
        rounds, call = Rounds(program, client, receiver, what), 1
        while await rounds.round(*points, call=call, **fault):
            call += 1
        assert call > len(points)
        await rounds.close()


@pytest.mark.parametrize("act", DATABASE_KINDS)
@pytest.mark.parametrize("points", [DOORS, WALK, TELLING], ids=["doors", "walk", "telling"])
async def test_every_named_call_of_the_service(program, client, points, act):
    async with client.told() as receiver:
        rounds = Rounds(program, client, receiver, "named call of the service")
        for point in points:
            assert await rounds.round(point, act=act, people=PEOPLE), point
        await rounds.close(PEOPLE)


async def test_a_disk_without_room_refuses_uploads_and_only_those(program, client):
    noise = "".join(f"person-{n},{n:x}{n * 7919:0200x}\n" for n in range(2000))
    data = f"identity,Noise\n{noise}".encode()
    program.log.write_bytes(b"")  # the room is for each file, this one too
    program.arm("ingestd.ingest.intake:add_file", act="no_room")
    await client.insist("small", b"identity\nann\n")
    with pytest.raises(asyncssh.SFTPFailure, match="full"):
        await client.put("large.csv", data)
    program.release()
    await client.insist("large", data)
    ended = await client.ended()
    assert [(each["status"], each["counts"]["accepted"]) for each in ended] == [("completed", 1), ("completed", 2000)]
