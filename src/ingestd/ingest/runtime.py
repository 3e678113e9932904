"""What taking ingestions to their end needs in the process that runs the workflows, and how long it waits."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Engine, Row

from ingestd import tracing
from ingestd.domain.ingestion import Stage
from ingestd.domain.plan import Format, Plan
from ingestd.ingest.engine import JobEngine, Stopping
from ingestd.ingest.pool import Pool
from ingestd.ingest.work import Job, Place
from ingestd.keyring import Keyring, SealedKeys
from ingestd.metrics import Metrics
from ingestd.settings import WorkerSettings
from ingestd.store.load.sources import Source

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 30.0
"""Seconds between two tries while the database, a disk or a worker fails; doubled each time, with jitter."""

LOOK_SECONDS: Final = 0.5
"""Seconds between two looks at which parts other replicas have applied; our own say so."""


@dataclass(kw_only=True)
class Runtime:
    """The database, the data-plane processes and where they find what they read, the keys, and the job engine."""

    sql: Engine
    pool: Pool
    place: Place
    keyring: Keyring
    jobs: JobEngine
    settings: WorkerSettings
    metrics: Metrics
    _stopping: threading.Event = field(default_factory=threading.Event)
    _settled: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """Let nobody wait any longer: who does raises Stopping."""
        self._stopping.set()
        self._settled.set()
        self.pool.close()

    def tries(self) -> Iterator[None]:
        """Go on at once, and after a pause each time again; raise Stopping where the process goes down meanwhile."""
        pause = FIRST_PAUSE
        while True:
            yield
            if self._stopping.wait(pause * random.uniform(0.5, 1)):  # noqa: S311 -- no secret
                raise Stopping
            pause = min(2 * pause, LONGEST_PAUSE)

    def tell_settled(self) -> None:
        """Say that a part has been applied here."""
        self._settled.set()

    def await_settled(self) -> None:
        """Wait until a part has been applied here, or may have been elsewhere."""
        self._settled.wait(LOOK_SECONDS)
        self._settled.clear()
        if self._stopping.is_set():
            raise Stopping

    def job(self, row: Row[Any]) -> Job:
        """An ingestion as a data-plane process needs it, from its row (`fencing.peek`)."""
        keys = self.keyring.open(row.account_id, SealedKeys(row.data_keys, row.index_key))
        plan = Plan.model_validate(row.plan)
        return Job(
            place=self.place,
            keys=keys.to_worker(),
            ingestion_id=row.id,
            account_id=row.account_id,
            seq=row.seq,
            fence=row.fence,
            plan=plan,
            source=Source(row.data_source_id, row.data_source_name, plan.mode) if row.data_source_id else None,
            delimiter=Format.CSV.delimiter if row.rows_of else plan.format.delimiter,  # an error file is CSV
            dry_run=row.dry_run,
            file_blob=row.blob,
            file_bytes=row.size_bytes,
            segment_id=row.segment_id,
            received_at=row.received_at,
            started_at=row.started_at,
        )

    @contextmanager
    def stage(self, job: Job, stage: Stage) -> Iterator[None]:
        """Measure and trace a stage."""
        with self.metrics.stage_seconds.labels(stage).time(), tracing.span(stage, ingestion=str(job.ingestion_id)):
            yield
