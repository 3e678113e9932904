"""Upkeep: what has to be done from time to time, by any process and by several at once without harm.

Files, manifests, error files, history and audit entries expire (P10), what deleted accounts and segments have left and
blobs that no row names are removed, what dead uploads had reserved is given back, and the events of the months to come
get their partitions. `docs/operations.md` lists all that is kept, and how long.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import Final
from uuid import UUID

from sqlalchemy import Engine

from ingestd import telemetry
from ingestd.blobs import BlobStore, Stored
from ingestd.domain.notice import NoticeType
from ingestd.ingest.engine import JobEngine
from ingestd.ingest.tell import tell_ingestion
from ingestd.settings import RetentionSettings
from ingestd.store import (
    audit,
    dump,
    endings,
    events,
    files,
    idempotency_keys,
    ingestions,
    ledger,
    manifests,
    messages,
    notices,
    orphans,
    runs,
    segments,
    source_changes,
    usage,
)
from ingestd.store.engine import id_at, utc_now
from ingestd.store.expiry import Expire

EVERY_SECONDS: Final = 3600.0
BATCH: Final = 1000
"""Rows of one transaction, and blobs of one question to the database."""

JOBS_KEPT: Final = timedelta(days=1)
"""How long workflows that have ended are kept: nothing reads them but who looks for a fault."""

log = telemetry.logger(__name__)


@dataclass(frozen=True)
class Upkeep:
    """The chores, over one database, one blob store and the job engine."""

    sql: Engine
    blobs: BlobStore
    jobs: JobEngine
    retention: RetentionSettings
    stopped: Callable[[], bool] = lambda: False
    """Asked between two batches: a stop waits for one, not for all."""

    async def run(self, stop: asyncio.Event) -> None:
        """Do the chores now and then every hour, until `stop` is set."""
        chores = replace(self, stopped=stop.is_set)
        while not stop.is_set():
            await asyncio.to_thread(chores.once, utc_now())
            pause = EVERY_SECONDS * random.uniform(0.9, 1.1)  # noqa: S311 -- no secret: replicas take turns
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await stop.wait()

    def once(self, now: datetime) -> None:
        """Do every chore; one that fails does not keep the others, and has its next turn in an hour."""
        for chore in (
            *(self.add_months, self.expire_files, self.expire_manifests, self.expire_drafts),
            *(self.expire_error_files, self.expire_mails, self.expire_audit),
            *(self.expire_notices, self.expire_runs, self.expire_ledger, self.expire_changes),
            *(self.expire_answers, self.expire_jobs),
            *(self.cancel_held, self.end_reservations, self.remove_accounts, self.sweep),
            self.remove_members,
        ):
            if self.stopped():
                return
            try:
                done = chore(now)
            except Exception as fault:
                log.warning("chore_failed", chore=chore.__name__, exc_info=fault)
            else:
                if done:
                    log.info("chore_done", chore=chore.__name__, count=done)

    def add_months(self, now: datetime) -> int:
        """Make the partitions of the months to come."""
        with self.sql.begin() as connection:
            return events.add_months(connection, now)

    def expire_files(self, now: datetime) -> int:
        """Forget the bytes of old files that no open ingestion needs; their rows stay."""
        return self._forget(files.expire, now - timedelta(days=self.retention.file_days))

    def expire_manifests(self, now: datetime) -> int:
        """Forget the texts of old manifests, which hold addresses; their names and hashes stay."""
        return self._forget(manifests.expire, now - timedelta(days=self.retention.file_days))

    def expire_drafts(self, now: datetime) -> int:
        """Delete the drafts of manifests that nobody has submitted in all that time."""
        return self._forget(manifests.expire_drafts, now - timedelta(days=self.retention.history_days))

    def expire_error_files(self, now: datetime) -> int:
        """Forget old error files."""
        return self._forget(ingestions.expire_error_files, now - timedelta(days=self.retention.error_file_days))

    def expire_mails(self, now: datetime) -> int:
        """Forget old mails that were kept: they hold error files."""
        return self._forget(messages.expire, now - timedelta(days=self.retention.error_file_days))

    def expire_audit(self, _: datetime) -> int:
        """Forget the audit entries that are old enough."""
        return self._repeat(audit.expire)

    def expire_notices(self, now: datetime) -> int:
        """Forget what the world was told long ago, with its deliveries and messages."""
        return self._repeat(notices.expire, self._history(now))

    def expire_runs(self, now: datetime) -> int:
        """Forget the runs of long ago; what came of them stands in their files and ingestions."""
        return self._repeat(runs.expire, self._history(now))

    def expire_ledger(self, now: datetime) -> int:
        """Forget in which parts old ingestions were applied."""
        return self._repeat(ledger.expire, self._history(now))

    def expire_changes(self, now: datetime) -> int:
        """Forget whom old ingestions changed in their data sources."""
        return self._repeat(source_changes.expire, self._history(now))

    def expire_answers(self, now: datetime) -> int:
        """Forget the answers to requests that would no longer be answered again."""
        return self._repeat(idempotency_keys.expire, now - idempotency_keys.KEPT)

    def expire_jobs(self, now: datetime) -> int:
        """Forget the workflows that have ended."""
        done = 0
        while not self.stopped() and (ended := self.jobs.forget_ended(now - JOBS_KEPT, at_most=BATCH)):
            done += ended
        return done

    def remove_members(self, _: datetime) -> int:
        """Remove the members of segments that were deleted."""
        return self._repeat(segments.remove_left)

    def remove_accounts(self, _: datetime) -> int:
        """Remove what deleted accounts have left; the sweep removes their blobs, which nobody can read any more."""
        return endings.remove_all(self.sql, self.stopped)

    def cancel_held(self, now: datetime) -> int:
        """Cancel refreshes and replaces that wait to be confirmed, and that nobody did."""
        with self.sql.begin() as connection:
            cancelled = ingestions.cancel_held(connection, now - timedelta(days=self.retention.held_days), now=now)
            for ingestion_id in cancelled:
                tell_ingestion(connection, ingestion_id, NoticeType.INGESTION_CANCELLED, now=now)
        return len(cancelled)

    def end_reservations(self, now: datetime) -> int:
        """Give back what uploads had reserved whose process died."""
        with self.sql.begin() as connection:
            return usage.end_stale(connection, now - self._safe_age)

    def sweep(self, now: datetime) -> int:
        """Remove blobs that no row names; one younger than the safe age may be about to get its row."""
        removed = 0
        for folder in (orphans.UPLOADED, orphans.MAILED, *orphans.WORKED):
            old = (blob.name for blob in self._listed(folder) if blob.modified < now - self._safe_age)
            while not self.stopped() and (names := list(islice(old, BATCH))):
                with self.sql.begin() as connection:
                    if not dump.may_remove_blobs(connection):
                        return removed
                    left = orphans.without_row(connection, folder, names)
                    self.blobs.delete(left)
                removed += len(left)
        return removed

    def _listed(self, folder: str) -> Iterator[Stored]:
        return takewhile(lambda _: not self.stopped(), self.blobs.list(folder))

    @property
    def _safe_age(self) -> timedelta:
        return timedelta(hours=self.retention.orphan_hours)

    def _history(self, now: datetime) -> UUID:
        """The first id whose history is kept: ids are in the order of time."""
        return id_at(now - timedelta(days=self.retention.history_days))

    def _repeat(self, some: Callable[..., int], *which: object) -> int:
        """Do something batch by batch, each a transaction, until there is nothing left."""
        done = 0
        while not self.stopped():
            with self.sql.begin() as connection:
                more = some(connection, *which, at_most=BATCH)
            if not more:
                break
            done += more
        return done

    def _forget(self, expire: Expire, before: datetime) -> int:
        """Expire batch by batch: first the rows, then their blobs."""
        forgotten = 0
        while not self.stopped():
            with self.sql.begin() as connection:
                blobs = expire(connection, before, at_most=BATCH)
            if not blobs:
                break
            with self.sql.begin() as connection:
                if dump.may_remove_blobs(connection):  # otherwise the sweep removes them, as it does should we die here
                    self.blobs.delete(blobs)
            forgotten += len(blobs)
        return forgotten
