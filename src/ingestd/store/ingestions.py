"""Ingestions: one row for each file on its way, and what the doors and the upkeep ask of it and do to it.

What only the process that works on one may do to it is in `store.fencing`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Connection,
    ForeignKey,
    Index,
    Text,
    UniqueConstraint,
    Uuid,
    bindparam,
    cast,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, aliased, mapped_column

from ingestd.domain.ingestion import BEFORE_APPLYING, NO_PROGRESS, Counts, Stage, Status
from ingestd.domain.plan import Mode, Target
from ingestd.store.base import Base, Key
from ingestd.store.files import File
from ingestd.store.owned import get_owned

LONG: Final = timedelta(hours=2)
"""How long processing may take before it counts as delayed, and then until it does so again (D29)."""


class Ingestion(Base):
    """One file's way through the service.

    `seq` is null where a manifest was refused before it got a number; `attempts` counts those that crashed; `checked`
    is what checking found (`ingest.work.Checked`), once it is whole. `rows_of` is the ingestion whose rejected rows
    this one reads in place of the file. `recipients` and `webhook_ids` are told what becomes of it; `delays` counts how
    often they were told that it takes long. `rehearsal` is what a dry run found (`ingest.units`), `held` why it
    waits to be confirmed. `manifest_name` is that of a manifest that was refused: a name that had been used before
    leads to no other row.
    """

    __tablename__ = "ingestions"
    __table_args__ = (
        UniqueConstraint("account_id", "seq"),
        Index("ix_ingestions_account_id_created_at_id", "account_id", "created_at", "id"),
        *(
            Index(f"ix_ingestions_account_id_{name}_created_at_id", "account_id", name, "created_at", "id")
            for name in ("status", "channel", "target", "segment_id")
        ),
        Index("ix_ingestions_data_source_id_created_at_id", "data_source_id", "created_at", "id"),
        Index("ix_ingestions_account_id_file_name_created_at_id", "account_id", "file_name", "created_at", "id"),
        Index("ix_ingestions_uploader", "account_id", text("(uploaded_by ->> 'id')"), "created_at", "id"),
        Index("ix_ingestions_error_files", "finished_at", postgresql_where=text("error_blob IS NOT NULL")),
        Index("ix_ingestions_open", "account_id", postgresql_where=text("status IN ('scheduled', 'in_progress')")),
    )

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    seq: Mapped[int | None]
    channel: Mapped[str]
    target: Mapped[str | None]
    mode: Mapped[str]
    plan: Mapped[dict[str, Any] | None]
    file_id: Mapped[UUID | None] = mapped_column(ForeignKey("files.id"), index=True)
    file_name: Mapped[str | None]
    manifest_id: Mapped[UUID | None] = mapped_column(ForeignKey("manifests.id"), index=True)
    manifest_name: Mapped[str | None]
    data_source_id: Mapped[UUID | None] = mapped_column(ForeignKey("data_sources.id"))
    dry_run: Mapped[bool]
    rehearsal: Mapped[dict[str, Any] | None]
    held: Mapped[dict[str, Any] | None]
    segment_id: Mapped[UUID | None] = mapped_column(ForeignKey("segments.id"), index=True)
    retry_of: Mapped[UUID | None] = mapped_column(ForeignKey("ingestions.id"), index=True)
    rows_of: Mapped[UUID | None] = mapped_column(ForeignKey("ingestions.id"), index=True)
    uploaded_by: Mapped[dict[str, Any]]
    recipients: Mapped[list[Any]]
    webhook_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid), server_default="{}")
    status: Mapped[str]
    stage: Mapped[str]
    fence: Mapped[int]
    attempts: Mapped[int]
    progress: Mapped[dict[str, Any]]
    counts: Mapped[dict[str, Any]]
    checked: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    warnings: Mapped[list[Any]]
    error_blob: Mapped[str | None]
    error_size_bytes: Mapped[int | None]
    rejects_blob: Mapped[str | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    delays: Mapped[int] = mapped_column(server_default="0")


IS_OPEN = text("status IN ('scheduled', 'in_progress')")
"""As the index `ix_ingestions_open` says it."""


async def open_count(session: AsyncSession, account_id: UUID, *, at_most: int) -> int | None:
    """How many ingestions of the account wait or run, or None where those are `at_most` or more."""
    found = select(Ingestion.id).where(Ingestion.account_id == account_id, IS_OPEN).limit(at_most)
    count = await session.scalar(select(func.count()).select_from(found.subquery())) or 0
    return count if count < at_most else None


async def get(session: AsyncSession, account_id: UUID, ingestion_id: UUID, *, lock: bool = False) -> Ingestion:
    """An ingestion of the account, if wanted held by this transaction, or NotFound."""
    return await get_owned(session, Ingestion, account_id, ingestion_id, called="ingestion", lock=lock)


async def find_of_manifest(session: AsyncSession, manifest_id: UUID) -> UUID | None:
    """The ingestion that a manifest became, or None; its retries have the same manifest and came later."""
    found: UUID | None = await session.scalar(
        select(Ingestion.id).where(Ingestion.manifest_id == manifest_id).order_by(Ingestion.id).limit(1)
    )
    return found


async def cancel(session: AsyncSession, ingestion_id: UUID, *, now: datetime) -> bool:
    """End an ingestion of which nothing has been applied yet; False where it is too late."""
    changed = await session.execute(
        update(Ingestion)
        .where(Ingestion.id == ingestion_id, IS_OPEN, Ingestion.stage.in_(BEFORE_APPLYING))
        .values(status=Status.CANCELLED, stage=Stage.DONE, finished_at=now)
        .returning(Ingestion.id)
    )
    return changed.first() is not None


async def open_of_segment(session: AsyncSession, segment_id: UUID) -> Sequence[UUID]:
    """The ingestions that wait or run to refresh a segment, in the account's order."""
    refreshing = (Ingestion.segment_id == segment_id, Ingestion.target == Target.SEGMENT, IS_OPEN)
    found = await session.scalars(select(Ingestion.id).where(*refreshing).order_by(Ingestion.seq))
    return found.all()


async def confirm(session: AsyncSession, ingestion_id: UUID, *, seq: int) -> bool:
    """Let an ingestion that is held begin anew, with another number and nothing to be held for; False for any other."""
    changed = await session.execute(
        update(Ingestion)
        .where(Ingestion.id == ingestion_id, IS_OPEN, Ingestion.stage == Stage.HELD)
        .values(
            seq=seq,
            status=Status.SCHEDULED,
            stage=Stage.QUEUED,
            plan=Ingestion.plan.op("||")(cast({"hold_above": None}, JSONB)),
            checked=None,
            attempts=0,
            delays=0,
            started_at=None,
            progress=NO_PROGRESS.model_dump(),
            counts=Counts().model_dump(),
        )
        .returning(Ingestion.id)
    )
    return changed.first() is not None


async def newer_open(session: AsyncSession, ingestion: Ingestion) -> bool:
    """Whether a newer file is on its way that will take the place of all that this one brings (docs/decisions/0010)."""
    newer = select(Ingestion.id).where(
        Ingestion.account_id == ingestion.account_id,
        IS_OPEN,
        Ingestion.created_at > ingestion.created_at,
        Ingestion.target == ingestion.target,
        func.coalesce(Ingestion.data_source_id, Ingestion.segment_id)
        == (ingestion.data_source_id or ingestion.segment_id),
        Ingestion.mode == Mode.REPLACE,
        Ingestion.dry_run.is_(False),
    )
    return await session.scalar(newer.limit(1)) is not None


def cancel_held(connection: Connection, before: datetime, *, now: datetime) -> list[UUID]:
    """End the ingestions that are held and were begun before a time."""
    held = (IS_OPEN, Ingestion.stage == Stage.HELD, Ingestion.started_at < before)
    ended = update(Ingestion).where(*held).values(status=Status.CANCELLED, stage=Stage.DONE, finished_at=now)
    return list(connection.scalars(ended.returning(Ingestion.id)))


SUPERSEDED: Final = "A newer file took its place while it waited to be confirmed."

_SUPERSEDE: Final = text("""
    UPDATE ingestions held SET status = 'cancelled', stage = 'done', finished_at = :now,
        warnings = held.warnings || jsonb_build_array(CAST(:why AS text))
    FROM ingestions newer
    WHERE newer.id = :id AND held.account_id = newer.account_id AND held.stage = 'held'
        AND held.status IN ('scheduled', 'in_progress') AND held.created_at < newer.created_at
        AND held.target = newer.target
        AND coalesce(held.data_source_id, held.segment_id) = coalesce(newer.data_source_id, newer.segment_id)
    RETURNING held.id
""")


def supersede_held(connection: Connection, ingestion_id: UUID, *, now: datetime) -> list[UUID]:
    """End what is held, and older than an ingestion of the same segment or data source that replaces all it brings."""
    return list(connection.scalars(_SUPERSEDE, {"id": ingestion_id, "why": SUPERSEDED, "now": now}))


async def last_of_source(session: AsyncSession, source_id: UUID) -> UUID | None:
    """The newest ingestion that changed a data source, or None."""
    found: UUID | None = await session.scalar(
        select(Ingestion.id)
        .where(Ingestion.data_source_id == source_id, Ingestion.status == Status.COMPLETED, ~Ingestion.dry_run)
        .order_by(Ingestion.seq.desc())
        .limit(1)
    )
    return found


async def rehearsal(session: AsyncSession, ingestion_id: UUID) -> dict[str, Any] | None:
    """What a dry run found (`ingest.units`), or None."""
    found: dict[str, Any] | None = await session.scalar(select(Ingestion.rehearsal).where(Ingestion.id == ingestion_id))
    return found


_HAS_ANY_OF: Final = text("""
    SELECT i.checked -> 'names' ?| :names OR i.checked -> 'unread' ?| (
        :names || ARRAY(
            SELECT normalize(pair ->> 'column') FROM data_sources s
                JOIN mappings m ON m.data_source_id = s.id, jsonb_array_elements(m.columns) AS pair
            WHERE s.account_id = i.account_id AND pair ->> 'attribute' = ANY (:names)
        )
    )
    FROM ingestions i WHERE i.id = :id
""").bindparams(bindparam("names", type_=ARRAY(Text)))


async def has_any_of(session: AsyncSession, ingestion_id: UUID, names: Collection[str]) -> bool:
    """Whether the file of an ingestion that was checked has a column for any of these attributes.

    One that was not read counts, too, where it is called like the attribute, or where any mapping of the account, an
    earlier or a later one, gives a column of that name to it: its cells stand in the error file all the same.
    """
    return bool(await session.scalar(_HAS_ANY_OF, {"id": ingestion_id, "names": list(names)}))


async def of_seqs(session: AsyncSession, account_id: UUID, seqs: Collection[int]) -> dict[int, Ingestion]:
    """The ingestions of some numbers in the account's order."""
    found = await session.scalars(select(Ingestion).where(Ingestion.account_id == account_id, Ingestion.seq.in_(seqs)))
    return {each.seq: each for each in found if each.seq is not None}


def link_to_reported(connection: Connection, ingestion_id: UUID, header: str) -> None:
    """Make an ingestion of a returned error file the retry of the one whose rows it brings back (S128).

    That is an earlier one with an error file of the same columns, for the same segment or data source: the one whose
    file the name still tells, for `x.errors.csv` that of `x.csv`, else the newest.
    """
    mine, earlier, my_file, file = aliased(Ingestion), aliased(Ingestion), aliased(File), aliased(File)
    named = func.lower(file.name) == func.regexp_replace(func.lower(my_file.name), r"\.errors\.csv$", ".csv")
    found = connection.scalar(
        select(earlier.id)
        .select_from(mine)
        .join(my_file, my_file.id == mine.file_id)
        .join(earlier, earlier.account_id == mine.account_id)
        .join(file, file.id == earlier.file_id)
        .where(
            mine.id == ingestion_id,
            mine.retry_of.is_(None),
            earlier.seq < mine.seq,
            earlier.target == mine.target,
            func.coalesce(earlier.data_source_id, earlier.segment_id).is_not_distinct_from(
                func.coalesce(mine.data_source_id, mine.segment_id)
            ),
            earlier.error_blob.is_not(None),
            earlier.checked["header"].astext == header,
        )
        .order_by(named.desc(), earlier.seq.desc())
        .limit(1)
    )
    if found is not None:
        connection.execute(update(Ingestion).where(Ingestion.id == ingestion_id).values(retry_of=found))


# `status` stands there twice: once as the index of open ingestions says it.
_DELAYED = text("""
    UPDATE ingestions i SET delays = late.periods
    FROM (
        SELECT id, floor(extract(epoch FROM now() - started_at) / :seconds)::bigint AS periods
        FROM ingestions
        WHERE status IN ('scheduled', 'in_progress') AND status = 'in_progress' AND stage <> 'held'
          AND started_at <= now() - make_interval(secs => :seconds)
        FOR UPDATE SKIP LOCKED
    ) late
    WHERE i.id = late.id AND late.periods > i.delays
    RETURNING i.id
""").bindparams(seconds=LONG.total_seconds())


async def delayed(session: AsyncSession) -> list[UUID]:
    """The ingestions that have been processed for another `LONG` since this was last asked; noted in their rows."""
    return list(await session.scalars(_DELAYED))


_EXPIRE_ERROR_FILES = text("""
    WITH old AS MATERIALIZED (
        SELECT id, error_blob, rejects_blob FROM ingestions i
        WHERE error_blob IS NOT NULL AND finished_at < :before AND NOT EXISTS (
            SELECT FROM ingestions r WHERE r.rows_of = i.id AND r.status IN ('scheduled', 'in_progress')
        )
        LIMIT :at_most FOR UPDATE SKIP LOCKED
    ), forgotten AS (
        UPDATE ingestions i SET error_blob = NULL, error_size_bytes = NULL, rejects_blob = NULL
        FROM old WHERE i.id = old.id
    )
    SELECT error_blob, rejects_blob FROM old
""")


def expire_error_files(connection: Connection, before: datetime, *, at_most: int) -> list[str]:
    """Forget the error files of ingestions that ended before a time, unless their rows are just tried again."""
    old = connection.execute(_EXPIRE_ERROR_FILES, {"before": before, "at_most": at_most}).all()
    return [blob for row in old for blob in row if blob is not None]
