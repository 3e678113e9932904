"""The service as a program of its own, which can be killed and started again."""

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import httpx
import pytest_asyncio

from ingestd.cli.receiver import Receiver
from ingestd.store import embedded

INJECT = Path(__file__).parent / "inject"
READY = re.compile(r"HTTP on (\S+), SFTP on (\S+):(\d+)")
KEY = re.compile(r"account +(acc_\w+)\s+API key +(isk_\S+)")


class Program:
    """`ingestd serve` on one data folder. Ports change from start to start; account and key stay."""

    def __init__(self, folder):
        self.folder = folder
        self.process = None
        self.account = self.key = None

    async def start(self, kill=None):
        """Start it; `kill` is (module, attribute, n, who): where it is to be killed, once."""
        settings = {
            "INGESTD_DATA_DIR": str(self.folder / "data"),
            "INGESTD_HTTP__PORT": "0",
            "INGESTD_SFTP__PORT": "0",
            "INGESTD_EGRESS_ALLOW": '["127.0.0.0/8:*"]',
            "INGESTD_WORKER__PART_BYTES": "4000",
            "INGESTD_DATABASE_SETTINGS": '{"shared_buffers": "64MB"}',
        }
        if kill:
            settings["INGESTD_TEST_KILL"] = ":".join([*map(str, kill), str(self.folder / "killed")])
        paths = [str(INJECT), os.environ.get("PYTHONPATH", "")]
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ingestd",
            "serve",
            env=os.environ | settings | {"PYTHONPATH": ":".join(filter(None, paths))},
            stdout=asyncio.subprocess.PIPE,
            stderr=(self.folder / "log").open("ab"),
        )
        text = ""
        async with asyncio.timeout(60):
            while not READY.search(text) or (self.account is None and "/v1/ingestions" not in text):
                line = await self.process.stdout.readline()
                assert line, (self.folder / "log").read_text()
                text += line.decode()
        self.url, self.host, port = READY.search(text).groups()
        self.port = int(port)
        if self.account is None:
            self.account, self.key = KEY.search(text).groups()

    async def dead(self):
        """Wait until it has been killed."""
        async with asyncio.timeout(60):
            assert await self.process.wait() == -signal.SIGKILL

    async def stop(self):
        """Stop it as an operator would."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                await self.process.wait()

    def http(self):
        """A client of its API."""
        return httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, trust_env=False, timeout=30
        )

    async def push(self, stem, data, **manifest):
        """Put a data file and its manifest."""
        text = {"fileName": f"{stem}.csv", "type": "profile", "clientEmail": "data@example.org"} | manifest
        async with (
            asyncssh.connect(
                self.host,
                self.port,
                username=self.account,
                client_keys=[str(self.folder / "data" / "import_key")],
                known_hosts=None,
                config=None,
                agent_path=None,
            ) as connection,
            connection.start_sftp_client() as client,
        ):
            for name, content in ((f"{stem}.csv", data), (f"{stem}.manifest", json.dumps(text).encode())):
                async with client.open(f"/{name}", "wb") as file:
                    await file.write(content)

    async def ended(self):
        """All ingestions, oldest first, when each has ended."""
        async with self.http() as http, asyncio.timeout(90):
            while True:
                shown = (await http.get("/v1/ingestions")).raise_for_status().json()["data"]
                if all(each["finished_at"] for each in shown):
                    return shown[::-1]
                await asyncio.sleep(0.1)

    async def profile(self, identity):
        """The profile of an identity."""
        async with self.http() as http:
            body = {"identifiers": [{"kind": "identity", "value": identity}]}
            answer = (await http.post("/v1/profiles/lookup", json=body)).raise_for_status().json()
            return answer["data"][0]["profile"]

    @asynccontextmanager
    async def told(self):
        """A webhook receiver that is registered for all events."""
        async with Receiver() as receiver, self.http() as http:
            made = await http.post("/v1/webhooks", json={"name": "test", "url": receiver.url})
            receiver.secret = made.raise_for_status().json()["secret"]
            yield receiver


@pytest_asyncio.fixture
async def program(tmp_path):
    """A service of its own, not started yet."""
    found = Program(tmp_path)
    yield found
    if found.process is not None:
        await found.stop()
    embedded.remove(tmp_path / "data" / "postgres")
