"""The fetch of a run: the newest file of another server is collected and submitted, or it is told why not (S7, D1).

Nothing is held in the database while the other server is spoken to. What came of it is one transaction: the file, its
number in the account's order (D31) and the run's state; an attempt that another one has overtaken changes nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd import telemetry
from ingestd.domain.data_source import SUFFIX
from ingestd.domain.errors import IngestdError, Unavailable
from ingestd.domain.file_name import DATA_SUFFIX
from ingestd.domain.ingestion import Channel, Stage, Status
from ingestd.domain.plan import Mode
from ingestd.domain.run import FINAL, NO_FILE, Result, RunState
from ingestd.domain.schedule import OwnerKind
from ingestd.fetch.remote import Terms
from ingestd.ingest.collect import Collected, Known, Wanted, collect
from ingestd.ingest.engine import Stopping
from ingestd.ingest.intake import Intake, add_file
from ingestd.ingest.refusal import not_fetched
from ingestd.ingest.runs import CLOCK
from ingestd.ingest.segments import submit_segment
from ingestd.ingest.tell import tell_run
from ingestd.ingest.uploads import Upload, header_in, submit_upload
from ingestd.metrics import Metrics
from ingestd.settings import WorkerSettings
from ingestd.store import accounts, data_sources, recipients, runs, segments
from ingestd.store.engine import transaction, utc_now
from ingestd.store.ingestions import Ingestion
from ingestd.store.runs import NewestFile, Run

log = telemetry.logger(__name__)

CRASHES: Final = 5
"""Attempts more, for those that the service itself did not survive."""

RETRY_SECONDS: Final = 1.0
"""Between two tries while the database does not answer."""


class Overtaken(Exception):
    """Another attempt at the run has begun; this one stops and changes nothing."""


@dataclass(kw_only=True)
class Fetching:
    """What fetching needs; its coroutines run on the loop of the service, each waited for by a thread of the engine."""

    intake: Intake
    terms: Terms
    settings: WorkerSettings
    metrics: Metrics
    loop: asyncio.AbstractEventLoop
    _open: set[Future[None]] = field(default_factory=set)
    _stopping: bool = False

    def fetch(self, run_id: UUID) -> None:
        """Take a run until its file is submitted, or to its end; raise Stopping where the process goes down before."""
        walk = asyncio.run_coroutine_threadsafe(self._walk(run_id), self.loop)
        self._open.add(walk)
        if self._stopping:
            walk.cancel()
        try:
            walk.result()
        except CancelledError:
            raise Stopping from None
        finally:
            self._open.discard(walk)

    def stop(self) -> None:
        """Break off what is being fetched: each thread raises Stopping."""
        self._stopping = True
        for walk in list(self._open):
            walk.cancel()

    async def _walk(self, run_id: UUID) -> None:
        with telemetry.context(run=str(run_id)):
            while True:
                try:
                    async with transaction(self.intake.sessions) as session:
                        run = await runs.claim(session, run_id, now=utc_now())
                    if run is None or await self._attempt(run):
                        return
                except Overtaken:
                    return
                except Exception as fault:  # what crashes counts as an attempt, too
                    log.warning("run_interrupted", exc_info=fault)
                    await asyncio.sleep(RETRY_SECONDS)
                else:
                    await asyncio.sleep(self._pause(run.attempt))

    def _pause(self, attempt: int) -> float:
        jitter = random.uniform(0.8, 1.2)  # noqa: S311 -- no secret
        return float(self.settings.fetch_pause_seconds * 3 ** (attempt - 1) * jitter)

    async def _attempt(self, run: Run) -> bool:
        """Whether the run needs no other attempt."""
        more = run.attempt < self.settings.fetch_attempts
        try:
            if run.attempt > self.settings.fetch_attempts + CRASHES:
                raise Unavailable("The service failed at this run again and again.")
            await self._collect(run)
        except IngestdError as failure:
            self.metrics.fetches.labels(failure.code).inc()
            again = more and isinstance(failure, Unavailable) and failure.code not in FINAL
            log.info("fetch_failed", attempt=run.attempt, code=failure.code, again=again)
            await (self._note(run, failure) if again else self._fail(run, failure))
            return not again
        return True

    async def _collect(self, run: Run) -> None:
        async with transaction(self.intake.sessions) as session:
            of_source = run.owner_kind == OwnerKind.DATA_SOURCE
            owner = await (data_sources if of_source else segments).get(session, run.account_id, run.owner_id)
            newest = await runs.newest_file(session, run)
        known = newest and Known(newest.name, newest.size_bytes, newest.modified_at, newest.sha256)
        wanted = Wanted(run.account_id, run.connection_id, run.path, owner.name, SUFFIX if of_source else DATA_SUFFIX)
        async with collect(self.intake, self.terms, wanted, known) as found:
            await self._record(run, found, newest)
            self.metrics.fetches.labels("unchanged" if found.unchanged else "fetched").inc()

    async def _record(self, run: Run, found: Collected, newest: NewestFile | None) -> None:
        """Submit the file that was collected, unless it is the `newest` that came already (D1).

        As old as that file the data are only when it is in force: it may still wait to be confirmed. Where another came
        while this one was fetched, Unavailable: it is compared anew.
        """
        now = utc_now()
        about: dict[str, Any] = {
            "file_name": found.name,
            "file_size_bytes": found.size,
            "data_as_of": found.modified_at,
            "why": found.why,
        }
        of_source = run.owner_kind == OwnerKind.DATA_SOURCE
        header: tuple[str, ...] = ()
        if of_source and found.blob is not None:
            header = await header_in(
                self.intake, run.account_id, found.blob.name, name=found.name, size=found.blob.size
            )
        async with transaction(self.intake.sessions) as session:
            if found.incoming is None or found.blob is None:
                assert newest is not None  # otherwise nothing could be the same
                was, newest = newest, await runs.newest_file(session, run)
                if newest is None or newest.sha256 != was.sha256:
                    raise Unavailable("Another file came in, or failed, while this one was compared with the last.")
                if newest.stage == Stage.HELD:
                    about["why"] = f"{found.why} It waits to be confirmed."
                if newest.status == Status.COMPLETED and not of_source:
                    await segments.note_unchanged(session, run.account_id, run.owner_id, data_as_of=found.modified_at)
                await _finish(session, run, Result.UNCHANGED, now=now, **about)
                return
            await accounts.lock(session, run.account_id)
            file = await add_file(session, found.incoming, found.blob, name=found.name, actor=CLOCK, now=now)
            ingestion = await self._submit(session, run, file.id, header, now=now)
            await _change(session, run, state=RunState.INGESTING, ingestion_id=ingestion.id, error=None, **about)

    async def _submit(
        self, session: AsyncSession, run: Run, file_id: UUID, header: tuple[str, ...], *, now: datetime
    ) -> Ingestion:
        """Submit a run's file for what the schedule keeps fresh."""
        to = tuple(await recipients.addresses(session, run.account_id, run.recipients))
        if run.owner_kind == OwnerKind.DATA_SOURCE:
            upload = Upload(
                file_id=file_id,
                data_source_id=run.owner_id,
                mode=Mode(run.mode),
                notify=to,
                channel=Channel.SCHEDULE,
            )
            return await submit_upload(session, self.intake, run.account_id, upload, header, actor=CLOCK, now=now)
        return await submit_segment(
            session,
            self.intake,
            run.account_id,
            run.owner_id,
            file_id,
            channel=Channel.SCHEDULE,
            recipients=to,
            actor=CLOCK,
            now=now,
        )

    async def _note(self, run: Run, failure: IngestdError) -> None:
        """Show what went wrong while another attempt is waited for."""
        async with transaction(self.intake.sessions) as session:
            await _change(session, run, error=not_fetched(failure, OwnerKind(run.owner_kind)).model_dump())

    async def _fail(self, run: Run, failure: IngestdError) -> None:
        """End a run that got no file, and tell those who want to know (S21, S36)."""
        result = Result.NO_FILE if failure.code == NO_FILE else Result.FAILED
        async with transaction(self.intake.sessions) as session:
            to = await recipients.addresses(session, run.account_id, run.recipients)
            error = not_fetched(failure, OwnerKind(run.owner_kind)).model_dump()
            await _finish(session, run, result, error=error, to=to, now=utc_now())


async def _finish(
    session: AsyncSession,
    run: Run,
    result: Result,
    *,
    now: datetime,
    error: dict[str, Any] | None = None,
    to: Collection[str] = (),
    **about: Any,
) -> None:
    """End a run and tell how, in the caller's transaction."""
    await _change(session, run, **runs.ended(result, now=now, error=error), **about)
    connection = await session.connection()
    await connection.run_sync(tell_run, run.id, to=to, now=now)


async def _change(session: AsyncSession, run: Run, **values: Any) -> None:
    if not await runs.change(session, run, **values):
        raise Overtaken
