"""Who is in a segment, who was at a moment, and what changed between two (S5, S6, D40).

A moment is asked of SCD segments only; without one, what lasts is meant.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Row, Select, Uuid, bindparam, column, func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from ingestd.domain.segment import SegmentStatus
from ingestd.store.activity import ALL_AT_ONE_MOMENT, AT_A_TIME
from ingestd.store.page import Cut, Sorts
from ingestd.store.partitions import Partition
from ingestd.store.segments import MEMBERS_KEY, Segment, SegmentMember, Snapshot

SORTS: Final[Sorts] = {"id": (SegmentMember.hash,)}
CHANGES: Final[Sorts] = {"id": (column("hash", Uuid),)}
SNAPSHOTS: Final[Sorts] = {"taken_at": (Snapshot.taken_at, Snapshot.id)}


def _at(member: Any, moment: datetime | None) -> ColumnElement[bool]:
    lasting: ColumnElement[bool] = member.valid_to.is_(None)
    if moment is None:
        return lasting
    found: ColumnElement[bool] = (member.valid_from <= moment) & or_(lasting, member.valid_to > moment)
    return found


def _of(segment: Segment, numbers: Collection[int], moment: datetime | None) -> Select[SegmentMember]:
    return select(SegmentMember).where(
        SegmentMember.segment == segment.number,
        SegmentMember.partition.in_(numbers),
        _at(SegmentMember, moment),
    )


async def at_one_moment(session: AsyncSession) -> None:
    """Let all that is asked in this transaction be of one moment; nothing may have been asked in it yet.

    Who asks for the partitions and then for who is in them would miss everybody whom a refresh moves meanwhile.
    """
    for setting in ALL_AT_ONE_MOMENT:
        await session.execute(text(setting))


async def page(
    session: AsyncSession, segment: Segment, numbers: Collection[int], cut: Cut, *, moment: datetime | None
) -> Sequence[SegmentMember]:
    """Some of those who are, or were, in partitions of a segment, in the order of their hashes."""
    return (await session.scalars(cut.of(_of(segment, numbers, moment)))).all()


async def find(
    session: AsyncSession,
    segment: Segment,
    numbers: Collection[int],
    hashes: Collection[UUID],
    *,
    moment: datetime | None,
) -> dict[UUID, SegmentMember]:
    """Of some identifiers those who are, or were, in partitions of a segment, by hash."""
    found = await session.scalars(_of(segment, numbers, moment).where(SegmentMember.hash.in_(hashes)))
    return {member.hash: member for member in found}


async def export(
    session: AsyncSession, segment: Segment, numbers: Collection[int], *, moment: datetime | None
) -> AsyncIterator[Sequence[Row[int, str, int, datetime]]]:
    """All of them, in a transaction of one moment, a few at a time: kind, value, partition, valid_from."""
    statement = _of(segment, numbers, moment).with_only_columns(
        SegmentMember.kind, SegmentMember.value, SegmentMember.partition, SegmentMember.valid_from
    )
    found = await session.stream(statement.order_by(SegmentMember.hash), execution_options={"yield_per": AT_A_TIME})
    async for rows in found.partitions():
        yield rows


async def counts(session: AsyncSession, segment: Segment, moment: datetime) -> dict[int, int]:
    """How many were in each partition at a moment."""
    found = await session.execute(
        select(SegmentMember.partition, func.count())
        .where(SegmentMember.segment == segment.number, _at(SegmentMember, moment))
        .group_by(SegmentMember.partition)
    )
    return {number: count for number, count in found}  # noqa: C416 -- rows are no pairs for dict()


async def changes(
    session: AsyncSession,
    segment: Segment,
    numbers: Collection[int],
    cut: Cut,
    *,
    since: datetime,
    until: datetime,
) -> Sequence[Row[Any]]:
    """Some of those who were elsewhere at `until` than at `since`: hash, kind, value, and partitions `was` and `now`.

    A partition is null where they were in none of those asked for.
    """
    between = SegmentMember.valid_from.between(since, until) | SegmentMember.valid_to.between(since, until)
    # The segment comes along with each, where the planner does not see it as a constant (`store.filters`).
    mine = SegmentMember.segment == segment.number
    touched = select(SegmentMember.segment, SegmentMember.hash).where(mine, between).distinct().subquery()
    statement = select(touched.c.hash)
    sides = [aliased(SegmentMember), aliased(SegmentMember)]
    for side, moment in zip(sides, (since, until), strict=True):
        same = (side.segment == touched.c.segment) & (side.hash == touched.c.hash)
        statement = statement.outerjoin(side, same & side.partition.in_(numbers) & _at(side, moment))
    before, after = sides
    compared = (
        statement.add_columns(
            func.coalesce(after.kind, before.kind).label("kind"),
            func.coalesce(after.value, before.value).label("value"),
            before.partition.label("was"),
            after.partition.label("now"),
        )
        .where(before.partition.is_distinct_from(after.partition))
        .subquery()
    )
    return (await session.execute(cut.of(select(compared)))).all()


async def snapshots(session: AsyncSession, segment: Segment, cut: Cut) -> Sequence[Snapshot]:
    """Some of the snapshots of an SCD segment (S5)."""
    mine = (Snapshot.account_id == segment.account_id, Snapshot.segment_id == segment.id)
    return (await session.scalars(cut.of(select(Snapshot).where(*mine)))).all()


async def of_person(
    session: AsyncSession, account_id: UUID, hashes: Collection[UUID]
) -> Sequence[Row[Segment, Partition, datetime]]:
    """The memberships of a person, by the hashes of their identifiers, as services see them: segment, partition, since.

    Only active segments and partitions that are not disabled.
    """
    found = await session.execute(
        select(Segment, Partition, SegmentMember.valid_from)
        .join(SegmentMember, SegmentMember.segment == Segment.number)
        .join(Partition, (Partition.segment_id == Segment.id) & (Partition.number == SegmentMember.partition))
        .where(
            Segment.account_id == account_id,
            Segment.deleted_at.is_(None),
            Segment.status == SegmentStatus.ACTIVE,
            SegmentMember.hash.in_(hashes),
            SegmentMember.valid_to.is_(None),
            Partition.disabled.is_(False),
        )
        .order_by(Segment.id, Partition.number)
    )
    return found.all()


# Every segment's members are held, in order: a refresh may be adding who is erased just now.
_LOCK_ALL = text(
    f"SELECT pg_advisory_xact_lock({MEMBERS_KEY.format('id')})"  # noqa: S608 -- a constant of ours
    " FROM (SELECT id FROM segments WHERE account_id = :account AND deleted_at IS NULL ORDER BY id) AS all_of_them"
)

_FORGET = text("""
    WITH gone AS (
        DELETE FROM segment_members m USING segments s
        WHERE s.account_id = :account AND m.segment = s.number AND m.hash = ANY (:hashes)
        RETURNING s.id AS segment_id, m.hash, m.partition, m.valid_to
    ), unpacked AS (
        DELETE FROM packed_members m USING gone
        WHERE m.account_id = :account AND m.segment_id = gone.segment_id AND gone.hash BETWEEN m.first AND m.last
    ), counted AS (
        SELECT segment_id, partition, count(*) AS members FROM gone WHERE valid_to IS NULL GROUP BY 1, 2
    ), of_segment AS (
        UPDATE segments s SET members = s.members - c.members
        FROM (SELECT segment_id, CAST(sum(members) AS bigint) AS members FROM counted GROUP BY 1) c
        WHERE s.id = c.segment_id
    ), of_partition AS (
        UPDATE partitions p SET members = p.members - c.members
        FROM counted c WHERE p.segment_id = c.segment_id AND p.number = c.partition
    )
    SELECT count(*) FROM gone
""").bindparams(bindparam("account", type_=Uuid()), bindparam("hashes", type_=ARRAY(Uuid())))


async def forget(session: AsyncSession, account_id: UUID, hashes: Sequence[UUID]) -> int:
    """Remove identifiers from all segments of the account, and from what they were (P10); gives how many periods."""
    await session.execute(_LOCK_ALL, {"account": account_id})
    return int(await session.scalar(_FORGET, {"account": account_id, "hashes": list(hashes)}) or 0)
