"""Partitions of segments: the values that their files have, named, disabled and removed (S11, S39 to S45)."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, SmallInteger, UniqueConstraint, delete, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, Session, mapped_column

from ingestd.domain.errors import Conflict
from ingestd.domain.segment import SegmentType
from ingestd.store.base import Base, Key
from ingestd.store.engine import new_id
from ingestd.store.owned import get_owned
from ingestd.store.segments import PackedMembers, Segment, SegmentMember, Snapshot


class Partition(Base):
    """One value of a segment: `value` as files have it, `name` as it is shown; `number` stands for it in the members.

    Nobody but who may write segments sees a disabled one, or its members.
    """

    __tablename__ = "partitions"
    __table_args__ = (
        UniqueConstraint("segment_id", "number", name="uq_partitions_number"),
        *(
            Index(f"uq_partitions_{name}", "segment_id", name, unique=True, postgresql_where=text("removed_at IS NULL"))
            for name in ("value", "name")
        ),
    )

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    segment_id: Mapped[UUID] = mapped_column(ForeignKey("segments.id"))
    number: Mapped[int] = mapped_column(SmallInteger)
    value: Mapped[str]
    name: Mapped[str]
    disabled: Mapped[bool]
    members: Mapped[int]
    created_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]

    def was_there(self, moment: datetime) -> bool:
        """Whether the segment had it at a moment; of one that went and came back it is not known when it was away."""
        return self.created_at <= moment and (self.removed_at is None or self.removed_at > moment)


async def of_segment(
    session: AsyncSession, segment: Segment, *, disabled_too: bool, removed_too: bool = False
) -> list[Partition]:
    """The partitions of a segment in the order of their first coming (S39 to S41)."""
    found = select(Partition).where(Partition.segment_id == segment.id)
    if not disabled_too:
        found = found.where(Partition.disabled.is_(False))
    if not removed_too:
        found = found.where(Partition.removed_at.is_(None))
    return list(await session.scalars(found.order_by(Partition.created_at, Partition.number)))


async def get(session: AsyncSession, segment: Segment, partition_id: UUID, *, disabled_too: bool = True) -> Partition:
    """One partition of a segment, or NotFound."""
    wanted = [Partition.segment_id == segment.id, Partition.removed_at.is_(None)]
    if not disabled_too:
        wanted.append(Partition.disabled.is_(False))
    return await get_owned(session, Partition, segment.account_id, partition_id, *wanted, called="partition")


def write(session: Session) -> None:
    """Write the partitions that were changed, or raise Conflict where two of a segment would have one name.

    An asynchronous session calls it by `run_sync`.
    """
    try:
        session.flush()
    except IntegrityError:
        raise Conflict("The segment has a partition with this name already.", code="partition_exists") from None


async def remove(session: AsyncSession, segment: Segment, partition: Partition, *, now: datetime) -> None:
    """Let the members of a partition leave, and the partition go; the caller holds the members.

    Of an SCD segment its row stays, for those who were in it.
    """
    there = (
        SegmentMember.segment == segment.number,
        SegmentMember.partition == partition.number,
        SegmentMember.valid_to.is_(None),
    )
    is_scd = segment.type == SegmentType.SCD
    end = update(SegmentMember).where(*there).values(valid_to=now) if is_scd else delete(SegmentMember).where(*there)
    await session.execute(end, execution_options={"synchronize_session": False})
    packed = PackedMembers.account_id == segment.account_id, PackedMembers.segment_id == segment.id
    await session.execute(delete(PackedMembers).where(*packed))
    left = partition.members
    segment.members -= left
    segment.behind = segment.id  # a filter finds them all anew
    if is_scd:
        partition.members, partition.removed_at = 0, now
    else:
        await session.delete(partition)
    if is_scd and left:
        change = Snapshot(id=new_id(), account_id=segment.account_id, segment_id=segment.id, taken_at=now)
        change.members, change.entered, change.left, change.moved = segment.members, 0, left, 0
        session.add(change)
    await session.flush()
