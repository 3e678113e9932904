"""The service as a program of its own, which can be broken and started again, and what a client of it does."""

import asyncio
import copy
import json
import os
import re
import signal
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncssh
import httpx
import psutil
import psycopg
from tests.conftest import new_client

from ingestd.app.ground import base
from ingestd.cli import accounts
from ingestd.cli.receiver import Receiver
from ingestd.settings import Settings
from ingestd.store import embedded

READY = re.compile(r"HTTP on (\S+), SFTP on (\S+):(\d+)")
PATIENCE = 400  # seconds for what takes a few on an idle machine: workers are niced, and others may be busy
ATTEMPTS = 2
POINTS = {
    "before the claim": "ingestd.store.fencing:claim",
    "before the check": "ingestd.ingest.checking:check",
    "in the check, rows read": "ingestd.ingest.checking:resolve",
    "in a part, nothing written": "ingestd.ingest.applying:_apply",
    "in a part, all written": "ingestd.store.fencing:guard",
    "between apply and report": "ingestd.store.fencing:finish",
    "between report and clearing up": "ingestd.ingest.applying:discard",
}
HEARTBEAT = "ingestd.store.replicas:beat"
NEW_ERROR_FILE = "ingestd.ingest.applying:report_lost"
SETTLING = "ingestd.store.ledger:settle_part"
OPENING = "ingestd.store.ledger:open_part"
DATABASE_CALLS = ("psycopg.cursor:Cursor.execute", "psycopg.cursor:Cursor.copy", "psycopg.connection:Connection.commit")
STORAGE_CALLS = ("os:fsync", "os:link")
DOORS = (
    "ingestd.ingest.intake:add_file",
    "ingestd.ingest.pairing:submit_manifest",
    "ingestd.store.accounts:take_seq",
    "ingestd.ingest.engine:JobEngine.enqueue",
    "ingestd.ingest.tell:tell",
)
WALK = (
    "ingestd.store.fencing:claim",
    "ingestd.store.fencing:change",
    "ingestd.store.ledger:applied",
    SETTLING,
    "ingestd.store.fencing:finish",
    "ingestd.ingest.tell:tell_ingestion",
)
ROTATING = (
    "ingestd.store.accounts:keep_keys",
    "ingestd.ingest.sealing:seal_slice",
    "ingestd.store.attributes:set_sealed",
)
TELLING = ("ingestd.store.deliveries:claim", "ingestd.store.outgoing:mark")
FILTERING = "ingestd.store.filters:refilter"
COMPLETING = "ingestd.ingest.ending:complete"
SINGLE = (HEARTBEAT, NEW_ERROR_FILE, OPENING, FILTERING, COMPLETING)
ARMED = {*POINTS.values(), *SINGLE, *DATABASE_CALLS, *STORAGE_CALLS, *DOORS, *WALK, *ROTATING, *TELLING}
LOST = (asyncssh.Error, OSError, httpx.TransportError)  # what a client sees of a service that fails


async def until(condition):
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 -- what we wait for is in another process
            await asyncio.sleep(0.05)


class Program:
    """`ingestd serve` on one data folder. Its ports change from start to start."""

    def __init__(self, folder, database=None):
        self.folder = folder
        self.database = database
        self.fault = folder / "fault"
        self.held_by = folder / "fault.held"
        self.log = folder / "log"
        self.process = None
        self.family = []
        self.environment = {
            "INGESTD_DATA_DIR": str(folder / "data"),
            "INGESTD_HTTP__PORT": "0",
            "INGESTD_SFTP__PORT": "0",
            "INGESTD_METRICS__PORT": "0",
            "INGESTD_EGRESS_ALLOW": '["127.0.0.0/8:*"]',
            "INGESTD_WORKER__PART_BYTES": "4000",
            "INGESTD_WORKER__ATTEMPTS": str(ATTEMPTS),
            "INGESTD_DATABASE_SETTINGS": '{"fsync": "off", "shared_buffers": "64MB"}',
        } | (database.environment if database else {})

    async def spawn(self):
        """Start the program, without waiting for it."""
        inject = {
            "INGESTD_TEST_FAULT": str(self.fault),
            "INGESTD_TEST_POINTS": ",".join(ARMED),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(Path(__file__).parent / "inject"), os.environ.get("PYTHONPATH")])
            ),
        }
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "ingestd", "serve", *(["--migrate"] if self.database else [])),
                env=os.environ | self.environment | inject,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )

    async def start(self):
        """Start it, wait until it is ready, and see that nothing of an earlier start still runs."""
        self.process = await self.spawn()
        text = ""
        async with asyncio.timeout(PATIENCE):
            while not READY.search(text):
                line = await self.process.stdout.readline()
                assert line, self.log.read_text()
                text += line.decode()
        self.url, self.host, port = READY.search(text).groups()
        self.port = int(port)
        _, left = await asyncio.to_thread(psutil.wait_procs, self.family, timeout=30)
        assert left == []
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    async def start_again(self):
        """Start it if it has died."""
        if self.process.returncode is not None:
            await self.start()

    async def kill(self):
        """`kill -9`; what it was held by is forgotten."""
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        await self.process.wait()
        self.release()

    async def stop(self):
        """Stop it as an operator would; gives the exit code, within the 30 s that are promised."""
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            return await self.process.wait()

    def arm(self, *points, act="hold", call=1, always=False, only=None, where=None):
        """Let something happen at a call of the points; `only` with that argument, `where`: in that kind of process."""
        self.release()
        fault = {
            "points": [POINTS.get(each, each) for each in points],
            "act": act,
            "call": call,
            "always": always,
            "only": only,
            "where": where,
        }
        new = self.folder / "fault.new"
        new.write_text(json.dumps(fault | {"calls": 0}))
        new.replace(self.fault)

    def release(self):
        """Let go whatever is held; no fault any more."""
        self.fault.unlink(missing_ok=True)
        self.held_by.unlink(missing_ok=True)

    def calls(self):
        """How often the armed point has been called."""
        return json.loads(self.fault.read_text())["calls"]

    async def held(self):
        """Wait until a process is held; gives its pid."""
        await until(self.held_by.exists)
        return int(self.held_by.read_text())

    def workers(self):
        """The pids of the data-plane processes."""
        children = psutil.Process(self.process.pid).children()
        (maker,) = (each for each in children if "multiprocessing.forkserver" in " ".join(each.cmdline()))
        return [each.pid for each in maker.children()]

    def holds(self):
        """Its processes, `service` or `worker`, each with its open files, its threads, and its own memory in MB."""
        kinds = {self.process.pid: "service"} | dict.fromkeys(self.workers(), "worker")
        for pid, kind in kinds.items():
            process = psutil.Process(pid)
            yield kind, process.num_fds(), process.num_threads(), process.memory_full_info().uss >> 20

    def tasks(self):
        """How many tasks its event loop has."""
        told = self.fault.with_suffix(".tasks")
        told.unlink(missing_ok=True)
        os.kill(self.process.pid, signal.SIGUSR1)
        deadline = time.monotonic() + PATIENCE
        while not told.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return int(told.read_text())

    @contextmanager
    def ground(self):
        """The database, blobs and keys of the running program."""
        outside = self.database.settings if self.database else {}
        with base(Settings(data_dir=self.folder / "data", **outside)) as opened:
            assert not opened.alone
            yield opened

    @contextmanager
    def sql(self, *, superuser=False):
        """A connection to its database, each statement a transaction."""
        url = self.database.inside if self.database else embedded.find(self.folder / "data" / "postgres")
        if superuser:
            url = url.replace("//ingestd:", "//postgres:")
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection


class Client:
    """An account of the program, and what a client of it does."""

    def __init__(self, program, folder):
        self.program = program
        self.import_key = folder / "import_key"
        with program.ground() as ground:
            self.account, self.key = accounts.make(
                ground, name="test", email_domains=["example.org"], import_key=self.import_key
            )

    def of(self, program):
        """The same account of another program, which has its state."""
        same = copy.copy(self)
        same.program = program
        return same

    def http(self):
        """A client of the API, as it is reached now."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return new_client(self.program.url, headers=headers, timeout=60)

    @asynccontextmanager
    async def sftp(self):
        """An SFTP session."""
        async with (
            asyncssh.connect(
                self.program.host,
                self.program.port,
                username=self.account,
                client_keys=[str(self.import_key)],
                known_hosts=None,
                config=None,
                agent_path=None,
            ) as connection,
            connection.start_sftp_client() as client,
        ):
            yield client

    async def push(self, stem, data):
        """Put a data file and its manifest."""
        manifest = {"fileName": f"{stem}.csv", "type": "profile", "clientEmail": "data@example.org"}
        async with self.sftp() as client:
            for name, content in ((f"{stem}.csv", data), (f"{stem}.manifest", json.dumps(manifest).encode())):
                async with client.open(f"/{name}", "wb") as file:
                    await file.write(content)

    async def insist(self, stem, data, **more):
        """Put a data file and its manifest, each until that is acknowledged; start what has died."""
        manifest = {"fileName": f"{stem}.csv", "type": "profile", "clientEmail": "data@example.org"} | more
        for name, content in ((f"{stem}.csv", data), (f"{stem}.manifest", json.dumps(manifest).encode())):
            await self.survive(self.put, name, content)

    async def put(self, name, content):
        """Put one file."""
        async with self.sftp() as client, client.open(f"/{name}", "wb") as file:
            await file.write(content)

    async def survive(self, ask, *args):
        """Ask until the service answers; start it again where it has died."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    return await ask(*args)
                except LOST:
                    await asyncio.sleep(0.1)
                    await self.program.start_again()

    async def newest(self):
        """The newest ingestion, when it has ended."""
        async with self.http() as http:
            while True:
                answer = await http.get("/v1/ingestions", params={"limit": 1})
                for shown in answer.raise_for_status().json()["data"] if answer.status_code < 500 else ():
                    if shown["finished_at"]:
                        return shown
                await asyncio.sleep(0.05)

    async def ended(self):
        """All ingestions, oldest first, when each has ended."""
        async with self.http() as http, asyncio.timeout(PATIENCE):
            while True:
                shown = (await http.get("/v1/ingestions")).raise_for_status().json()["data"]
                if shown and all(each["finished_at"] for each in shown):
                    return shown[::-1]
                await asyncio.sleep(0.1)

    async def error_file(self, ingestion):
        """The lines of an ingestion's error file, the header included."""
        async with self.http() as http:
            answer = await http.get(f"/v1/ingestions/{ingestion['id']}/error-file")
            return answer.raise_for_status().text.splitlines()

    async def playlist(self, identifier, kind="identity"):
        """The attribute `Playlist` of a person, or None where there is no such person."""
        async with self.http() as http:
            body = {"identifiers": [{"kind": kind, "value": identifier}]}
            answer = (await http.post("/v1/profiles/lookup", json=body)).raise_for_status().json()
            profile = answer["data"][0]["profile"]
            return profile and profile["attributes"].get("Playlist")

    @asynccontextmanager
    async def told(self):
        """A webhook receiver that is registered for all events."""
        async with Receiver() as receiver:
            async with self.http() as http:
                made = await http.post("/v1/webhooks", json={"name": "test", "url": receiver.url})
            receiver.secret = made.raise_for_status().json()["secret"]
            yield receiver
