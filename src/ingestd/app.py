"""The composition root: Settings become the running service."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import uvicorn

from ingestd import egress, telemetry
from ingestd.api.app import create_api
from ingestd.api.context import Parts, SftpAddress
from ingestd.api.rate import Rate
from ingestd.blobs.store import BlobStore, open_store
from ingestd.domain.errors import Unavailable
from ingestd.ingest import engine as jobs
from ingestd.ingest import work
from ingestd.ingest.engine import Engine
from ingestd.ingest.flow import Flow
from ingestd.ingest.intake import Intake
from ingestd.ingest.pool import Pool
from ingestd.ingest.work import Place
from ingestd.keyring import Keyring, master_from_file
from ingestd.notify.outbox import Outbox
from ingestd.notify.webhooks import Sender
from ingestd.settings import HttpSettings, Settings
from ingestd.sftpd.server import listen
from ingestd.store import embedded, events, schema
from ingestd.store import engine as store

log = telemetry.logger(__name__)


@dataclass(frozen=True)
class App:
    """The running service and where it listens."""

    settings: Settings
    database_url: str
    intake: Intake
    http_port: int
    sftp: SftpAddress

    @property
    def http_url(self) -> str:
        """The address of the HTTP API."""
        scheme = "https" if self.settings.http.certificate else "http"
        return f"{scheme}://{self.settings.http.host}:{self.http_port}"


@dataclass(frozen=True)
class Base:
    """What every part and every command stands on: the database, migrated, the blob store and the keyring."""

    settings: Settings
    database_url: str
    alone: bool
    """Whether no other process can be using the database."""
    blobs: BlobStore
    blob_place: str
    keyring: Keyring


@contextmanager
def base(settings: Settings, *, serving: bool = False) -> Iterator[Base]:
    """Open what everything stands on.

    The embedded database is started here and migrated, and ends with it; a command uses that of the running service.
    For `serving` it must be ours, or Conflict: two services on one data folder are one too many.
    """
    folder = settings.data_dir.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    blob_place = settings.blob_url or str(folder / "blobs")
    master = settings.master_key.get_secret_value() if settings.master_key else _master_of(folder)
    with _database(settings, folder, serving=serving) as (url, alone):
        yield Base(
            settings=settings,
            database_url=url,
            alone=alone,
            blobs=open_store(_place(blob_place)),
            blob_place=blob_place,
            keyring=Keyring.load(master),
        )


def _master_of(folder: Path) -> str:
    """The master key of a data folder, made at its first start; a lost one is never replaced by another."""
    if (folder / "postgres").exists() and not (folder / "master.key").exists():
        raise Unavailable(
            f"{folder / 'master.key'} is missing, and what is stored was sealed with it. Put it back, or set "
            "INGESTD_MASTER_KEY.",
            code="master_key_missing",
        )
    return master_from_file(folder / "master.key")


def _place(place: str) -> str | Path:
    return place if "://" in place else Path(place)


@contextmanager
def _database(settings: Settings, folder: Path, *, serving: bool) -> Iterator[tuple[str, bool]]:
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        engine = store.engine(url)
        schema.check(engine)
        engine.dispose()
        yield url, False
        return
    place = folder / "postgres"
    running_url = None if serving else embedded.find(place)
    if running_url is not None:
        yield running_url, False
        return
    with embedded.start(place, settings=settings.database_settings) as server:
        migrate(server.url)
        yield server.url, True


def migrate(url: str) -> None:
    """Bring a database to the newest schema, the job engine's tables included."""
    engine = store.engine(url)
    schema.migrate(engine)
    with engine.begin() as connection:
        events.add_months(connection, store.utc_now())
    engine.dispose()
    jobs.migrate(url)


@asynccontextmanager
async def running(ground: Base) -> AsyncIterator[App]:
    """Start every part, give the running service, and stop the parts in the reverse order."""
    settings = ground.settings
    metrics = telemetry.new_metrics()
    allow = egress.parse_allow(settings.egress_allow)
    async with AsyncExitStack() as stack:
        doors = store.async_engine(ground.database_url)
        stack.push_async_callback(doors.dispose)
        sql = store.engine(ground.database_url, settings=work.FROZEN)
        stack.callback(sql.dispose)
        sessions = store.sessions(doors)
        engine = Engine(ground.database_url, sql, replica=store.new_id().hex)
        stack.push_async_callback(asyncio.to_thread, engine.close)
        unfinished = timedelta(0) if ground.alone else timedelta(days=1)
        await asyncio.to_thread(ground.blobs.sweep_parts, store.utc_now() - unfinished)
        intake = Intake(sessions, engine, ground.blobs, ground.keyring, settings.limits, settings.quota)
        stack.push_async_callback(intake.close)

        outbox = Outbox(
            url=ground.database_url,
            sessions=sessions,
            sender=Sender(allow=allow),
            keys=intake.keys,
            metrics=metrics,
            clock=store.utc_now,
            jitter=random.random,
        )
        stop_outbox = asyncio.Event()
        dispatching = asyncio.create_task(outbox.run(stop_outbox))
        stack.push_async_callback(_finish, dispatching, stop_outbox)

        pool = Pool(settings.worker.processes, threads=settings.worker.processes)
        pool.warm(work.warm)
        place = Place(ground.database_url, ground.blob_place, settings.worker.part_bytes)
        flow = Flow(sql=sql, pool=pool, place=place, keyring=ground.keyring, jobs=engine, settings=settings.worker)
        await asyncio.to_thread(engine.launch, flow.walk, flow.apply_part, settings.worker, alone=ground.alone)
        stack.push_async_callback(asyncio.to_thread, engine.stop)
        stack.push_async_callback(asyncio.to_thread, flow.stop)

        door = await listen(intake, settings.sftp, folder=settings.data_dir)
        stack.push_async_callback(door.close)
        sftp = SftpAddress(settings.sftp.host, door.port, door.fingerprints, door.host_keys)

        rate = Rate(per_key=settings.http.requests_per_minute, wrong_keys=settings.http.wrong_keys_per_minute)
        api = create_api(Parts(intake, allow, sftp, rate))
        port = await stack.enter_async_context(_serving(api, settings.http))
        yield App(settings, ground.database_url, intake, port, sftp)


async def _finish(task: asyncio.Task[None], stop: asyncio.Event) -> None:
    stop.set()
    await task


class _HttpServer(uvicorn.Server):
    """Uvicorn, which leaves the signals to the service."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@asynccontextmanager
async def _serving(api: object, settings: HttpSettings) -> AsyncIterator[int]:
    """Serve HTTP on the set address, or on a free port where it is 0; gives the port."""
    listener = socket.create_server((settings.host, settings.port), reuse_port=False)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio sets it only where the protocol is named
    config = uvicorn.Config(
        api,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=10,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.private_key,
    )
    server = _HttpServer(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():  # noqa: ASYNC110 -- uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        await serving
