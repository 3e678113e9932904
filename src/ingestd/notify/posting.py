"""Deliveries, as the outbox sends them: each is signed, posted and marked, and a webhook that fails is disabled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd import telemetry
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.domain.notice import DisabledWebhook, NoticeType
from ingestd.keyring import AccountKeys
from ingestd.metrics import Metrics
from ingestd.notify import webhooks
from ingestd.notify.outbox import next_attempt_at
from ingestd.notify.webhooks import Code, Message, Result, Sender
from ingestd.store import deliveries, messages, notices, outgoing
from ingestd.store import webhooks as endpoints
from ingestd.store.deliveries import Claimed, Delivery
from ingestd.store.engine import Sessions, new_id, transaction
from ingestd.store.notices import Notice
from ingestd.store.webhooks import Webhook

GONE: Final = 410

log = telemetry.logger(__name__)


@dataclass(kw_only=True)
class Posting:
    """The channel of webhooks. `keys` gives an account's keys; `jitter` a random number from 0 to 1."""

    sessions: Sessions
    sender: Sender
    keys: Callable[[UUID], Awaitable[AccountKeys]]
    metrics: Metrics
    clock: Callable[[], datetime]
    jitter: Callable[[], float]
    slots: int = 32

    async def claim(self, session: AsyncSession, *, room: int, now: datetime) -> Sequence[Claimed]:
        """At most `room` deliveries that are due."""
        return await deliveries.claim(session, room=room, now=now)

    async def next_due(self, session: AsyncSession, *, now: datetime) -> datetime | None:
        """When the next delivery falls due after `now`."""
        return await outgoing.next_due(session, Delivery, now=now)

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
            headers=webhooks.open_headers(keys, claimed.webhook_id, claimed.headers),
        )

    async def _mark(self, claimed: Claimed, result: Result) -> None:
        now, delivered = self.clock(), result.code is Code.DELIVERED
        attempt = {"at": now.isoformat(), "code": result.code, "status": result.status, "ms": result.ms}
        again_at = None
        if result.code is not Code.DISABLED and result.status != GONE:
            again_at = next_attempt_at(
                claimed.failures + 1, now=now, jitter=self.jitter(), retry_after=result.retry_after
            )
        async with transaction(self.sessions) as session:
            if delivered:
                await endpoints.record_success(session, claimed.webhook_id)
            elif result.code not in {Code.DISABLED, Code.INTERNAL}:
                disabled = await endpoints.record_failure(
                    session, claimed.webhook_id, gone=result.status == GONE, now=now
                )
                if disabled is not None:
                    await _tell_disabled(session, disabled, now=now)
            await outgoing.mark(session, Delivery, claimed, attempt, delivered=delivered, again_at=again_at)


async def _tell_disabled(session: AsyncSession, webhook: Webhook, *, now: datetime) -> None:
    """Tell the account's other webhooks, and those who want to know what needs attention."""
    shown = DisabledWebhook(
        id=ids.show(Prefix.WEBHOOK, webhook.id),
        name=webhook.name,
        disabled_reason=webhook.disabled_reason,
        failing_since=webhook.failing_since,
    )
    notice = Notice(
        id=new_id(),
        account_id=webhook.account_id,
        type=NoticeType.WEBHOOK_DISABLED,
        subject_id=webhook.id,
        data=shown.model_dump(mode="json"),
        created_at=now,
    )
    await session.execute(notices.adding(notice))
    await session.execute(messages.adding(notice, to=None))
