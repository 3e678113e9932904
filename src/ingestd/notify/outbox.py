"""The outbox's dispatcher: claim what is due, send it, mark what came of it (P5).

It goes in turns: one transaction marks all that has ended since the last and claims as many anew. None is open while
anything is sent. A crash in between leaves leases that run out, and then the same messages go out again under the same
ids. Any number of replicas run side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd import telemetry
from ingestd.store import outgoing
from ingestd.store.engine import Sessions, transaction
from ingestd.store.outgoing import Ended, Lease, Outgoing

WAITS: Final = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""The wait before each attempt, three days in all; the schedule that Standard Webhooks recommends."""

SPREAD: Final = 0.1
"""The share by which a wait is lengthened at most, so that what failed together does not come back together."""

LOOK_SECONDS: Final = 60.0
"""How often to look although nothing woke us: a wake-up can be lost with its connection."""

GATHER_SECONDS: Final = 0.01
"""How long to wait for others that end: one turn then serves all of them."""

CALM_SECONDS: Final = 1.0
"""The wait after the database failed us."""

log = telemetry.logger(__name__)

L = TypeVar("L", bound=Lease)


def next_attempt_at(
    failures: int, *, now: datetime, jitter: float, retry_after: timedelta | None = None
) -> datetime | None:
    """When to try again after so many failures in a row, this one included, or None: never. `jitter` is 0 to 1."""
    if failures >= len(WAITS):
        return None
    wait = WAITS[failures] * (1 + SPREAD * jitter)
    return now + max(wait, retry_after or timedelta(0))


class Channel(Protocol[L]):
    """A way to tell: webhooks, or mail. `slots` is how many may be on their way at a time, in one process."""

    slots: int
    model: type[Outgoing]

    async def claim(self, session: AsyncSession, *, room: int, now: datetime) -> Sequence[L]:
        """At most `room` of what is due."""

    async def send(self, claimed: L) -> Ended[L]:
        """Send it once. If that fails for a reason of ours the lease runs out, and it is sent again."""

    async def mark(self, session: AsyncSession, ended: Sequence[Ended[L]], *, now: datetime) -> None:
        """Write what came of some attempts."""


@dataclass(kw_only=True)
class Outbox:
    """The dispatcher of one channel in one process; `url` is the database's, for LISTEN."""

    url: str = field(repr=False)
    sessions: Sessions
    channel: Channel[Any]
    clock: Callable[[], datetime]
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _sending: int = 0
    _ended: list[Ended[Any]] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Dispatch until `stop` is set; return when what is on its way has come to an end and is marked."""
        async with asyncio.TaskGroup() as group:
            watches = [group.create_task(self._listen()), group.create_task(self._wake_at(stop))]
            while not stop.is_set():
                self._wake.clear()
                pause = await self._turn(group)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                if self._sending:
                    await asyncio.sleep(GATHER_SECONDS)
            for watch in watches:
                watch.cancel()
        await self._last_turn()

    async def _turn(self, group: asyncio.TaskGroup) -> float:
        """Mark and claim; the seconds until there is more to do, unless something wakes us before."""
        room = self.channel.slots - self._sending
        if room <= 0:
            return LOOK_SECONDS
        try:
            now = self.clock()
            async with transaction(self.sessions) as session:
                await outgoing.take_turn(session, self.channel.model)
                marked = await self._mark(session, now)
                found = await self.channel.claim(session, room=room, now=now)
                due = await outgoing.next_due(session, self.channel.model, now=now)
        except Exception as error:  # the database will be back
            log.warning("outbox_unavailable", exc_info=error)
            return CALM_SECONDS
        del self._ended[:marked]
        self._sending += len(found)
        for claimed in found:
            group.create_task(self._send(claimed))
        return min(LOOK_SECONDS, (due - now).total_seconds()) if due else LOOK_SECONDS

    async def _last_turn(self) -> None:
        if not self._ended:
            return
        try:
            async with transaction(self.sessions) as session:
                await outgoing.take_turn(session, self.channel.model)
                await self._mark(session, self.clock())
        except Exception as error:  # their leases run out
            log.warning("outbox_unavailable", exc_info=error)

    async def _mark(self, session: AsyncSession, now: datetime) -> int:
        """Mark all that has ended by now, and count it."""
        ended = tuple(self._ended)
        if ended:
            await self.channel.mark(session, ended, now=now)
        return len(ended)

    async def _send(self, claimed: Lease) -> None:
        try:
            self._ended.append(await self.channel.send(claimed))
        except Exception:  # one message's failure is not the dispatcher's
            log.exception("outbox_not_sent", outgoing=claimed.id)
        self._sending -= 1  # in one step with the wake-up: a turn that is woken always finds room
        self._wake.set()

    async def _listen(self) -> None:
        """Wake up whenever a transaction with something new to send commits."""
        while True:
            try:
                async with aclosing(outgoing.listen(self.url, self.channel.model)) as notices:
                    async for _ in notices:
                        self._wake.set()
            except Exception as error:  # the database will be back
                log.warning("outbox_not_listening", exc_info=error)
            await asyncio.sleep(CALM_SECONDS)

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()
