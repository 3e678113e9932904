"""`kill -9` in the midst of a fetch: the run goes on at the next start, and its file is ingested once."""

import asyncio

import httpx
import pytest
from tests.faults.program import PATIENCE
from tests.fetch.servers import SftpServer, put
from tests.scheduler.world import Slow, scheduled

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]


class Tenant:
    """The account as the helpers of the scheduler's tests take it."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http


async def test_a_run_that_a_kill_cut_short_is_taken_up_and_ingests_its_file_once(program, client, tmp_path):
    folder = tmp_path / "theirs"
    put(folder / "demo_path", "loyalty__a.csv", b"user_id,tier\nann,High\n")
    slow = Slow.new()
    async with client.told() as receiver, SftpServer(folder, handler=slow) as server:
        async with client.http() as http:
            connection = await http.post("/v1/connections", json=server.connection())
            async with scheduled(Tenant(http), connection.raise_for_status().json()) as segment:
                asked = await http.post(f"/v1/segments/{segment['id']}/runs")
                run = asked.raise_for_status().json()["id"]
        await slow.asked.wait()
        await program.kill()
        slow.go.set()
        await program.start()
        told = await asyncio.wait_for(receiver.until("run.succeeded", run), PATIENCE)
        [ingestion] = await client.ended()
        assert (told["attempts"], told["result"], told["ingestion"]["id"]) == (2, "ingested", ingestion["id"])
