"""The running service: the parts of the roles that a process has, started in order and stopped in reverse."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

from ingestd import egress, telemetry
from ingestd.api.app import create_api
from ingestd.api.context import Check, Parts, SftpAddress
from ingestd.api.operations import create_operations
from ingestd.api.rate import Rate
from ingestd.app import checks
from ingestd.app.gauges import exposition
from ingestd.app.ground import Base
from ingestd.app.role import Role
from ingestd.app.serving import not_free, serving
from ingestd.domain.errors import Forbidden, Unavailable
from ingestd.fetch.remote import Terms
from ingestd.ingest import applying, flow, turns, units
from ingestd.ingest.engine import JobEngine, Workflows
from ingestd.ingest.fetching import Fetching
from ingestd.ingest.intake import Intake
from ingestd.ingest.pool import Pool
from ingestd.ingest.runtime import Runtime
from ingestd.ingest.upkeep import Upkeep
from ingestd.ingest.work import FROZEN, Place
from ingestd.metrics import Metrics, new_metrics
from ingestd.notify.letters import House
from ingestd.notify.mailing import Mailing
from ingestd.notify.outbox import Outbox
from ingestd.notify.posting import Posting
from ingestd.notify.smtp import mail_server
from ingestd.notify.webhooks import Sender
from ingestd.scheduler.clock import Clock
from ingestd.settings import Settings
from ingestd.sftpd.host_key import fingerprint_of, host_key_file
from ingestd.sftpd.server import listen
from ingestd.store import engine as store

log = telemetry.logger(__name__)


@dataclass(frozen=True)
class App:
    """The running service and where it listens; a door is missing without its role."""

    settings: Settings
    database_url: str = field(repr=False)
    intake: Intake
    operations_port: int
    http_port: int | None = None
    sftp_door: SftpAddress | None = None

    @property
    def sftp(self) -> SftpAddress:
        """Where the SFTP server is, in a process that has one."""
        assert self.sftp_door is not None
        return self.sftp_door

    @property
    def http_url(self) -> str:
        """The address of the HTTP API."""
        scheme = "https" if self.settings.http.certificate else "http"
        return f"{scheme}://{self.settings.http.host}:{self.http_port}"

    @property
    def operations_url(self) -> str:
        """The address of metrics and health."""
        return f"http://{self.settings.metrics.host}:{self.operations_port}"


@asynccontextmanager
async def running(ground: Base, roles: Collection[Role] = tuple(Role)) -> AsyncIterator[App]:
    """Start the parts of the roles, give the running service, and stop the parts in the reverse order."""
    async with AsyncExitStack() as stack:
        parts = _Starting(ground, stack, new_metrics())
        await parts.prepare()
        if Role.WORKER in roles:
            await parts.start_worker()
        if Role.CLOCK in roles:
            parts.start_clock()
        sftp = await parts.start_sftp() if Role.SFTP in roles else None
        yield await parts.start_http(sftp, with_api=Role.API in roles)


@dataclass
class _Starting:
    """The service while its parts are started; `stack` stops them."""

    ground: Base
    stack: AsyncExitStack
    metrics: Metrics
    checks: dict[str, Check] = field(default_factory=dict)
    pool: Pool | None = None

    def __post_init__(self) -> None:
        self.settings = self.ground.settings
        self.allow = egress.parse_allow(self.settings.egress_allow)
        self.terms = Terms(self.settings.fetch, self.allow)

    async def prepare(self) -> None:
        """Open the pools, and what every door needs."""
        ground, stack = self.ground, self.stack
        doors = store.async_engine(ground.database_url)
        stack.push_async_callback(doors.dispose)
        self.sql = store.engine(ground.database_url, settings=FROZEN)
        stack.callback(self.sql.dispose)
        self.sessions = store.sessions(doors)
        self.jobs = JobEngine(ground.database_url, self.sql, replica=store.new_id().hex)
        stack.push_async_callback(asyncio.to_thread, self.jobs.close)
        unfinished = timedelta(0) if ground.alone else timedelta(days=1)
        await asyncio.to_thread(ground.blobs.sweep_parts, store.utc_now() - unfinished)
        self.intake = Intake(
            sessions=self.sessions,
            jobs=self.jobs,
            blobs=ground.blobs,
            keyring=ground.keyring,
            limits=self.settings.limits,
            quota=self.settings.quota,
            hold_above=self.settings.segments.hold_above,
            source_file_bytes=self.settings.data_sources.file_bytes,
            restricted_events=self.settings.restricted_events,
            manifest_grace=timedelta(seconds=self.settings.sftp.manifest_grace),
        )
        stack.push_async_callback(self.intake.close)
        self.checks |= checks.of_ground(self.sessions, ground.blobs)

    async def start_worker(self) -> None:
        """Run ingestions, and deliver what they tell."""
        ground, settings = self.ground, self.settings.worker
        for channel in (self._posting(), self._mailing()):
            outbox = Outbox(url=ground.database_url, sessions=self.sessions, channel=channel, clock=store.utc_now)
            self._run(outbox.run)
        warm = partial(applying.warm, ground.database_url)
        self.pool = pool = Pool(settings.processes, threads=settings.processes, warm=warm)
        runtime = Runtime(
            sql=self.sql,
            pool=pool,
            place=Place(ground.database_url, ground.blob_place, settings.part_bytes),
            keyring=ground.keyring,
            jobs=self.jobs,
            settings=settings,
            metrics=self.metrics,
        )
        fetching = Fetching(
            intake=self.intake,
            terms=self.terms,
            settings=settings,
            metrics=self.metrics,
            loop=asyncio.get_running_loop(),
        )
        workflows = Workflows(
            walk=partial(flow.walk, runtime),
            apply_part=partial(units.apply_part, runtime),
            seal=partial(turns.seal, runtime),
            filter=partial(turns.compute_filter, runtime),
            fetch=fetching.fetch,
        )
        await asyncio.to_thread(self.jobs.launch, workflows, settings, alone=ground.alone)
        self.stack.push_async_callback(asyncio.to_thread, self.jobs.stop)
        self.stack.push_async_callback(asyncio.to_thread, runtime.stop)
        self.stack.callback(fetching.stop)
        self.checks["worker"] = checks.of_flag(self.jobs.is_alive)

    def _posting(self) -> Posting:
        return Posting(
            sender=Sender(allow=self.allow),
            keys=self.intake.open_keys,
            metrics=self.metrics,
            clock=store.utc_now,
            jitter=random.random,
        )

    def _mailing(self) -> Mailing:
        mail, http = self.settings.mail, self.settings.http
        scheme = "https" if http.certificate else "http"
        return Mailing(
            sessions=self.sessions,
            server=mail_server(mail, self.allow),
            house=House(
                sender=mail.sender,
                public_url=http.public_url or f"{scheme}://{http.host}:{http.port}",
                error_file_days=round(self.settings.retention.error_file_days),
                held_days=round(self.settings.retention.held_days),
            ),
            attachment_bytes=mail.attachment_bytes,
            blobs=self.ground.blobs,
            keys=self.intake.open_keys,
            metrics=self.metrics,
            clock=store.utc_now,
            jitter=random.random,
        )

    def start_clock(self) -> None:
        """Make runs when they are due, and do what has to be done from time to time."""
        upkeep = Upkeep(self.sql, self.ground.blobs, self.jobs, self.settings.retention)
        tasks = [self._run(upkeep.run), self._run(Clock(self.intake).run)]
        self.checks["clock"] = checks.of_flag(lambda: not any(task.done() for task in tasks))

    async def start_sftp(self) -> SftpAddress:
        """Open the SFTP door."""
        settings = self.settings.sftp
        try:
            door = await listen(self.intake, settings, folder=self.settings.data_dir)
        except OSError as error:
            raise not_free("SFTP", settings.host, settings.port, error) from None
        self.stack.push_async_callback(door.close)
        self.metrics.sftp_sessions.set_function(door.sessions)
        self.checks["sftp"] = checks.of_flag(door.is_serving)
        return self._sftp_address(door.port, door.fingerprints, door.host_keys)

    def _sftp_elsewhere(self) -> SftpAddress | None:
        """Where the SFTP server of other processes is, as far as the settings say it and its host key is at hand."""
        settings = self.settings.sftp
        try:
            fingerprint = fingerprint_of(host_key_file(settings, self.settings.data_dir))
        except (OSError, Forbidden, Unavailable) as fault:  # which the API can do without
            log.warning("host_key_not_readable", exc_info=fault)
            fingerprint = None
        if fingerprint is None:
            return self._sftp_address(settings.port) if settings.public_host else None
        return self._sftp_address(settings.port, (fingerprint,))

    def _sftp_address(
        self, port: int, fingerprints: tuple[str, ...] = (), host_keys: tuple[str, ...] = ()
    ) -> SftpAddress:
        settings = self.settings.sftp
        return SftpAddress(settings.public_host or settings.host, settings.public_port or port, fingerprints, host_keys)

    async def start_http(self, sftp: SftpAddress | None, *, with_api: bool) -> App:
        """Open the operator's port and the HTTP door; they close first, and end the streams that are open.

        Whoever is let in finds data-plane processes that can begin: the first file is as quick as the next.
        """
        settings = self.settings
        http = settings.http
        parts = Parts(
            intake=self.intake,
            egress_allow=self.allow,
            fetch=self.settings.fetch,
            retention=self.settings.retention,
            sftp=sftp or (self._sftp_elsewhere() if with_api else None),
            rate=Rate(per_key=http.requests_per_minute, wrong_keys=http.wrong_keys_per_minute),
            checks=checks.all_of(self.checks),
        )
        operations = create_operations(parts, partial(exposition, self.metrics, self.sql))
        api = create_api(parts) if with_api else None
        if self.pool is not None:
            await asyncio.to_thread(self.pool.run, applying.warm, self.ground.database_url)
        operations_port = await self.stack.enter_async_context(
            serving(operations, settings.metrics.host, settings.metrics.port, part="METRICS")
        )
        app = App(settings, self.ground.database_url, self.intake, operations_port, None, sftp)
        if api is None:
            return app
        port = await self.stack.enter_async_context(
            serving(
                api,
                http.host,
                http.port,
                part="HTTP",
                stopping=parts.stopping,
                ssl_certfile=http.certificate,
                ssl_keyfile=http.private_key,
                proxy_headers=bool(http.trusted_proxies),
                forwarded_allow_ips=list(http.trusted_proxies),
            )
        )
        return replace(app, http_port=port)

    def _run(self, part: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run a part in a task until it is told to stop."""
        stop = asyncio.Event()
        task = asyncio.create_task(part(stop))
        self.stack.push_async_callback(_finish, task, stop)
        return task


async def _finish(task: asyncio.Task[None], stop: asyncio.Event) -> None:
    stop.set()
    await task
