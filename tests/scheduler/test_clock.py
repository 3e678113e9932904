"""The clock itself: it looks without being asked, goes on after a look that failed, and stops when it is told."""

import asyncio
from datetime import timedelta

from sqlalchemy import text
from tests.scheduler.world import new_connection, runs_of, scheduled

from ingestd.scheduler import clock
from ingestd.store.engine import transaction, utc_now


async def test_what_is_due_runs_by_itself(tenant):
    async with scheduled(tenant, await new_connection(tenant)) as segment:
        async with transaction(tenant.app.intake.sessions) as session:
            late = "UPDATE schedules SET valid_from = CAST(:now AS date), since = :now, next_due_at = :now WHERE active"
            await session.execute(text(late), {"now": utc_now() - timedelta(days=2)})
        stop = asyncio.Event()
        running = asyncio.create_task(clock.Clock(tenant.app.intake).run(stop))
        while not await runs_of(tenant, segment):
            assert not running.done()
        stop.set()
        await running


async def test_a_look_that_fails_is_made_up_for_and_the_clock_stops_when_told(tenant, monkeypatch):
    looks = asyncio.Queue()

    async def look(*_):
        looks.put_nowait(1)
        if looks.qsize() == 1:
            raise OSError("the database is away")

    monkeypatch.setattr(clock, "tick", look)
    monkeypatch.setattr(clock, "LOOK_SECONDS", 0.01)
    stop = asyncio.Event()
    running = asyncio.create_task(clock.Clock(tenant.app.intake).run(stop))
    for _ in range(3):
        await looks.get()
    stop.set()
    await running
