"""`kill -9` in the midst of a transfer: the runs go on at the next start, and each file is ingested once."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import asyncssh
import httpx
import pytest
from tests.faults.program import PATIENCE
from tests.fetch.hostile import ScriptedFtp
from tests.fetch.servers import SftpServer, put
from tests.scheduler.world import scheduled

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

MIB = 1024 * 1024
PEOPLE = 150
FILE = b"user_id,tier,note\n" + b"".join(b"person-%d,High,%b\n" % (number, b"x" * 10_000) for number in range(PEOPLE))


@dataclass
class Half:
    """Gives the first MiB of a file and then waits until it is let `go`; `given` says that it has come to that."""

    given: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self):
        self.given.set()
        await self.go.wait()


class HalfFtp(ScriptedFtp):
    def __init__(self, half):
        super().__init__(FILE)
        self.half = half

    async def mlsd(self, session, _):
        await self.send(session, f"{self.facts()} spending__a.csv\r\n".encode())

    async def retr(self, session, argument):
        if not self.half.go.is_set():
            await session.say("150 Here")
            await self.pour(session, FILE[:MIB])
            await self.half.wait()
        await super().retr(session, argument)


def half_sftp(folder, half):
    class Halving(asyncssh.SFTPServer):
        async def read(self, file_obj, offset, size):
            if offset >= MIB:
                await half.wait()
            return super().read(file_obj, offset, size)

    put(folder / "demo_path", "loyalty__a.csv", FILE)
    return SftpServer(folder, handler=Halving)


class Tenant:
    """The account as the helpers of the scheduler's tests take it."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http


async def test_a_kill_in_mid_transfer_lets_each_file_be_ingested_once(program, client, tmp_path):
    ftp, sftp = Half(), Half()
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(client.told())
        servers = {
            "spending": await stack.enter_async_context(HalfFtp(ftp)),
            "loyalty": await stack.enter_async_context(half_sftp(tmp_path / "theirs", sftp)),
        }
        runs = {}
        async with client.http() as http, AsyncExitStack() as schedules:
            for name, server in servers.items():
                made = await http.post("/v1/connections", json=server.connection(name=name))
                connection = made.raise_for_status().json()
                segment = await schedules.enter_async_context(scheduled(Tenant(http), connection, name))
                asked = await http.post(f"/v1/segments/{segment['id']}/runs")
                runs[asked.raise_for_status().json()["id"]] = segment["id"]
            await asyncio.gather(ftp.given.wait(), sftp.given.wait())
        await program.kill()
        ftp.go.set()
        sftp.go.set()
        await program.start()
        ingested = {}
        for run, segment in runs.items():
            told = await asyncio.wait_for(receiver.until("run.succeeded", run), PATIENCE)
            assert (told["attempts"], told["result"], told["counts"]["created"]) == (2, "ingested", PEOPLE)
            ingested[told["ingestion"]["id"]] = segment
        ended = await client.ended()
        assert {each["id"]: each["segment"]["id"] for each in ended} == ingested
        assert {each["file"]["size_bytes"] for each in ended} == {len(FILE)}
