"""The only way in: bytes become a file, a submission becomes an ingestion.

A door (SFTP, HTTP, the clock) streams bytes into a blob and publishes it as a file; what is submitted is decided in one
transaction under the account's row lock, so that the order of an account is the order of its commits (D31).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.blobs.store import BlobInfo, BlobStore
from ingestd.domain.errors import Conflict
from ingestd.domain.ingestion import NO_PROGRESS, Counts, Stage, Status
from ingestd.domain.notice import NoticeType
from ingestd.domain.plan import RESTRICTED_EVENTS, Limits
from ingestd.domain.submission import Actor, Submission
from ingestd.ingest.engine import JobEngine
from ingestd.ingest.incoming import Incoming, Room
from ingestd.ingest.tell import tell, tell_received
from ingestd.keyring import AccountKeys, Keyring, SealedKeys
from ingestd.settings import DataSourceSettings, QuotaSettings, SegmentSettings
from ingestd.store import accounts, dump, ingestions
from ingestd.store.engine import Sessions, new_id, transaction
from ingestd.store.files import File, FileState, name_of
from ingestd.store.ingestions import Ingestion


@dataclass(frozen=True)
class Intake:
    """What every door needs to hand files in."""

    sessions: Sessions
    jobs: JobEngine
    blobs: BlobStore
    keyring: Keyring
    limits: Limits
    quota: QuotaSettings
    hold_above: float = SegmentSettings().hold_above
    source_file_bytes: int = DataSourceSettings().file_bytes
    manifest_grace: timedelta = timedelta(0)
    restricted_events: tuple[str, ...] = RESTRICTED_EVENTS
    _keys: dict[UUID, tuple[SealedKeys, AccountKeys]] = field(default_factory=dict, repr=False)

    async def keys(self, account_id: UUID, session: AsyncSession | None = None) -> AccountKeys:
        """The keys of an account, or NotFound where there is no such account; a transaction asks by itself.

        Would whoever holds a connection wait for a second one, as many as there are connections would wait for ever.
        They are opened once, and again when the account has other ones: after a rotation old ones open nothing new,
        and those of an account that was erased open nothing at all.
        """
        async with nullcontext(session) if session else self.sessions() as asking:
            account = await accounts.get(asking, account_id)
        return self.open_keys(account_id, SealedKeys(account.data_keys, account.index_key))

    def open_keys(self, account_id: UUID, sealed: SealedKeys) -> AccountKeys:
        """The keys of an account of which these are the sealed ones."""
        known, keys = self._keys.get(account_id, (None, None))
        if keys is None or known != sealed:
            keys = self.keyring.open(account_id, sealed)
            self._keys[account_id] = sealed, keys
        return keys

    @property
    def source_limits(self) -> Limits:
        """What the file of a data source may hold."""
        return self.limits.model_copy(update={"file_bytes": self.source_file_bytes})

    @cached_property
    def room(self) -> Room:
        """Where uploads take their room."""
        return Room(self.sessions, self.blobs, self.quota.stored_bytes)

    async def begin(self, account_id: UUID) -> Incoming:
        """Begin to receive a file of an account, for whatever door."""
        keys = await self.keys(account_id)
        return Incoming(account_id, self.blobs.create(f"files/{new_id().hex}", keys), self.room)

    def forget(self, blobs: Sequence[str]) -> None:
        """Remove soon what no row names any more, now that this is committed; the sweep does it where this fails."""
        self.room.later(self._remove(blobs))

    async def close(self) -> None:
        """Finish what uploads and files that are gone have left to do."""
        await self.room.close()

    async def _remove(self, blobs: Sequence[str]) -> None:
        async with transaction(self.sessions) as session:
            connection = await session.connection()
            if await connection.run_sync(dump.may_remove_blobs):
                await asyncio.to_thread(self.blobs.delete, blobs)


async def add_file(
    session: AsyncSession, incoming: Incoming, info: BlobInfo, *, name: str, actor: Actor, now: datetime
) -> File:
    """Write the row of a file whose blob is durable, and tell; Conflict where its account has no room for it (T42)."""
    file = File(
        id=new_id(),
        account_id=incoming.account_id,
        name=name,
        size_bytes=info.size,
        sha256=info.sha256,
        blob=info.name,
        state=FileState.AVAILABLE,
        uploaded_by=actor.shown(),
        received_at=now,
    )
    session.add(file)
    await session.flush()
    await incoming.settle(session, info)
    await tell_received(session, file)
    return file


async def submit(session: AsyncSession, intake: Intake, submission: Submission, *, now: datetime) -> Ingestion:
    """Write one ingestion with its number in the account's order and enqueue it, in the caller's transaction.

    Conflict where the account has as many open ones as it may have.
    """
    seq = await accounts.take_seq(session, submission.account_id)
    if await ingestions.open_count(session, submission.account_id, at_most=intake.quota.open_ingestions) is None:
        raise Conflict(
            f"{intake.quota.open_ingestions} ingestions of the account are still open. Try again when some have ended.",
            code="too_many_open_ingestions",
        )
    ingestion = new_ingestion(submission, now=now)
    ingestion.seq = seq
    session.add(ingestion)
    await session.flush()
    await intake.jobs.enqueue(session, ingestion_id=ingestion.id, account_id=submission.account_id, seq=seq)
    await tell(session, NoticeType.INGESTION_SCHEDULED, ingestion.id, now=now)
    return ingestion


def new_ingestion(submission: Submission, *, now: datetime) -> Ingestion:
    """The row of a submission, scheduled and without a number yet."""
    return Ingestion(
        id=new_id(),
        account_id=submission.account_id,
        seq=None,
        channel=submission.channel,
        target=submission.plan.target if submission.plan else None,
        mode=submission.plan.mode if submission.plan else "append",
        plan=submission.plan.model_dump(mode="json") if submission.plan else None,
        file_id=submission.file_id,
        file_name=name_of(submission.file_id),
        manifest_id=submission.manifest_id,
        manifest_name=submission.manifest_name,
        data_source_id=submission.data_source_id,
        dry_run=submission.dry_run,
        segment_id=submission.segment_id,
        uploaded_by=submission.uploaded_by.shown(),
        recipients=list(submission.recipients),
        webhook_ids=list(submission.webhook_ids),
        status=Status.SCHEDULED,
        stage=Stage.QUEUED,
        fence=0,
        attempts=0,
        progress=NO_PROGRESS.model_dump(),
        counts=Counts().model_dump(),
        warnings=list(submission.warnings),
        retry_of=submission.retry_of,
        rows_of=submission.rows_of,
        created_at=now,
    )
