"""The clock: looks again and again whether something is due.

What is due, and what was done, are rows; so a schedule that is made or changed meanwhile is found by the next look, and
it does not matter which replica looks, or how often. Between two looks the loop's own time is counted, which nobody can
put back or forward: a system clock that is set anew makes looks neither pause nor hurry.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

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
        while not stop.is_set():
            await self.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await stop.wait()

    async def look(self) -> None:
        """Look once; one that fails is made up for by the next."""
        try:
            now = utc_now()
            await tick(self.intake.sessions, self.intake.engine, now)
            await settle_waiting(self.intake, now)
            await tell_delays(self.intake.sessions)
        except Exception as fault:
            log.warning("clock_failed", exc_info=fault)
