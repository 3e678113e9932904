"""Runs: made by the clock or by a request, queued to be fetched, in one transaction (S46)."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.domain.errors import Conflict
from ingestd.domain.run import Result, RunState
from ingestd.domain.schedule import Slot
from ingestd.domain.submission import Actor
from ingestd.ingest.engine import JobEngine
from ingestd.ingest.refusal import run_error
from ingestd.ingest.tell import tell_run
from ingestd.store import recipients, runs
from ingestd.store.engine import new_id
from ingestd.store.runs import Run
from ingestd.store.schedules import Schedule

CLOCK: Final = Actor("schedule")
MISSED: Final = run_error("run_missed", "A newer slot was due, too, before this one was dealt with.")


async def start(session: AsyncSession, jobs: JobEngine, schedule: Schedule, slot: Slot, *, now: datetime) -> bool:
    """Make the run of a slot and queue its fetch; False, and nothing happens, where the slot has had its run."""
    run = _new(schedule, slot, CLOCK, now=now)
    if not await runs.add(session, run):
        return False
    await jobs.enqueue_fetch(session, run_id=run.id, connection_id=run.connection_id)
    return True


async def miss(session: AsyncSession, schedule: Schedule, slot: Slot, *, mail: bool, now: datetime) -> None:
    """List and tell a slot that passed without a run and that a newer one makes needless; with `mail` by mail, too."""
    run = _new(schedule, slot, CLOCK, now=now)
    for name, value in runs.ended(Result.MISSED, now=now, error=MISSED.model_dump()).items():
        setattr(run, name, value)
    if await runs.add(session, run):
        to = await recipients.addresses(session, run.account_id, run.recipients) if mail else ()
        connection = await session.connection()
        await connection.run_sync(tell_run, run.id, to=to, now=now)


async def request(session: AsyncSession, jobs: JobEngine, schedule: Schedule, actor: Actor, *, now: datetime) -> Run:
    """Make a run at once, by whatever timetable, and queue its fetch; Conflict where one is still going on."""
    if await runs.is_open(session, schedule.owner_id):
        raise Conflict("A run is still going on.", code="run_open")
    run = _new(schedule, None, actor, now=now)
    await runs.add(session, run)
    await jobs.enqueue_fetch(session, run_id=run.id, connection_id=run.connection_id)
    return run


def _new(schedule: Schedule, slot: Slot | None, actor: Actor, *, now: datetime) -> Run:
    return Run(
        id=new_id(),
        account_id=schedule.account_id,
        schedule_id=schedule.id,
        owner_kind=schedule.owner_kind,
        owner_id=schedule.owner_id,
        slot=slot.day if slot else None,
        due_at=slot.at if slot else now,
        requested_by=actor.shown(),
        connection_id=schedule.connection_id,
        path=schedule.path,
        mode=schedule.mode,
        recipients=schedule.recipients,
        state=RunState.QUEUED,
        attempt=0,
        created_at=now,
    )
