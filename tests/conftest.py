"""One real service for the whole run, and a new account for each test that asks for one."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import asyncssh
import httpx
import hypothesis
import pytest
import pytest_asyncio

from ingestd.app.ground import Base, base
from ingestd.app.service import App, running
from ingestd.cli import accounts
from ingestd.cli.receiver import Receiver
from ingestd.ingest.upkeep import Upkeep
from ingestd.settings import (
    FetchSettings,
    HttpSettings,
    MetricsSettings,
    RetentionSettings,
    Settings,
    SftpSettings,
    WorkerSettings,
)
from ingestd.store import embedded
from ingestd.store.engine import engine

hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")

SAMPLES = resources.files("ingestd.cli") / "samples"
TERMINAL = {"completed", "failed", "cancelled"}
TLS = httpx.create_ssl_context()
"""Reads all certificates, and each client of its own would."""

FAST_AND_LOOSE = {"fsync": "off", "synchronous_commit": "off", "shared_buffers": "64MB"}


@dataclass
class Tenant:
    """An account of the running service, and what a client of it does."""

    app: App
    id: str
    key: str
    import_key: Path
    http: httpx.AsyncClient
    pushed: int = field(default=0)

    @asynccontextmanager
    async def sftp(self) -> AsyncIterator[asyncssh.SFTPClient]:
        """A session of an asyncssh client that knows the server's host key."""
        hosts = "".join(f"[{self.app.sftp.host}]:{self.app.sftp.port} {line}\n" for line in self.app.sftp.host_keys)
        async with (
            asyncssh.connect(
                self.app.sftp.host,
                self.app.sftp.port,
                username=self.id,
                client_keys=[str(self.import_key)],
                known_hosts=asyncssh.import_known_hosts(hosts),
                config=None,
                agent_path=None,
            ) as connection,
            connection.start_sftp_client() as client,
        ):
            yield client

    async def put(self, name: str, data: bytes) -> None:
        """Put one file over SFTP."""
        async with self.sftp() as client, client.open(f"/{name}", "wb") as file:
            await file.write(data)

    async def push(self, data: bytes, **manifest: Any) -> dict[str, Any]:
        """Put a data file and its manifest, and give the ingestion when it has ended."""
        self.pushed += 1
        stem = f"file-{self.pushed}"
        text = {"fileName": f"{stem}.csv", "type": "profile", "clientEmail": "data@example.org"} | manifest
        await self.put(text["fileName"], data)
        await self.put(f"{stem}.manifest", json.dumps(text).encode())
        return await self.ended()

    async def push_sample(self, stem: str) -> dict[str, Any]:
        """Push one of the specification's samples as it stands."""
        for suffix in (".csv", ".manifest"):
            await self.put(stem + suffix, SAMPLES.joinpath(stem + suffix).read_bytes())
        return await self.ended()

    async def newest(self) -> dict[str, Any]:
        """The newest ingestion."""
        page = (await self.http.get("/v1/ingestions", params={"limit": 1})).raise_for_status().json()
        return page["data"][0]

    async def ended(self, ingestion: str | None = None) -> dict[str, Any]:
        """An ingestion, by default the newest, when it has ended."""
        ingestion = ingestion or (await self.newest())["id"]
        async with asyncio.timeout(60):
            while True:
                shown = (await self.http.get(f"/v1/ingestions/{ingestion}")).raise_for_status().json()
                if shown["status"] in TERMINAL:
                    return shown
                await asyncio.sleep(0.02)

    async def error_file(self, ingestion: dict[str, Any]) -> str:
        """The text of an ingestion's error file."""
        answer = await self.http.get(f"/v1/ingestions/{ingestion['id']}/error-file")
        return answer.raise_for_status().text

    async def profile(self, value: str, kind: str = "identity") -> dict[str, Any] | None:
        """The profile that an identifier names, or None."""
        body = {"identifiers": [{"kind": kind, "value": value}]}
        answer = (await self.http.post("/v1/profiles/lookup", json=body)).raise_for_status().json()
        return answer["data"][0]["profile"]

    async def events(self, value: str, kind: str = "identity") -> list[dict[str, Any]]:
        """The events of the person that an identifier names, oldest first."""
        profile = await self.profile(value, kind)
        assert profile is not None
        answer = await self.http.get(f"/v1/profiles/{profile['id']}/events")
        return answer.raise_for_status().json()["data"]


def new_client(url: str, **options: Any) -> httpx.AsyncClient:
    """A client of an address of ours."""
    return httpx.AsyncClient(base_url=url, trust_env=False, **{"verify": TLS, "timeout": 30} | options)


def new_folder() -> Path:
    """A folder that the embedded database's user can pass through when the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="ingestd-test-"))
    folder.chmod(0o711)
    return folder


def settings_in(folder: Path, **more: Any) -> Settings:
    """Settings of a service of its own in a folder, on free ports, allowed to post to loopback.

    All its clients have one address: what is counted by address would make a test depend on those before it.
    """
    return Settings(
        data_dir=folder / "data",
        http=HttpSettings(port=0),
        sftp=SftpSettings(port=0, revocation_seconds=0.2, exempt=("127.0.0.0/8",)),
        metrics=MetricsSettings(port=0),
        worker=WorkerSettings(processes=2, fetch_attempts=2, fetch_pause_seconds=0.05),
        fetch=FetchSettings(connect_seconds=5, retry_seconds=0.05),
        egress_allow=("127.0.0.0/8:*",),
        database_settings=FAST_AND_LOOSE,
        **more,
    )


@contextmanager
def own_database() -> Iterator[str]:
    """The URL of an empty PostgreSQL beside that of the run, for tests that make their own tables."""
    folder = new_folder()
    try:
        with embedded.start(folder / "postgres", settings=FAST_AND_LOOSE) as server:
            yield server.url
    finally:
        embedded.remove(folder / "postgres")
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def temporary_folder() -> Callable[[], Path]:
    """A maker of such folders, whose user removes them."""
    return new_folder


@pytest.fixture(scope="session")
def ground() -> Iterator[Base]:
    """The database, the blobs and the keys of the run."""
    folder = new_folder()
    try:
        with base(settings_in(folder)) as opened:
            yield opened
    finally:
        embedded.remove(folder / "data" / "postgres")
        shutil.rmtree(folder)


@pytest_asyncio.fixture(scope="session")
async def app(ground: Base) -> AsyncIterator[App]:
    """The service of the run, all its parts on free ports."""
    async with running(ground) as service:
        yield service


@pytest_asyncio.fixture
async def tenant(ground: Base, app: App, tmp_path: Path) -> AsyncIterator[Tenant]:
    """A new account."""
    async with open_tenant(ground, app, tmp_path) as opened:
        yield opened


@pytest_asyncio.fixture
async def other(ground: Base, app: App, tmp_path: Path) -> AsyncIterator[Tenant]:
    """A second new account."""
    folder = tmp_path / "other"
    folder.mkdir()
    async with open_tenant(ground, app, folder) as opened:
        yield opened


@asynccontextmanager
async def open_tenant(ground: Base, app: App, folder: Path) -> AsyncIterator[Tenant]:
    """Make an account and a client of it."""
    account, key = await asyncio.to_thread(
        accounts.make, ground, name="test", email_domains=["example.org"], import_key=folder / "import_key"
    )
    headers = {"Authorization": f"Bearer {key}"}
    async with new_client(app.http_url, headers=headers) as http:
        yield Tenant(app, account, key, folder / "import_key", http)


@pytest.fixture
def upkeep(ground: Base, app: App) -> Iterator[Upkeep]:
    """The chores of the running service, to be done when a test says so."""
    sql = engine(ground.database_url)
    yield Upkeep(sql, ground.blobs, app.intake.jobs, RetentionSettings())
    sql.dispose()


@pytest_asyncio.fixture
async def receiver(tenant: Tenant) -> AsyncIterator[Receiver]:
    """A webhook receiver that the account has registered for all events."""
    async with Receiver() as listening:
        made = await tenant.http.post("/v1/webhooks", json={"name": "test", "url": listening.url})
        listening.secret = made.raise_for_status().json()["secret"]
        yield listening


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """A folder with the specification's samples."""
    for sample in SAMPLES.iterdir():
        (tmp_path / sample.name).write_bytes(sample.read_bytes())
    return tmp_path
