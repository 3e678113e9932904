"""Segments, who is or was in them, and the snapshots (S1 to S16, S38 to S45, D40).

A member is an identifier, by its hash as `store.profiles.identifier_hash` has it, so a profile's memberships are found
through its identifiers, whoever is merged into it. A membership is a half-open period [valid_from, valid_to),
`valid_to` null while it lasts; of a Non-SCD segment only those that last are kept. Members know their segment by its
short number, not by account and id: there are very many of them, and a refresh looks all over their key
(docs/decisions/0014).

Whoever writes members holds the segment's lock (`LOCK_MEMBERS`) to the end of the transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Connection,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Row,
    Select,
    SmallInteger,
    Uuid,
    delete,
    func,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, Session, mapped_column

from ingestd.domain import ids
from ingestd.domain.errors import Conflict
from ingestd.domain.ids import Prefix
from ingestd.domain.notice import ToldSegment
from ingestd.domain.segment import Method, SegmentStatus, SegmentType, UploadType
from ingestd.store.base import Base, Key
from ingestd.store.owned import get_owned
from ingestd.store.page import Cut, Sorts

MEMBERS_KEY: Final = "hashtextextended(CAST({} AS text), 40)"
"""The key of the lock of a segment's members, made of its id; whoever writes them holds it."""
LOCK_MEMBERS: Final = f"SELECT pg_advisory_xact_lock({MEMBERS_KEY.format('%(segment)s')})"
"""As the loads say it; the driver's own way to name a parameter."""
HOLD_MEMBERS: Final = text(f"SELECT pg_advisory_xact_lock({MEMBERS_KEY.format(':segment')})")


class Segment(Base):
    """A segment; `name` is unique among those of its account that are not deleted. `number` stands for it in members.

    `condition` is that of a filter segment, sealed (`ingest.filters`). `draft` holds the edits not published yet
    (`domain.segment.Draft`). `members` counts those who are in it, also in partitions that are disabled. `webhook_ids`
    are told of its files (S136). `behind` is set while the members of a filter segment may not be who fits: to what was
    the first to begin since they were found. `refreshed_at` is when the last refresh became visible, `refreshed_as` its
    upload type, `data_as_of` what the file's server said of that file's age (D53).
    """

    __tablename__ = "segments"
    __table_args__ = (
        Index("uq_segments_name", "account_id", "name", unique=True, postgresql_where=text("deleted_at IS NULL")),
        Index("ix_segments_account_id_id", "account_id", "id", postgresql_where=text("deleted_at IS NULL")),
    )

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    number: Mapped[int] = mapped_column(Identity(always=True), unique=True)
    name: Mapped[str]
    description: Mapped[str]
    type: Mapped[str]
    method: Mapped[str]
    upload_type: Mapped[str]
    status: Mapped[str]
    draft: Mapped[dict[str, Any] | None]
    condition: Mapped[bytes | None] = mapped_column(LargeBinary)
    members: Mapped[int]
    webhook_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid), server_default="{}")
    behind: Mapped[UUID | None]
    refreshed_at: Mapped[datetime | None]
    refreshed_as: Mapped[str | None]
    data_as_of: Mapped[datetime | None]
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]

    @property
    def is_scheduled(self) -> bool:
        """Whether its schedule refreshes it now."""
        return self.upload_type == UploadType.SCHEDULED and SegmentStatus(self.status).takes_files


class SegmentMember(Base):
    """That an identifier (`kind`, `value`; `hash` of both) is or was in a partition of a segment, for a period.

    `segment` and `partition` are the numbers of both. Columns stand in an order that needs no bytes between them.
    """

    __tablename__ = "segment_members"
    __table_args__ = (PrimaryKeyConstraint("segment", "hash", "valid_from"),)

    segment: Mapped[int]
    valid_from: Mapped[datetime]
    valid_to: Mapped[datetime | None]
    hash: Mapped[UUID]
    kind: Mapped[int] = mapped_column(SmallInteger)
    partition: Mapped[int] = mapped_column(SmallInteger)
    value: Mapped[str]


class PackedMembers(Base):
    """The lasting members of a segment in a range of hashes, as `store.load.present` packs them, with later changes.

    Whoever changes members but a refresh removes those of the ranges that it changes.
    """

    __tablename__ = "packed_members"

    account_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    segment_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    first: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    last: Mapped[UUID]
    content: Mapped[bytes] = mapped_column(LargeBinary)
    changes: Mapped[bytes] = mapped_column(LargeBinary)


class Snapshot(Base):
    """A refresh of an SCD segment that changed something: when it became visible, and what it changed (S5)."""

    __tablename__ = "segment_snapshots"
    __table_args__ = (Index("ix_segment_snapshots_segment_id_taken_at", "account_id", "segment_id", "taken_at", "id"),)

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    segment_id: Mapped[UUID] = mapped_column(ForeignKey("segments.id"), index=True)
    ingestion_id: Mapped[UUID | None] = mapped_column(ForeignKey("ingestions.id"), index=True)
    taken_at: Mapped[datetime]
    members: Mapped[int]
    entered: Mapped[int]
    left: Mapped[int]
    moved: Mapped[int]


SORTS: Final[Sorts] = {"created_at": (Segment.id,), "name": (Segment.name, Segment.id)}


def add(session: Session, segment: Segment) -> Segment:
    """Keep a segment, new or changed, or raise Conflict where the account has one of its name already.

    An asynchronous session calls it by `run_sync`.
    """
    session.add(segment)
    try:
        session.flush()
    except IntegrityError:
        raise Conflict("The account has a segment with this name already.", code="segment_exists") from None
    return segment


_TAKE_BACK = text("""
    UPDATE segments s SET deleted_at = :now FROM ingestions maker
    WHERE s.id = :id AND s.status = 'in_progress' AND s.refreshed_at IS NULL AND s.deleted_at IS NULL
      AND s.upload_type = 'manual' AND s.draft IS NULL
      AND NOT EXISTS (SELECT FROM schedules WHERE owner_id = s.id)
      AND maker.segment_id = s.id AND maker.created_at = s.created_at
      AND NOT EXISTS (
        SELECT FROM ingestions i WHERE i.segment_id = s.id AND i.status IN ('scheduled', 'in_progress')
      )
""")


def take_back(connection: Connection, segment_id: UUID, *, now: datetime) -> bool:
    """Delete a segment that was made with an ingestion, at one moment, and that nothing has filled or will.

    False where it stays: also one that somebody has given a schedule or edits since.
    """
    connection.execute(select(Segment.id).where(Segment.id == segment_id).with_for_update())  # then look who joined it
    taken = connection.execute(_TAKE_BACK, {"id": segment_id, "now": now})
    return taken.rowcount > 0


def bring_back(session: Session, segment_id: UUID, *, now: datetime) -> None:
    """Make a segment that was taken back anew, or raise Conflict as `add` does; any other stays as it is.

    An asynchronous session calls it by `run_sync`.
    """
    segment = session.get_one(Segment, segment_id)
    if segment.deleted_at is not None and segment.status == SegmentStatus.IN_PROGRESS:  # nobody else deletes such a one
        segment.deleted_at, segment.created_at = None, now
        add(session, segment)


def of_id(segment_id: UUID) -> Select[Any]:
    """The statement that gives a segment's row, for either kind of connection."""
    return select(Segment.__table__).where(Segment.id == segment_id)


def told(segment: Row[Any]) -> dict[str, Any]:
    """The segment as notices carry it, from its row."""
    return ToldSegment(
        id=ids.show(Prefix.SEGMENT, segment.id),
        name=segment.name,
        status=SegmentStatus(segment.status),
        members=segment.members,
        refreshed_at=segment.refreshed_at,
    ).model_dump(mode="json")


def deactivate(connection: Connection, segment_id: UUID) -> bool:
    """Take a segment out of use; False where it is not in use."""
    in_use = Segment.deleted_at.is_(None) & Segment.status.in_([each for each in SegmentStatus if each.takes_files])
    ended = update(Segment).where(Segment.id == segment_id, in_use).values(status=SegmentStatus.INACTIVE)
    return connection.execute(ended).rowcount > 0


async def note_unchanged(session: AsyncSession, account_id: UUID, segment_id: UUID, *, data_as_of: datetime) -> None:
    """Keep that the newest file brings nothing new: what waited for a refresh is active without one (S44)."""
    segment = await get(session, account_id, segment_id, lock=True)
    if segment.refreshed_at is not None:
        segment.status, segment.data_as_of = SegmentStatus(segment.status).refreshed(), data_as_of
        segment.refreshed_as = segment.upload_type


async def get(
    session: AsyncSession, account_id: UUID, segment_id: UUID, *, lock: bool = False, only_active: bool = False
) -> Segment:
    """One segment, held by this transaction if `lock`, or NotFound; `only_active` for a service that uses it (S13)."""
    wanted = [Segment.deleted_at.is_(None), *([Segment.status == SegmentStatus.ACTIVE] if only_active else [])]
    return await get_owned(session, Segment, account_id, segment_id, *wanted, called="segment", lock=lock)


async def page(  # noqa: PLR0913 -- the filters
    session: AsyncSession,
    account_id: UUID,
    cut: Cut,
    *,
    statuses: Sequence[SegmentStatus],
    types: Sequence[SegmentType],
    methods: Sequence[Method],
    words: str | None,
) -> list[Segment]:
    """The segments of an account that the filters let through; `words` stand in the name or the description."""
    found = select(Segment).where(Segment.account_id == account_id, Segment.deleted_at.is_(None))
    for column, wanted in ((Segment.status, statuses), (Segment.type, types), (Segment.method, methods)):
        if wanted:
            found = found.where(column.in_(wanted))
    if words is not None:
        pattern = f"%{_literal(words)}%"
        found = found.where(Segment.name.ilike(pattern, escape="\\") | Segment.description.ilike(pattern, escape="\\"))
    return list(await session.scalars(cut.of(found)))


def _literal(words: str) -> str:
    return words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


async def lock_members(session: AsyncSession, segment_id: UUID) -> datetime:
    """Hold a segment's members for the rest of this transaction, before its row is held; gives the moment of then.

    So a moment is never before one that another writer has written.
    """
    await session.execute(HOLD_MEMBERS, {"segment": str(segment_id)})
    return (await session.scalars(select(func.clock_timestamp(type_=DateTime(timezone=True))))).one()


async def remove(session: AsyncSession, segment: Segment, *, now: datetime) -> None:
    """Delete a segment; nobody sees it or its members any more, who go later (`remove_left`).

    Its row stays for the ingestions that name it. The caller holds its members.
    """
    for table in (PackedMembers, Snapshot):
        await session.execute(
            delete(table).where(table.account_id == segment.account_id, table.segment_id == segment.id)
        )
    segment.deleted_at = now
    await session.flush()


_LEFT = text("""
    SELECT s.number FROM segments s CROSS JOIN LATERAL (
        SELECT FROM segment_members m WHERE m.segment = s.number LIMIT 1
    ) one WHERE s.deleted_at IS NOT NULL LIMIT 1
""")
_REMOVE_LEFT = text("""
    DELETE FROM segment_members WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM segment_members WHERE segment = :number LIMIT :at_most FOR UPDATE SKIP LOCKED
    ))
""")


def remove_left(connection: Connection, *, at_most: int) -> int:
    """Remove some of the members of a segment that was deleted; how many that were."""
    number = connection.scalar(_LEFT)
    return connection.execute(_REMOVE_LEFT, {"number": number, "at_most": at_most}).rowcount if number else 0
