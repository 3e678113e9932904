"""The job engine: DBOS, and nothing else knows it.

A workflow's id is the ingestion's id and its only argument; what it does is `flow.walk`. The queue `ingestions` is
partitioned by account, one at a time and by the account's sequence number; sealing what is stored of an account, and
computing a new filter segment, wait there for their turn, too. The queue `parts` spreads the parts of one file over all
replicas. The queue `fetches`, of runs, is out of the account's order, since a file gets its number when it is there
(D31); it is partitioned by connection, so that a slow server keeps only itself waiting.

Open-source DBOS does not notice that a remote process has died, so each engine keeps a heartbeat and hands the
workflows of silent ones back to their queues.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from dbos import (
    DBOS,
    DBOSClient,
    DBOSConfig,
    DBOSPortableJSONSerializer,
    EnqueueOptions,
)
from dbos._queue import queue_worker_thread  # private: the version is pinned to 3.4
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd import telemetry
from ingestd.domain.errors import IngestdError
from ingestd.ingest.polling import Polling
from ingestd.settings import WorkerSettings
from ingestd.store import fencing, replicas, wakeups

log = telemetry.logger(__name__)

APPLICATION: Final = "ingestd"
VERSION: Final = "1"
"""Fixed: a workflow that was begun by one release is finished by the next."""

INGESTIONS: Final = "ingestions"
PARTS: Final = "parts"
FETCHES: Final = "fetches"
POLL_SECONDS: Final = 0.1
PARTS_POLL_SECONDS: Final = 0.3
"""At least between two looks at a queue; `polling` has the rest. Of parts, some are always in hand."""

NOTIFIER_SECONDS: Final = 0.1
"""How often DBOS looks for messages between workflows; here are none, and by default it would every 10 milliseconds."""

RELISTEN_SECONDS: Final = 1.0
HEARTBEAT_SECONDS: Final = 5.0
SILENT_SECONDS: Final = 4 * HEARTBEAT_SECONDS
"""After so long without a heartbeat a replica is taken for dead."""

_ONE: Final = threading.Lock()
"""DBOS knows its workflows by process: a second engine would be handed the first one's."""

Subject = Callable[[UUID], None]
ApplyPart = Callable[[UUID, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflows:
    """What is to be done for an ingestion, a part of one, an account whose people are to be sealed, a filter, a run."""

    walk: Subject
    apply_part: ApplyPart
    seal: Subject
    filter: Subject
    fetch: Subject


class Stopping(BaseException):
    """The process is going down: the workflow stays open and is taken up again elsewhere or at the next start."""


def migrate(url: str) -> None:
    """Bring the engine's own tables (schema `dbos`) up to date."""
    logging.getLogger("dbos").setLevel(logging.WARNING)
    DBOS.migrate(url)


class JobEngine:
    """The engine of one process: enqueues for the doors and, once launched, runs workflows."""

    def __init__(self, url: str, sql: Engine, *, replica: str) -> None:
        self._url = url
        self._sql = sql
        self._replica = replica
        self._client = DBOSClient(
            system_database_url=url,
            serializer=DBOSPortableJSONSerializer(),
            application_name=APPLICATION,
            system_database_pool_size=2,
            lazy=True,
        )
        self._stopped = threading.Event()
        self._polls = {queue: Polling() for queue in (INGESTIONS, PARTS, FETCHES)}
        self._threads: list[threading.Thread] = []
        self._heart: threading.Thread | None = None
        self._beaten_at = 0.0

    async def enqueue(
        self, session: AsyncSession, *, ingestion_id: UUID, account_id: UUID, seq: int, again: bool = False
    ) -> None:
        """Queue an ingestion in the caller's transaction: it runs if, and only if, that commits.

        One that has left the queue without having ended comes `again`, as a workflow of another id.
        """
        options: EnqueueOptions = {
            "workflow_name": "ingest",
            "queue_name": INGESTIONS,
            "workflow_id": f"{ingestion_id}:{seq}" if again else str(ingestion_id),
            "queue_partition_key": str(account_id),
            "priority": seq,
            "app_version": VERSION,
        }
        await self._enqueue(session, options, ingestion_id)

    async def enqueue_fetch(self, session: AsyncSession, *, run_id: UUID, connection_id: UUID) -> None:
        """Queue a run's fetch in the caller's transaction; those of one connection run one after the other."""
        options: EnqueueOptions = {
            "workflow_name": "fetch",
            "queue_name": FETCHES,
            "workflow_id": str(run_id),
            "queue_partition_key": str(connection_id),
            "app_version": VERSION,
        }
        await self._enqueue(session, options, run_id)

    async def enqueue_sealing(self, session: AsyncSession, *, account_id: UUID, seq: int) -> None:
        """Queue the sealing of what is stored, in the caller's transaction, as number `seq` of the account's order."""
        await self._enqueue_turn(session, "seal", account_id, account_id=account_id, seq=seq)

    async def enqueue_filtering(self, session: AsyncSession, *, segment_id: UUID, account_id: UUID, seq: int) -> None:
        """Queue the computing of a filter segment's members in the same way."""
        await self._enqueue_turn(session, "filter", segment_id, account_id=account_id, seq=seq)

    async def _enqueue_turn(
        self, session: AsyncSession, name: str, subject: UUID, *, account_id: UUID, seq: int
    ) -> None:
        options: EnqueueOptions = {
            "workflow_name": name,
            "queue_name": INGESTIONS,
            "workflow_id": f"{subject}:{name}:{seq}",
            "queue_partition_key": str(account_id),
            "priority": seq,
            "app_version": VERSION,
        }
        await self._enqueue(session, options, subject)

    async def _enqueue(self, session: AsyncSession, options: EnqueueOptions, subject: UUID) -> None:
        connection = await session.connection()
        await connection.run_sync(lambda sync: self._client.enqueue_in_transaction(sync, options, str(subject)))
        await connection.run_sync(wakeups.tell, options["queue_name"])

    def launch(self, work: Workflows, settings: WorkerSettings, *, alone: bool) -> None:
        """Begin to run workflows; `alone` says that no other process can be using this database."""
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": self._url,
            "application_version": VERSION,
            "executor_id": self._replica,
            "serializer": DBOSPortableJSONSerializer(),
            "sys_db_pool_size": 10,
            "run_migrations": False,
            "notification_coalesce_sec": NOTIFIER_SECONDS,
            "log_level": "WARNING",
        }
        if not _ONE.acquire(blocking=False):
            raise IngestdError("Another engine runs in this process; there can be one.")
        self._beat(alone=alone)  # first: what this replica begins is found should it die at once
        dbos = DBOS(config=config)
        polls = self._polls
        DBOS.workflow(name="ingest")(_of_subject(work.walk, polls[INGESTIONS].hurry))
        DBOS.workflow(name="seal")(_of_subject(work.seal, polls[INGESTIONS].hurry))
        DBOS.workflow(name="filter")(_of_subject(work.filter, polls[INGESTIONS].hurry))
        DBOS.workflow(name="fetch")(_of_subject(work.fetch, polls[FETCHES].hurry))
        DBOS.workflow(name="apply_part")(_apply(work.apply_part, polls[PARTS].hurry))
        DBOS.listen_queues([])  # its own threads look always as often as while there is work
        DBOS.launch()
        files = DBOS.register_queue(
            INGESTIONS,
            partition_concurrency=1,
            worker_concurrency=settings.concurrent_ingestions,
            polling_interval_sec=POLL_SECONDS,
        )
        in_hand = 2 * settings.processes  # while one part is applied the next one waits here, not for the next look
        parts = DBOS.register_queue(PARTS, worker_concurrency=in_hand, polling_interval_sec=PARTS_POLL_SECONDS)
        fetches = DBOS.register_queue(
            FETCHES,
            partition_concurrency=1,
            worker_concurrency=settings.concurrent_fetches,
            polling_interval_sec=POLL_SECONDS,
        )
        for queue in (files, fetches, parts):
            self._run(queue_worker_thread, polls[queue.name], dbos, queue)
        self._run(self._listen)
        self._heart = self._run(self._live)

    def is_alive(self) -> bool:
        """Whether workflows run here and the others know it; false once they may take this replica for dead."""
        late = time.monotonic() - self._beaten_at > SILENT_SECONDS
        return self._heart is not None and self._heart.is_alive() and not late

    def fan_out(self, ingestion_id: UUID, folder: str, parts: Sequence[str]) -> None:
        """Queue the parts in a folder for all replicas; what is queued already stays as it is."""
        with self._sql.begin() as connection:
            for part in parts:
                options: EnqueueOptions = {
                    "workflow_name": "apply_part",
                    "queue_name": PARTS,
                    "workflow_id": f"{ingestion_id}:{folder}:{part}",
                    "app_version": VERSION,
                }
                self._client.enqueue_in_transaction(connection, options, str(ingestion_id), part)
            wakeups.tell(connection, PARTS)

    def forget_ended(self, before: datetime, *, at_most: int) -> int:
        """Forget workflows that ended before a time, whatever became of them; their number."""
        ended = self._client.list_workflows(
            completed_before=before.isoformat(), limit=at_most, load_input=False, load_output=False
        )
        self._client.delete_workflows([each.workflow_id for each in ended])
        return len(ended)

    def stop(self) -> None:
        """Stop running workflows; those still open go back to their queues at once, and count no crash (P6)."""
        for event in (self._stopped, *self._polls.values()):
            event.set()
        for thread in self._threads:
            thread.join()
        DBOS.destroy(destroy_registry=True)
        _ONE.release()
        try:
            self._hand_over(self._replica, orderly=True)
        except Exception as fault:  # then the others, or the next start, find that we have gone silent
            log.warning("hand_over_failed", exc_info=fault)

    def close(self) -> None:
        """Give back the connections for enqueuing."""
        self._client.destroy()

    def _run(self, function: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=function, args=args, name=f"engine-{function.__name__}", daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread

    def _listen(self) -> None:
        """Look for work whenever a transaction that queues some commits."""
        while not self._stopped.is_set():
            try:
                for queue in wakeups.listen(self._url, self._stopped):
                    for polling in [self._polls[queue]] if queue else self._polls.values():
                        polling.hurry()
            except Exception as fault:  # the database will be back; until then we look now and then
                log.warning("engine_not_listening", exc_info=fault)
                self._stopped.wait(RELISTEN_SECONDS)

    def _live(self) -> None:
        while not self._stopped.wait(HEARTBEAT_SECONDS):
            try:
                self._beat(alone=False)
            except Exception as fault:  # the database will be back, and must find us alive
                log.warning("heartbeat_failed", exc_info=fault)

    def _beat(self, *, alone: bool) -> None:
        """Say that this replica lives, and take over from those that have gone silent."""
        with self._sql.begin() as connection:
            replicas.beat(connection, self._replica)
        self._beaten_at = time.monotonic()
        after = 0 if alone else SILENT_SECONDS
        with self._sql.begin() as connection:
            replicas.expect(connection, replicas.at_work(connection))
            silent = replicas.silent(connection, self._replica, after=after)
        for replica in silent:
            self._hand_over(replica, after=after)

    def _hand_over(self, replica: str, *, after: float = 0, orderly: bool = False) -> None:
        """Give the open workflows of a replica, silent for so long, back to their queues; one process does it.

        Unless it stopped in an `orderly` way, their ingestions count a crash (P6), before any part can crash again. One
        that stops may have been taken for dead, and have taken work since.
        """
        with self._sql.begin() as connection:
            if not (replicas.bury(connection, replica, after=after) or orderly):
                return
            left = self._client.list_workflows(status="PENDING", executor_id=replica, load_input=False)
            crashed = {_ingestion_of(each.workflow_id) for each in left if each.queue_name != FETCHES}
            if crashed and not orderly:
                fencing.count_crash(connection, crashed)
            for queue in (INGESTIONS, PARTS, FETCHES):
                ids = [workflow.workflow_id for workflow in left if workflow.queue_name == queue]
                if ids:
                    self._client.resume_workflows(ids, queue_name=queue)
                    wakeups.tell(connection, queue)


def _ingestion_of(workflow_id: str) -> UUID:
    """The ingestion of a workflow of `ingestions` and `parts`; of any other an id that no ingestion has."""
    return UUID(workflow_id.partition(":")[0])


def _of_subject(walk: Subject, hurry: Callable[[], None]) -> Callable[[str], None]:
    def work(subject: str) -> None:
        try:
            walk(UUID(subject))
        finally:
            hurry()  # the account's next ingestion, or the connection's next fetch, may begin

    return work


def _apply(apply_part: ApplyPart, hurry: Callable[[], None]) -> Callable[[str, str], None]:
    def apply(ingestion_id: str, part: str) -> None:
        try:
            apply_part(UUID(ingestion_id), part)
        finally:
            hurry()

    return apply
