"""The outbox's dispatcher: claim what is due, send it, mark what came of it (P5).

No transaction is open while anything is sent. A crash in between leaves a lease that runs out, and then the same
message goes out again under the same id. Any number of replicas run side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from ingestd import telemetry
from ingestd.keyring import AccountKeys
from ingestd.metrics import Metrics
from ingestd.notify import webhooks
from ingestd.notify.webhooks import Code, Message, Result, Sender
from ingestd.store import deliveries
from ingestd.store import webhooks as endpoints
from ingestd.store.deliveries import Claimed
from ingestd.store.engine import Sessions, transaction

SLOTS: Final = 32
"""Deliveries on their way at a time, in one process."""

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

CALM_SECONDS: Final = 1.0
"""The wait after the database failed us."""

GONE: Final = 410

log = telemetry.logger(__name__)


def next_attempt_at(failures: int, result: Result, *, now: datetime, jitter: float) -> datetime | None:
    """When to try again after so many failures in a row, this one included, or None: never. `jitter` is 0 to 1."""
    if failures >= len(WAITS) or result.code is Code.DISABLED or result.status == GONE:
        return None
    wait = WAITS[failures] * (1 + SPREAD * jitter)
    return now + max(wait, result.retry_after or timedelta(0))


@dataclass(kw_only=True)
class Outbox:
    """The dispatcher of one process.

    `url` is the database's, for LISTEN; `keys` gives an account's keys; `jitter` a random number from 0 to 1.
    """

    url: str = field(repr=False)
    sessions: Sessions
    sender: Sender
    keys: Callable[[UUID], Awaitable[AccountKeys]]
    metrics: Metrics
    clock: Callable[[], datetime]
    jitter: Callable[[], float]
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _sending: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, stop: asyncio.Event) -> None:
        """Dispatch until `stop` is set, and return when what is on its way has come to an end."""
        async with asyncio.TaskGroup() as group:
            watches = [group.create_task(self._listen()), group.create_task(self._wake_at(stop))]
            while not stop.is_set():
                self._wake.clear()
                pause = await self._dispatch(group)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
            for watch in watches:
                watch.cancel()

    async def deliver(self, claimed: Claimed) -> None:
        """Send a claimed delivery and mark it. If that fails the lease runs out, and it is sent again."""
        try:
            result = await self._send(claimed)
            await self._mark(claimed, result)
        except Exception as error:  # one delivery's failure is not the dispatcher's
            log.warning("delivery_not_marked", delivery=claimed.id, exc_info=error)
            return
        self.metrics.deliveries.labels(result.code).inc()
        log.info("webhook_attempted", delivery=claimed.id, code=result.code, status=result.status, ms=result.ms)

    async def _send(self, claimed: Claimed) -> Result:
        if not claimed.enabled:
            return Result(Code.DISABLED)
        try:
            message = await self._message(claimed)
            return await self.sender.send(message, now=self.clock())
        except Exception:  # a failed attempt like any other: it is tried again, and seen
            log.exception("delivery_failed", delivery=claimed.id)
            return Result(Code.INTERNAL)

    async def _message(self, claimed: Claimed) -> Message:
        sealed = [claimed.secret]
        if claimed.previous_secret and claimed.previous_until and claimed.previous_until > self.clock():
            sealed.append(claimed.previous_secret)
        keys = await self.keys(claimed.account_id)
        context = webhooks.secret_context(claimed.webhook_id)
        return Message(
            id=claimed.notice_id,
            delivery_id=claimed.id,
            url=claimed.url,
            body=webhooks.body(claimed.type, claimed.created_at, claimed.data),
            keys=[keys.open_secret(context, each).decode() for each in sealed],
        )

    async def _mark(self, claimed: Claimed, result: Result) -> None:
        now, delivered = self.clock(), result.code is Code.DELIVERED
        attempt = {"at": now.isoformat(), "code": result.code, "status": result.status, "ms": result.ms}
        again_at = next_attempt_at(claimed.failures + 1, result, now=now, jitter=self.jitter())
        async with transaction(self.sessions) as session:
            if delivered:
                await endpoints.record_success(session, claimed.webhook_id)
            elif result.code not in {Code.DISABLED, Code.INTERNAL}:
                await endpoints.record_failure(session, claimed.webhook_id, gone=result.status == GONE, now=now)
            await deliveries.mark(session, claimed, attempt, delivered=delivered, again_at=again_at)

    async def _dispatch(self, group: asyncio.TaskGroup) -> float:
        """Start on what is due; the seconds until there is more to do, unless something wakes us before."""
        if len(self._sending) >= SLOTS:
            return LOOK_SECONDS
        try:
            now = self.clock()
            async with transaction(self.sessions) as session:
                found = await deliveries.claim(session, room=SLOTS - len(self._sending), now=now)
                due = await deliveries.next_due(session, now=now)
        except Exception as error:  # the database will be back
            log.warning("outbox_unavailable", exc_info=error)
            return CALM_SECONDS
        for claimed in found:
            task = group.create_task(self.deliver(claimed))
            self._sending.add(task)
            task.add_done_callback(self._finished)
        return min(LOOK_SECONDS, (due - now).total_seconds()) if due else LOOK_SECONDS

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._wake.set()

    async def _listen(self) -> None:
        """Wake up whenever a transaction with a new delivery commits."""
        while True:
            try:
                async with aclosing(deliveries.listen(self.url)) as notices:
                    async for _ in notices:
                        self._wake.set()
            except Exception as error:  # the database will be back
                log.warning("outbox_not_listening", exc_info=error)
            await asyncio.sleep(CALM_SECONDS)

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()
