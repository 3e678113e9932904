"""Deliveries, as the outbox sends them: each is signed and posted, and a webhook that fails for days is disabled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd import telemetry
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.domain.notice import DisabledWebhook, NoticeType
from ingestd.keyring import AccountKeys, SealedKeys
from ingestd.metrics import Metrics
from ingestd.notify import webhooks
from ingestd.notify.outbox import next_attempt_at
from ingestd.notify.webhooks import Code, Message, Result, Sender
from ingestd.store import deliveries, messages, notices, outgoing
from ingestd.store import webhooks as endpoints
from ingestd.store.deliveries import Claimed, Delivery
from ingestd.store.outgoing import Ended, Outgoing
from ingestd.store.webhooks import Webhook

GONE: Final = 410
_OURS: Final = {Code.DISABLED, Code.INTERNAL}
"""What says nothing about the receiver."""

log = telemetry.logger(__name__)


@dataclass(kw_only=True)
class Posting:
    """The channel of webhooks. `keys` opens an account's keys; `jitter` a random number from 0 to 1."""

    sender: Sender
    keys: Callable[[UUID, SealedKeys], AccountKeys]
    metrics: Metrics
    clock: Callable[[], datetime]
    jitter: Callable[[], float]
    slots: int = 32
    model: type[Outgoing] = Delivery

    async def claim(self, session: AsyncSession, *, room: int, now: datetime) -> Sequence[Claimed]:
        """At most `room` deliveries that are due."""
        return await deliveries.claim(session, room=room, now=now)

    async def send(self, claimed: Claimed) -> Ended[Claimed]:
        """Post a claimed delivery once. Whatever the receiver does, something comes of it."""
        result = await self._send(claimed)
        self.metrics.deliveries.labels(result.code).inc()
        log.info("webhook_attempted", delivery=claimed.id, code=result.code, status=result.status, ms=result.ms)
        now, again_at = self.clock(), None
        if result.code is not Code.DISABLED and result.status != GONE:
            again_at = next_attempt_at(
                claimed.failures + 1, now=now, jitter=self.jitter(), retry_after=result.retry_after
            )
        attempt = {"at": now.isoformat(), "code": result.code, "status": result.status, "ms": result.ms}
        return Ended(claimed, attempt, delivered=result.code is Code.DELIVERED, again_at=again_at)

    async def mark(self, session: AsyncSession, ended: Sequence[Ended[Claimed]], *, now: datetime) -> None:
        """Write what came of attempts, and of the webhooks: one that has taken any of them is sound."""
        sound = {each.claimed.webhook_id for each in ended if each.delivered}
        await endpoints.record_success(session, sound)
        failed = [each for each in ended if not each.delivered and each.attempt["code"] not in _OURS]
        gone = {each.claimed.webhook_id for each in failed if each.attempt["status"] == GONE}
        for webhook_id in gone | {each.claimed.webhook_id for each in failed} - sound:
            disabled = await endpoints.record_failure(session, webhook_id, gone=webhook_id in gone, now=now)
            if disabled is not None:
                await _tell_disabled(session, disabled, now=now)
        await outgoing.mark(session, Delivery, ended)

    async def _send(self, claimed: Claimed) -> Result:
        if not claimed.enabled:
            return Result(Code.DISABLED)
        try:
            return await self.sender.send(self._message(claimed), now=self.clock())
        except Exception:  # a failed attempt like any other: it is tried again, and seen
            log.exception("delivery_failed", delivery=claimed.id)
            return Result(Code.INTERNAL)

    def _message(self, claimed: Claimed) -> Message:
        sealed = [claimed.secret]
        if claimed.previous_secret and claimed.previous_until and claimed.previous_until > self.clock():
            sealed.append(claimed.previous_secret)
        keys = self.keys(claimed.account_id, claimed.sealed_keys)
        context = webhooks.secret_context(claimed.webhook_id)
        return Message(
            id=claimed.notice_id,
            delivery_id=claimed.id,
            url=claimed.url,
            body=webhooks.body(claimed.type, claimed.created_at, claimed.data),
            keys=[keys.open_secret(context, each).decode() for each in sealed],
            headers=webhooks.open_headers(keys, claimed.webhook_id, claimed.headers),
        )


async def _tell_disabled(session: AsyncSession, webhook: Webhook, *, now: datetime) -> None:
    """Tell the account's other webhooks, and those who want to know what needs attention."""
    shown = DisabledWebhook(
        id=ids.show(Prefix.WEBHOOK, webhook.id),
        name=webhook.name,
        disabled_reason=webhook.disabled_reason,
        failing_since=webhook.failing_since,
    )
    data = shown.model_dump(mode="json")
    notice = notices.new(webhook.account_id, NoticeType.WEBHOOK_DISABLED, data, subject_id=webhook.id, now=now)
    await session.execute(notices.adding(notice))
    await session.execute(messages.adding(notice, to=None))
