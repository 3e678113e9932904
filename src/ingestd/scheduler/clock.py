"""The clock: looks again and again whether something is due.

Between two looks it waits, and does not reckon when the next one is: so it does not mind a system clock that is put
back or forward, and a schedule that is made or changed meanwhile is found by the next look.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ingestd import telemetry
from ingestd.ingest.engine import Engine
from ingestd.scheduler.ticks import tick
from ingestd.store.engine import Sessions, utc_now

LOOK_SECONDS: Final = 5.0

log = telemetry.logger(__name__)


@dataclass(frozen=True)
class Clock:
    """What makes runs when they are due; several processes may have one."""

    sessions: Sessions
    engine: Engine

    async def run(self, stop: asyncio.Event) -> None:
        """Look now and then again and again, until `stop` is set; a look that fails is made up for by the next."""
        while not stop.is_set():
            try:
                await tick(self.sessions, self.engine, utc_now())
            except Exception as fault:
                log.warning("clock_failed", exc_info=fault)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await stop.wait()
