"""One look at the clock: every schedule that is due gets its run (S8, S30).

Any number of replicas may look at once, at whatever time their clocks show: who makes a run holds the schedule's row,
moves the schedule on in the same transaction, and of a slot there is one run at most.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd import telemetry
from ingestd.ingest import runs
from ingestd.ingest.engine import JobEngine
from ingestd.store import accounts, schedules
from ingestd.store.engine import Sessions, transaction

log = telemetry.logger(__name__)


async def tick(sessions: Sessions, jobs: JobEngine, now: datetime) -> int:
    """Start a run for every schedule that is due; how many that were. One that fails does not keep the others."""
    async with transaction(sessions) as session:
        due = await schedules.due(session, now)
    started = 0
    for account_id, owner_id in due:
        try:
            async with transaction(sessions) as session:
                started += await _start(session, jobs, account_id, owner_id, now=now)
        except Exception as fault:
            log.warning("schedule_failed", owner=str(owner_id), exc_info=fault)
    return started


async def _start(session: AsyncSession, jobs: JobEngine, account_id: UUID, owner_id: UUID, *, now: datetime) -> bool:
    """Deal with all slots of a schedule that have passed: the newest runs, the others are missed, told by one mail."""
    account = await accounts.lock(session, account_id)
    schedule = await schedules.find(session, account_id, owner_id, lock=True)
    if schedule is None or schedule.next_due_at is None or schedule.next_due_at > now:
        return False  # another replica was faster, or somebody has changed it
    passed = schedule.timetable(account).due(now, after=schedule.last_slot)
    missed = passed[:-1]
    for slot in missed:
        await runs.miss(session, schedule, slot, mail=slot == missed[-1], now=now)
    started = await runs.start(session, jobs, schedule, passed[-1], now=now) if passed else False
    schedule.last_slot = passed[-1].day if passed else schedule.last_slot
    schedule.plan_next(account)
    return started
