"""The clock: looks again and again whether something is due.

APScheduler is its alarm and no more: it keeps nothing and knows of no schedule. What is due, and what was done, are
rows; so a schedule that is made or changed meanwhile is found by the next look, and it does not matter which replica
looks, or how often.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from typing import Final

from apscheduler.job import Job
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from ingestd import telemetry
from ingestd.ingest.delays import tell_delays
from ingestd.ingest.grace import settle_waiting
from ingestd.ingest.intake import Intake
from ingestd.scheduler.ticks import tick
from ingestd.store.engine import utc_now

LOOK_SECONDS: Final = 5.0

log = telemetry.logger(__name__)


@dataclass(frozen=True)
class Clock:
    """What makes runs when they are due, ends waits, and tells what takes long; several processes may have one."""

    intake: Intake

    async def run(self, stop: asyncio.Event) -> None:
        """Look now and every few seconds, one look at a time, until `stop` is set."""
        # a look tells its own failures; that one is skipped while another goes on, or cut off at the end, is meant
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
        alarm = AsyncIOScheduler(timezone=UTC)
        job = alarm.add_job(
            self.look,
            "interval",
            seconds=LOOK_SECONDS,
            next_run_time=utc_now(),
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )
        alarm.start()
        try:
            await _watch_system_clock(job, stop)
        finally:
            alarm.shutdown()

    async def look(self) -> None:
        """Look once; one that fails is made up for by the next."""
        try:
            now = utc_now()
            await tick(self.intake.sessions, self.intake.jobs, now)
            await settle_waiting(self.intake, now)
            await tell_delays(self.intake.sessions)
        except Exception as fault:
            log.warning("clock_failed", exc_info=fault)


async def _watch_system_clock(job: Job, stop: asyncio.Event) -> None:
    """Have the job run at once whenever the system clock was put back, until `stop` is set.

    APScheduler goes by that clock: it would wait until the time is reached again that had been reached before.
    """
    seen = utc_now()
    while not stop.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await stop.wait()
        now = utc_now()
        if now < seen:
            job.modify(next_run_time=now)
        seen = now
