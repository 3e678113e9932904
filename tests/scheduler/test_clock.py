"""The clock itself: it looks without being asked, goes on after a look that failed, and stops when it is told."""

import asyncio
from datetime import UTC, datetime, timedelta

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


async def test_a_look_that_the_end_cuts_off_is_no_failure(tenant, monkeypatch, caplog):
    begun = asyncio.Event()

    async def look(*_):
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(clock, "tick", look)
    stop = asyncio.Event()
    running = asyncio.create_task(clock.Clock(tenant.app.intake).run(stop))
    await begun.wait()
    stop.set()
    await running
    await asyncio.sleep(0)
    assert not [record for record in caplog.records if record.name.startswith("apscheduler")]


async def test_a_system_clock_that_is_put_back_lets_no_look_wait(tenant, monkeypatch):
    looks, put_back = asyncio.Queue(), timedelta()

    class SystemClock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) - put_back

    async def look(_sessions, _engine, now):
        looks.put_nowait(now)

    async def none(*_):
        pass

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", SystemClock)
    monkeypatch.setattr(clock, "utc_now", lambda: SystemClock.now(UTC))
    monkeypatch.setattr(clock, "tick", look)
    for chore in ("settle_waiting", "tell_delays"):
        monkeypatch.setattr(clock, chore, none)
    monkeypatch.setattr(clock, "LOOK_SECONDS", 0.01)
    stop = asyncio.Event()
    running = asyncio.create_task(clock.Clock(tenant.app.intake).run(stop))
    before = await looks.get()
    put_back = timedelta(minutes=1)
    while await looks.get() > before:
        assert not running.done()
    put_back = timedelta(minutes=-1)
    while await looks.get() < before:
        assert not running.done()
    stop.set()
    await running
