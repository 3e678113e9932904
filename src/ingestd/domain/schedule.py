"""Schedules: on which days a file is fetched, and at which instants (S26 to S35, D7 to D9).

A slot is a day on which a schedule is due, as the account's calendar has it; its instant is the account's sync time
on that day. Since a slot is a day, moving the sync time or the time zone makes no run happen twice, and none be lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

LAST_DAY: Final = date(2999, 12, 31)
"""No validity goes beyond it."""

_DAY: Final = timedelta(days=1)
_SECOND: Final = timedelta(seconds=1)


class Frequency(StrEnum):
    """How often a schedule is due (S26)."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"

    def fits(self, day: date) -> bool:
        """Whether a day is one of its: any, a Monday, the first of a month."""
        if self is Frequency.WEEKLY:
            return day.weekday() == 0
        return self is Frequency.DAILY or day.day == 1

    def next(self, day: date) -> date:
        """Its first day after a day."""
        if self is Frequency.WEEKLY:
            return day + timedelta(days=7 - day.weekday())
        if self is Frequency.MONTHLY:
            return (day.replace(day=1) + timedelta(days=31)).replace(day=1)
        return day + _DAY


class OwnerKind(StrEnum):
    """What a schedule keeps fresh (D51)."""

    SEGMENT = "segment"
    DATA_SOURCE = "data_source"


@dataclass(frozen=True, slots=True)
class Calendar:
    """An account's time: its zone, and the local time of day at which schedules are due (D7)."""

    zone: ZoneInfo
    sync_time: time

    def at(self, day: date) -> datetime:
        """The instant of the sync time on a day, in UTC.

        A local time that the clocks skip is the first instant after the gap, one that they show twice the first.
        """
        local = datetime.combine(day, self.sync_time, self.zone)
        instant = local.astimezone(UTC)
        if instant.astimezone(self.zone).replace(tzinfo=None) == local.replace(tzinfo=None):
            return instant
        return _end_of_gap(local.replace(fold=1).astimezone(UTC), instant, self.zone)

    def day(self, instant: datetime) -> date:
        """The day that the account has at an instant."""
        return instant.astimezone(self.zone).date()


def _end_of_gap(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The instant between two at which the clocks of a zone are put forward, to the second."""
    offset = before.astimezone(zone).utcoffset()
    while after - before > _SECOND:
        middle = before + (after - before) // 2
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Slot:
    """A day on which a schedule is due, and the instant in UTC."""

    day: date
    at: datetime


@dataclass(frozen=True, slots=True)
class Timetable:
    """When a schedule is due: `first` and `last` are its validity, inclusive (S35); no slot is at `since` or before.

    `since` is when the schedule was created, changed or resumed (S29, S33, S34), or earlier by `moved`.
    """

    frequency: Frequency
    first: date
    last: date
    since: datetime
    calendar: Calendar

    def slots(self, *, after: date | None = None) -> Iterator[Slot]:
        """The slots in order; with `after`, those of later days.

        No two are at one instant, even where a zone skips a day.
        """
        day, before = max(self.first, self.calendar.day(self.since)), self.since
        if after is not None:
            day, before = max(day, after + _DAY), max(before, self.calendar.at(after))
        if not self.frequency.fits(day):
            day = self.frequency.next(day)
        while day <= self.last:
            at = self.calendar.at(day)
            if at > before:
                yield Slot(day, at)
                before = at
            day = self.frequency.next(day)

    def next(self, *, after: date | None = None) -> Slot | None:
        """The first slot, or None."""
        return next(self.slots(after=after), None)

    def due(self, now: datetime, *, after: date | None = None) -> list[Slot]:
        """The slots that are due at a moment, in order."""
        found = []
        for slot in self.slots(after=after):
            if slot.at > now:
                break
            found.append(slot)
        return found

    def moved(self, calendar: Calendar, *, after: date | None = None) -> Timetable:
        """The same by another calendar; what is next stays, though its instant comes before `since` by the move.

        Then `since` is just before that instant (docs/decisions/0009).
        """
        slot = self.next(after=after)
        since = self.since if slot is None else min(self.since, calendar.at(slot.day) - timedelta.resolution)
        return replace(self, calendar=calendar, since=since)

    def sentence(self) -> str:
        """The timetable in one plain sentence."""
        first = self.next()
        when = {
            Frequency.DAILY: "Every day",
            Frequency.WEEKLY: "Every Monday",
            Frequency.MONTHLY: "On the first day of every month",
        }[self.frequency]
        place = f"at {self.calendar.sync_time:%H:%M} ({self.calendar.zone.key})"
        if first is None:
            return f"{when} {place} until {_written(self.last)}: there is no such day left."
        return f"{when} {place}, first on {_written(first.day)}, until {_written(self.last)}."


DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _written(day: date) -> str:
    return f"{DAYS[day.weekday()]}, {day.isoformat()}"


@dataclass(frozen=True, slots=True)
class Advice:
    """Something worth a thought that forbids nothing: a stable code and a sentence."""

    code: str
    detail: str


def advice(frequency: Frequency) -> list[Advice]:
    """What is to be said to a frequency (S31)."""
    if frequency is Frequency.DAILY:
        return []
    return [
        Advice(
            "daily_recommended",
            f"A {frequency} schedule misses files that come in between, and one that comes too late waits for the next "
            "time. For a regular refresh choose daily: a file that has not changed is not loaded again.",
        )
    ]
