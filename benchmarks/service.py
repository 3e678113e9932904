"""The real service in a process of its own, and a client that uses its doors as a customer does."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import asyncssh
import httpx
import polars as pl
import psutil  # type: ignore[import-untyped]
import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.generate import Generated
from ingestd.blobs.store import open_store
from ingestd.cli.receiver import Receiver
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.keyring import Keyring, SealedKeys, master_from_file
from ingestd.store import embedded

POSTGRES: Final = {
    "shared_buffers": f"{psutil.virtual_memory().total // 4 >> 20}MB",
    "max_wal_size": "32GB",
    "checkpoint_timeout": "30min",
}
"""As the docs size it for bulk loads. What concerns durability stays at PostgreSQL's default: full."""

PROCESSES: Final = 2
"""As many data-plane processes as the service has unless it is told otherwise."""

PAGES_PER_MB: Final = 1000
"""Of the tables, their keys and the log that a million bytes of a file become, some more than they are."""

START_SECONDS: Final = 120
LOOK_SECONDS: Final = 0.25

_WELCOME: Final = re.compile(
    r"HTTP on (?P<http>\S+), SFTP on (?P<host>\S+):(?P<port>\d+), metrics on (?P<metrics>\S+)\n"
    r"(?s:.*)account +(?P<account>\S+)\n +API key +(?P<key>\S+)\n(?s:.*)/v1/ingestions"
)

_STAGE: Final = re.compile(r'^ingestd_stage_seconds_sum\{stage="(\w+)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Service:
    """A running service with one account, its state in `data`; `url` is that of its embedded PostgreSQL."""

    pid: int
    data: Path
    url: str = field(repr=False)
    http: str
    sftp: tuple[str, int]
    metrics: str
    account: str
    key: str = field(repr=False)

    def rejected(self, ingestion: str) -> pl.DataFrame:
        """Which records of an ingestion were rejected: `row_no`, `line_no` and `codes`, from the log it kept sealed."""
        with psycopg.connect(self.url) as connection:
            account, blob, *sealed = connection.execute(
                "SELECT a.id, i.rejects_blob, a.data_keys, a.index_key FROM ingestions i"
                " JOIN accounts a ON a.id = i.account_id WHERE i.id = %s",
                (ids.read(Prefix.INGESTION, ingestion),),
            ).fetchall()[0]
        keys = Keyring.load(master_from_file(self.data / "master.key")).open(account, SealedKeys(*sealed))
        with closing(open_store(self.data / "blobs").open(blob, keys)) as log:
            return pl.read_ipc_stream(log)


@dataclass(frozen=True, slots=True)
class Walk:
    """One file's way: from the CLOSE of its manifest to the webhook `ingestion.completed`, and where the time went."""

    seconds: float
    stages: dict[str, float]
    ingestion: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Client:
    """An SFTP session, an HTTP client and a webhook receiver of the service's account; where its `metrics` are."""

    http: httpx.AsyncClient
    sftp: asyncssh.SFTPClient
    receiver: Receiver
    metrics: str

    async def put(self, path: Path) -> None:
        """Put a data file."""
        await self.sftp.put(str(path), f"/{path.name}")

    async def walk(self, manifest: Path) -> Walk:
        """Put the manifest of a file that was put before, and follow the ingestion to its end."""
        text = await asyncio.to_thread(manifest.read_bytes)
        file = await self.sftp.open(f"/{manifest.name}", "wb")
        await file.write(text)

        async def submit() -> str:
            await file.close()
            newest = (await self.http.get("/v1/ingestions", params={"limit": 1})).raise_for_status().json()["data"][0]
            ingestion: str = newest["id"]
            return ingestion

        return await self.follow(submit)

    async def follow(self, submit: Callable[[], Awaitable[str]]) -> Walk:
        """Submit an ingestion, of which `submit` gives the id, and wait for its end; nothing is asked meanwhile."""
        before = await self._stage_seconds()
        began = time.perf_counter()
        ingestion = await self.receiver.until("ingestion.completed", await submit(), "ingestion.failed")
        seconds = time.perf_counter() - began
        if ingestion["status"] == "failed":
            raise RuntimeError(f"The ingestion failed: {ingestion['error']}")
        after = await self._stage_seconds()
        created, started = (datetime.fromisoformat(ingestion[f"{event}_at"]) for event in ("created", "started"))
        stages = {"queued": (started - created).total_seconds()}
        stages |= {stage: took for stage, total in after.items() if (took := total - before.get(stage, 0)) > 0}
        return Walk(seconds, {stage: round(took, 2) for stage, took in stages.items()}, ingestion)

    async def _stage_seconds(self) -> dict[str, float]:
        """The seconds that all ingestions have spent in each stage, as the service counts them."""
        metrics = (await self.http.get(self.metrics)).raise_for_status().text
        return {stage: float(seconds) for stage, seconds in _STAGE.findall(metrics)}


@contextmanager
def workshop(parent: Path | None) -> Iterator[Path]:
    """A new folder, gone afterwards, whose files the embedded server's user can read."""
    folder = Path(tempfile.mkdtemp(prefix="ingestd-bench-", dir=parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def serving(folder: Path, *, processes: int = PROCESSES) -> Iterator[Service]:
    """Run `python -m ingestd serve` on a new data folder, with so many data-plane processes; remove it in the end."""
    data, output = folder / "data", folder / "service.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INGESTD_")} | {
        "INGESTD_DATA_DIR": str(data),
        "INGESTD_HTTP__PORT": "0",
        "INGESTD_SFTP__PORT": "0",
        "INGESTD_HTTP__REQUESTS_PER_MINUTE": "1000000",
        "INGESTD_METRICS__PORT": "0",
        "INGESTD_WORKER__PROCESSES": str(processes),
        "INGESTD_EGRESS_ALLOW": json.dumps(["127.0.0.0/8:*"]),
        "INGESTD_DATABASE_SETTINGS": json.dumps(POSTGRES),
        "INGESTD_LOG_LEVEL": "warning",
    }
    with output.open("wb") as log:
        command = [sys.executable, "-m", "ingestd", "serve"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        welcome = _await_welcome(process, output)
        url = embedded.find(data / "postgres")
        assert url is not None  # the service runs on it
        yield Service(
            pid=process.pid,
            data=data,
            url=url,
            http=welcome["http"],
            sftp=(welcome["host"], int(welcome["port"])),
            metrics=welcome["metrics"],
            account=welcome["account"],
            key=welcome["key"],
        )
    except Exception as failure:
        failure.add_note(f"The end of what the service said:\n{output.read_text()[-4000:]}")
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        embedded.remove(data / "postgres")
        shutil.rmtree(data)


def warm_up(url: str, mb: float) -> None:
    """Have the server fill its buffers and write of its log what a file of `mb` needs, as one in use has long since.

    A new server asks the system for a page of memory at each buffer's first use, and writes zeros into each file of its
    log before it writes there: work of the first gigabyte that it ever takes.
    """
    with psycopg.connect(make_conninfo(url, user="postgres"), autocommit=True) as connection:
        connection.execute("CREATE TABLE warm_up (page text STORAGE PLAIN)")
        connection.execute(
            "INSERT INTO warm_up SELECT repeat(' ', 8000) FROM pg_settings, generate_series(1, least(setting::int, %s))"
            " WHERE name = 'shared_buffers'",
            (round(PAGES_PER_MB * mb),),
        )
        connection.execute("DROP TABLE warm_up")
        connection.execute("CHECKPOINT")


def _await_welcome(process: subprocess.Popen[bytes], output: Path) -> re.Match[str]:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if welcome := _WELCOME.search(output.read_text()):
            return welcome
        time.sleep(LOOK_SECONDS)
    raise RuntimeError("The service did not start.")


@asynccontextmanager
async def client(service: Service) -> AsyncIterator[Client]:
    """Connect to all doors of a service and register a webhook."""
    async with (
        Receiver() as receiver,
        httpx.AsyncClient(
            base_url=service.http, headers={"Authorization": f"Bearer {service.key}"}, trust_env=False, timeout=30
        ) as http,
        sftp_session(service) as sftp,
    ):
        made = await http.post("/v1/webhooks", json={"name": "benchmark", "url": receiver.url})
        receiver.secret = made.raise_for_status().json()["secret"]
        yield Client(http, sftp, receiver, service.metrics)


@asynccontextmanager
async def sftp_session(service: Service) -> AsyncIterator[asyncssh.SFTPClient]:
    """Connect to the SFTP server."""
    host, port = service.sftp
    async with (
        asyncssh.connect(
            host,
            port,
            username=service.account,
            client_keys=[str(service.data / "import_key")],
            known_hosts=str(service.data / "known_hosts"),
            config=None,
            agent_path=None,
        ) as connection,
        connection.start_sftp_client() as sftp,
    ):
        yield sftp


def as_truth(rejected: pl.DataFrame, made: Generated) -> bool:
    """Whether exactly the records that the generator spoilt were rejected: by record, line and reason."""
    truth = pl.read_csv(made.truth).select("record", "line", codes=pl.concat_list("kind"))
    found = rejected.select(record="row_no", line="line_no", codes="codes")
    return truth.sort("record").equals(found.sort("record"))
