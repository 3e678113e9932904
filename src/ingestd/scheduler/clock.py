"""The clock: looks again and again whether something is due.

APScheduler is its alarm and no more: it keeps nothing and knows of no schedule. What is due, and what was done, are
rows; so a schedule that is made or changed meanwhile is found by the next look, and it does not matter which replica
looks, how often, or what a system clock that is put back or forward does to the alarm.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC
from typing import Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from ingestd import telemetry
from ingestd.ingest.delays import tell_delays
from ingestd.ingest.grace import settle_waiting
from ingestd.ingest.intake import Intake
from ingestd.scheduler.ticks import tick
from ingestd.store.engine import utc_now

LOOK_SECONDS: Final = 5

log = telemetry.logger(__name__)


@dataclass(frozen=True)
class Clock:
    """What makes runs when they are due, ends waits, and tells what takes long; several processes may have one."""

    intake: Intake

    async def run(self, stop: asyncio.Event) -> None:
        """Look now and then every few seconds, one look at a time, until `stop` is set."""
        logging.getLogger("apscheduler").setLevel(logging.ERROR)  # that a look is skipped while one goes on is meant
        alarm = AsyncIOScheduler(timezone=UTC)
        alarm.add_job(
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
            await stop.wait()
        finally:
            alarm.shutdown()

    async def look(self) -> None:
        """Look once; one that fails is made up for by the next."""
        try:
            await tick(self.intake.sessions, self.intake.engine, utc_now())
            await settle_waiting(self.intake, utc_now())
            await tell_delays(self.intake.sessions)
        except Exception as fault:
            log.warning("clock_failed", exc_info=fault)
