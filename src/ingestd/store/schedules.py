"""Schedules: which file keeps a segment or a data source fresh, and when it is due next (D51).

A due time is a row: whoever finds it passed, holds the row, makes the run and moves it on in one transaction. Writers
hold the account's row first, since that has the calendar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import (
    ForeignKey,
    Index,
    Row,
    UniqueConstraint,
    Uuid,
    any_,
    delete,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.domain.errors import Conflict, NotFound
from ingestd.domain.schedule import Calendar, Frequency, Slot, Timetable
from ingestd.domain.segment import SegmentStatus
from ingestd.store.accounts import Account
from ingestd.store.base import Base, Key
from ingestd.store.data_sources import DataSource
from ingestd.store.page import Cut, Sorts
from ingestd.store.segments import Segment


class Schedule(Base):
    """The schedule of a segment or a data source.

    `path` is below the connection's root folder; `mode` says whether a file is added or replaces (D16). `since` is when
    it was made, changed or resumed, `last_slot` the last day that was dealt with, `next_due_at` the instant of the
    next: null where it is over, paused, or its owner is not `active`. `recipients` are ids of those who are told of
    failures (S36).
    """

    __tablename__ = "schedules"
    __table_args__ = (
        UniqueConstraint("owner_id"),
        Index("ix_schedules_next_due_at", "next_due_at", postgresql_where=text("next_due_at IS NOT NULL")),
    )

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), index=True)
    owner_kind: Mapped[str]
    owner_id: Mapped[UUID]
    connection_id: Mapped[UUID] = mapped_column(index=True)
    path: Mapped[str]
    mode: Mapped[str]
    frequency: Mapped[str]
    valid_from: Mapped[date]
    valid_to: Mapped[date]
    recipients: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    active: Mapped[bool]
    paused_at: Mapped[datetime | None]
    pause_reason: Mapped[str | None]
    since: Mapped[datetime]
    last_slot: Mapped[date | None]
    next_due_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]

    @property
    def runs(self) -> bool:
        """Whether it is neither paused nor that of something inactive."""
        return self.active and self.paused_at is None

    def timetable(self, account: Account) -> Timetable:
        """When it is due."""
        return Timetable(Frequency(self.frequency), self.valid_from, self.valid_to, self.since, calendar_of(account))

    def next_slot(self, account: Account) -> Slot | None:
        """The next day that was not dealt with, whether it runs or not; None where it is over."""
        return self.timetable(account).next(after=self.last_slot)

    def plan_next(self, account: Account) -> None:
        """Set when it is due next; after every change of it, of its account's calendar, and of what was dealt with."""
        slot = self.next_slot(account) if self.runs else None
        self.next_due_at = slot.at if slot else None


SORTS: Final[Sorts] = {"created_at": (Schedule.id,)}


def calendar_of(account: Account) -> Calendar:
    """The account's time."""
    return Calendar(ZoneInfo(account.time_zone), account.sync_time)


async def get(session: AsyncSession, account_id: UUID, owner_id: UUID, *, lock: bool = False) -> Schedule:
    """The schedule of a segment or a data source, if wanted held by this transaction, or NotFound."""
    found = await find(session, account_id, owner_id, lock=lock)
    if found is None:
        raise NotFound("There is no such schedule.")
    return found


async def find(session: AsyncSession, account_id: UUID, owner_id: UUID, *, lock: bool = False) -> Schedule | None:
    """The schedule of a segment or a data source, if wanted held by this transaction, or None."""
    statement = select(Schedule).where(Schedule.account_id == account_id, Schedule.owner_id == owner_id)
    found: Schedule | None = await session.scalar(statement.with_for_update() if lock else statement)
    return found


async def page(
    session: AsyncSession,
    account_id: UUID,
    cut: Cut,
    *,
    connection_id: UUID | None,
    paused: bool | None,
    only_active: bool,
) -> Sequence[Row[Schedule, str, str]]:
    """Schedules of the account, each with the name of its segment or data source; None is no matter.

    With `only_active` without those of segments that are hidden from services (S13).
    """
    conditions = [Schedule.account_id == account_id]
    if connection_id is not None:
        conditions.append(Schedule.connection_id == connection_id)
    if paused is not None:
        conditions.append(Schedule.paused_at.is_not(None) if paused else Schedule.paused_at.is_(None))
    if only_active:
        conditions.append(or_(Segment.id.is_(None), Segment.status == SegmentStatus.ACTIVE))
    wanted = (
        select(Schedule, Segment.name.label("segment_name"), DataSource.name.label("data_source_name"))
        .outerjoin(Segment, Segment.id == Schedule.owner_id)
        .outerjoin(DataSource, DataSource.id == Schedule.owner_id)
        .where(*conditions)
    )
    return (await session.execute(cut.of(wanted))).all()


async def due(session: AsyncSession, now: datetime) -> Sequence[tuple[UUID, UUID]]:
    """Which schedules are due, the longest overdue first: the ids of their accounts and owners."""
    found = await session.execute(
        select(Schedule.account_id, Schedule.owner_id)
        .join(Account, Account.id == Schedule.account_id)
        .where(Schedule.next_due_at <= now, Account.deleted_at.is_(None))
        .order_by(Schedule.next_due_at)
    )
    return [(row.account_id, row.owner_id) for row in found]


async def set_active(session: AsyncSession, account: Account, owner_id: UUID, *, active: bool, now: datetime) -> bool:
    """Let the schedule of something run, anew from now on (S29), or rest; whether it has one.

    Conflict "never_due" where it is to run, and has no day left to do so.
    """
    schedule = await find(session, account.id, owner_id, lock=True)
    if schedule is not None and schedule.active != active:
        schedule.active, schedule.since = active, now
        if active and schedule.next_slot(account) is None:
            raise Conflict("No day is left for its schedule to run on: change that first.", code="never_due")
        schedule.plan_next(account)
    return schedule is not None


async def remove(session: AsyncSession, owner_id: UUID) -> None:
    """Forget the schedule of something that is removed; its runs stay in the log."""
    await session.execute(delete(Schedule).where(Schedule.owner_id == owner_id))


async def move_calendar(session: AsyncSession, account: Account, was: Calendar) -> None:
    """Follow a change of the account's time zone or sync time, which `was` another; no day is lost by it."""
    for schedule in await session.scalars(
        select(Schedule).where(Schedule.account_id == account.id).order_by(Schedule.id).with_for_update()
    ):
        if schedule.runs:
            planned = replace(schedule.timetable(account), calendar=was)
            schedule.since = planned.moved(calendar_of(account), after=schedule.last_slot).since
        schedule.plan_next(account)


async def forget_recipient(session: AsyncSession, account_id: UUID, recipient_id: UUID) -> None:
    """Tell somebody of no failure any more, whatever schedule named them."""
    await session.execute(
        update(Schedule)
        .where(Schedule.account_id == account_id, any_(Schedule.recipients) == recipient_id)
        .values(recipients=func.array_remove(Schedule.recipients, recipient_id))
    )


async def pause_of_connection(session: AsyncSession, connection_id: UUID, *, reason: str, now: datetime) -> int:
    """Pause what fetches from a connection; how many that were."""
    found = await session.scalars(
        select(Schedule)
        .where(Schedule.connection_id == connection_id, Schedule.paused_at.is_(None))
        .order_by(Schedule.id)
        .with_for_update()
    )
    schedules = found.all()
    for schedule in schedules:
        pause(schedule, reason=reason, now=now)
    return len(schedules)


def pause(schedule: Schedule, *, reason: str, now: datetime) -> None:
    """Let a schedule make no runs until it is resumed."""
    schedule.paused_at, schedule.pause_reason, schedule.next_due_at = now, reason, None


def resume(schedule: Schedule, account: Account, *, now: datetime) -> None:
    """Let a paused schedule run again from now on; what it was due for meanwhile is not made up for."""
    schedule.paused_at, schedule.pause_reason, schedule.since = None, None, now
    schedule.plan_next(account)


async def is_used(session: AsyncSession, connection_id: UUID) -> bool:
    """Whether a schedule fetches from a connection."""
    return await session.scalar(select(Schedule.id).where(Schedule.connection_id == connection_id).limit(1)) is not None
