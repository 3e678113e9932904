"""Schedules: when a file is fetched, from where, and who is told if that fails (S26 to S37).

What can have a schedule (D51) has routes of its own for it, which hold the account and then call the functions here.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Annotated, Any, Final, Self
from uuid import UUID

from fastapi import Depends, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.api import audit
from ingestd.api.account import SyncTime
from ingestd.api.context import Caller, Principal, Reading, Scope, needs
from ingestd.api.etags import Match
from ingestd.api.ids import ConnectionId, RecipientId
from ingestd.api.model import In
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.connection import MAX_PATH, parse_path
from ingestd.domain.errors import Conflict, Invalid, NotFound, Problem
from ingestd.domain.ids import Prefix
from ingestd.domain.ingestion import DataSourceView, SegmentView
from ingestd.domain.moment import Moment
from ingestd.domain.plan import Mode
from ingestd.domain.schedule import LAST_DAY, Frequency, OwnerKind, Timetable, advice
from ingestd.store import accounts, connections, recipients, schedules
from ingestd.store.accounts import Account
from ingestd.store.engine import new_id, utc_now
from ingestd.store.schedules import Schedule

router = Router(prefix="/v1/schedules", tags=["Schedules"])

PREVIEWED: Final = 10
MAX_RECIPIENTS: Final = 50
REQUESTED: Final = "requested"
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")


def _written(day: Any) -> Any:
    """Refuse what pydantic would take for a day beside a date, such as a number."""
    if not isinstance(day, date) and not (isinstance(day, str) and _DAY.fullmatch(day)):
        raise ValueError("is not a date, such as 2026-01-31")
    return day


def _soon(day: date) -> date:
    if day > LAST_DAY:
        raise ValueError(f"is after {LAST_DAY}")
    return day


def _below_the_root(text: str) -> str:
    try:
        return parse_path(text)
    except Invalid as refusal:
        raise ValueError(refusal.detail) from None


Day = Annotated[date, BeforeValidator(_written), AfterValidator(_soon), Field(examples=["2026-01-31"])]


class TimetableIn(In):
    """How often, and from which day to which, both inclusive, in the account's time zone (S35)."""

    frequency: Frequency
    valid_from: Day
    valid_to: Day

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.valid_to < self.valid_from:
            raise ValueError("'valid_to' is before 'valid_from'")
        return self


class ScheduleIn(TimetableIn):
    """A schedule: where the file is, how often it is fetched, and who is told of failures.

    `path` is a folder, of which the newest matching file is taken, or one file; below the connection's root folder.
    """

    connection: ConnectionId
    path: Annotated[str, AfterValidator(_below_the_root), Field(max_length=MAX_PATH, examples=["demo_path"])]
    recipients: Annotated[list[RecipientId], Field(max_length=MAX_RECIPIENTS)] = Field(default=[])


class SourceScheduleIn(ScheduleIn):
    """The schedule of a data source, whose files are added, or replace what it has.

    A replace that would take out more than a share of its people is held until it is confirmed.
    """

    mode: Mode = Mode.APPEND


class AdviceOut(BaseModel):
    """Something worth a thought that forbids nothing."""

    code: str
    detail: str


class ScheduleOut(BaseModel):
    """A schedule; `next_run_at` is null where it is over, paused, or rests because its segment is not in use.

    `description` is the timetable in one sentence. `pause_reason` is `requested`, or `host_key_changed`: then look at
    the connection first.
    """

    connection: str
    path: str
    mode: Mode
    frequency: Frequency
    valid_from: date
    valid_to: date
    recipients: list[str]
    time_zone: str
    sync_time: SyncTime
    description: str
    advice: list[AdviceOut]
    active: bool
    paused_at: Moment | None
    pause_reason: str | None
    next_run_at: Moment | None
    created_at: Moment
    changed_at: Moment


class ScheduleItem(ScheduleOut):
    """A schedule in a list, and the segment or the data source that it keeps fresh."""

    segment: SegmentView | None
    data_source: DataSourceView | None


class SchedulePage(Page[ScheduleItem]):
    """Schedules."""


class SlotOut(BaseModel):
    """A run to come: the day, the instant, and the same as the clocks of the account show it."""

    day: date
    at: Moment
    local: Annotated[str, Field(examples=["2026-01-31T02:00:00+01:00"])]


class SchedulePreviewOut(BaseModel):
    """What a timetable would do."""

    description: str
    advice: list[AdviceOut]
    time_zone: str
    runs: list[SlotOut]


@dataclass(frozen=True, slots=True)
class Owner:
    """What a schedule keeps fresh: its id, the same as shown, and whether files may refresh it now."""

    kind: OwnerKind
    id: UUID
    shown_id: str
    in_use: bool


def shown(schedule: Schedule, account: Account) -> ScheduleOut:
    """A schedule as the API shows it."""
    frequency = Frequency(schedule.frequency)
    return ScheduleOut(
        connection=ids.show(Prefix.CONNECTION, schedule.connection_id),
        path=schedule.path,
        mode=Mode(schedule.mode),
        frequency=frequency,
        valid_from=schedule.valid_from,
        valid_to=schedule.valid_to,
        recipients=[ids.show(Prefix.RECIPIENT, each) for each in schedule.recipients],
        time_zone=account.time_zone,
        sync_time=account.sync_time,
        description=schedule.timetable(account).sentence(),
        advice=_advice(frequency),
        active=schedule.active,
        paused_at=schedule.paused_at,
        pause_reason=schedule.pause_reason,
        next_run_at=schedule.next_due_at,
        created_at=schedule.created_at,
        changed_at=schedule.changed_at,
    )


def _item(row: Row[Schedule, str, str], account: Account) -> ScheduleItem:
    """A schedule in a list, from a row of `store.schedules.page`."""
    schedule: Schedule = row.Schedule
    of_segment = schedule.owner_kind == OwnerKind.SEGMENT
    id_ = ids.show(Prefix.SEGMENT if of_segment else Prefix.DATA_SOURCE, schedule.owner_id)
    return ScheduleItem(
        **shown(schedule, account).model_dump(),
        segment=SegmentView(id=id_, name=row.segment_name) if of_segment else None,
        data_source=None if of_segment else DataSourceView(id=id_, name=row.data_source_name),
    )


def _advice(frequency: Frequency) -> list[AdviceOut]:
    return [AdviceOut(**asdict(each)) for each in advice(frequency)]


async def save(
    tx: AsyncSession, caller: Principal, owner: Owner, body: ScheduleIn, match: Match, *, mode: Mode = Mode.REPLACE
) -> ScheduleOut:
    """Make or replace the schedule of something whose account the caller holds."""
    account, now = await accounts.get(tx, caller.account_id), utc_now()
    await _check_names(tx, caller, body)
    schedule = await schedules.find(tx, account.id, owner.id, lock=True)
    before = None if schedule is None else shown(schedule, account)
    match.check(before)
    if schedule is None:
        schedule = Schedule(
            id=new_id(), account_id=account.id, owner_kind=owner.kind, owner_id=owner.id, created_at=now
        )
        tx.add(schedule)
    schedule.connection_id, schedule.path, schedule.mode = body.connection, body.path, mode
    schedule.frequency = body.frequency
    schedule.valid_from, schedule.valid_to = body.valid_from, body.valid_to
    schedule.recipients = list(dict.fromkeys(body.recipients))
    schedule.since, schedule.changed_at = _since(schedule, now), now
    schedule.active = owner.in_use
    if schedule.next_slot(account) is None:
        problem = Problem("/body/valid_to", "never_due", "No day between valid_from and valid_to is left to run on.")
        raise Invalid("The schedule would never run.", problems=(problem,))
    schedule.plan_next(account)
    await tx.flush()
    return _noted(tx, caller, owner, "schedule.saved", before, shown(schedule, account))


def _since(schedule: Schedule, now: datetime) -> datetime:
    """From when on a saved schedule counts: from now on, but what was due already and no clock has seen stays due."""
    due = schedule.next_due_at
    return now if due is None or due > now else due - timedelta.resolution


async def _check_names(tx: AsyncSession, caller: Principal, body: ScheduleIn) -> None:
    """Refuse a connection or a recipient that the account does not have (S17, S37)."""
    problems = []
    try:
        await connections.get(tx, caller.account_id, body.connection, lock=True)
    except NotFound:
        problems.append(Problem("/body/connection", "connection_unknown", "The account has no such connection."))
    known = await recipients.known(tx, caller.account_id, body.recipients)
    for place, recipient in enumerate(body.recipients):
        if recipient not in known:
            problem = Problem(f"/body/recipients/{place}", "recipient_unknown", "The account has no such recipient.")
            problems.append(problem)
    if problems:
        raise Invalid("The schedule names what the account does not have.", problems=tuple(problems))


async def remove(tx: AsyncSession, caller: Principal, owner: Owner, match: Match) -> None:
    """Forget the schedule of something; its runs stay in the log."""
    schedule, account = await _held(tx, caller, owner)
    before = shown(schedule, account)
    match.check(before)
    await tx.delete(schedule)
    audit.note(tx, caller, "schedule.deleted", owner.shown_id, before=before)


async def pause(tx: AsyncSession, caller: Principal, owner: Owner) -> ScheduleOut:
    """Let the schedule of something make no runs."""
    schedule, account = await _held(tx, caller, owner)
    before = shown(schedule, account)
    if schedule.paused_at is not None:
        raise Conflict("The schedule is paused already.", code="schedule_paused")
    schedules.pause(schedule, reason=REQUESTED, now=utc_now())
    return _noted(tx, caller, owner, "schedule.paused", before, shown(schedule, account))


async def resume(tx: AsyncSession, caller: Principal, owner: Owner) -> ScheduleOut:
    """Let the paused schedule of something run again."""
    schedule, account = await _held(tx, caller, owner)
    before = shown(schedule, account)
    if schedule.paused_at is None:
        raise Conflict("The schedule is not paused.", code="schedule_not_paused")
    schedules.resume(schedule, account, now=utc_now())
    return _noted(tx, caller, owner, "schedule.resumed", before, shown(schedule, account))


async def _held(tx: AsyncSession, caller: Principal, owner: Owner) -> tuple[Schedule, Account]:
    account = await accounts.get(tx, caller.account_id)
    return await schedules.get(tx, account.id, owner.id, lock=True), account


def _noted(
    tx: AsyncSession, caller: Principal, owner: Owner, action: str, before: ScheduleOut | None, after: ScheduleOut
) -> ScheduleOut:
    audit.note(tx, caller, action, owner.shown_id, before=before, after=after)
    return after


@router.get("", operation_id="schedules_list", summary="List schedules", dependencies=[needs(Scope.SEGMENTS_READ)])
async def list_all(
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(schedules.SORTS, "created_at"))],
    connection_id: Annotated[ConnectionId | None, Query(description="That fetch from this connection.")] = None,
    paused: Annotated[bool | None, Query(description="That are paused, or are not.")] = None,
) -> SchedulePage:
    """The schedules of the account's segments and data sources, oldest first; it needs `data_sources:read`, too.

    Without `segments:write`, of segments only those of active ones.
    """
    caller.demand(Scope.DATA_SOURCES_READ)
    account = await accounts.get(tx, caller.account_id)
    hidden = not caller.may(Scope.SEGMENTS_WRITE)
    found = await schedules.page(
        tx, account.id, asked.cut, connection_id=connection_id, paused=paused, only_active=hidden
    )
    return asked.page(SchedulePage, found, lambda row: _item(row, account), keyed=lambda row: row.Schedule)


@router.post(
    "/preview",
    operation_id="schedules_preview",
    summary="Try out a timetable",
    dependencies=[needs(Scope.ACCOUNT_READ)],
)
async def preview(body: TimetableIn, tx: Reading, caller: Caller) -> SchedulePreviewOut:
    """The next ten runs, by the account's clock, of a schedule that would be made now; nothing is kept."""
    account = await accounts.get(tx, caller.account_id)
    calendar = schedules.calendar_of(account)
    table = Timetable(body.frequency, body.valid_from, body.valid_to, utc_now(), calendar)
    coming = [
        SlotOut(day=slot.day, at=slot.at, local=slot.at.astimezone(calendar.zone).isoformat())
        for slot in islice(table.slots(), PREVIEWED)
    ]
    return SchedulePreviewOut(
        description=table.sentence(), advice=_advice(body.frequency), time_zone=account.time_zone, runs=coming
    )
