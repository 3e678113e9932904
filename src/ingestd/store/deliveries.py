"""Deliveries: a notice on its way to a webhook. A dispatcher claims it, sends it and marks it (P5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Index,
    Row,
    Select,
    UniqueConstraint,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.domain.errors import Conflict, NotFound
from ingestd.store import outgoing
from ingestd.store.base import Base
from ingestd.store.notices import CHANNEL, Notice
from ingestd.store.outgoing import LEASE, DeliveryState, Lease, Outgoing
from ingestd.store.page import Cut, Sorts
from ingestd.store.webhooks import Webhook

PER_WEBHOOK: Final = 2
"""Deliveries on their way to one webhook at a time, over all replicas (T14)."""

PER_ACCOUNT: Final = 8
"""Deliveries on their way for one account at a time, over all replicas (T14)."""


class Delivery(Outgoing, Base):
    """One notice for one webhook; `attempts` are `{at, code, status, ms}`."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("webhook_id", "notice_id"),
        CheckConstraint("(state IN ('pending', 'sending')) = (next_attempt_at IS NOT NULL)", name="open"),
        Index(
            "ix_deliveries_due", "webhook_id", "next_attempt_at", postgresql_where=text("next_attempt_at IS NOT NULL")
        ),
        Index("ix_deliveries_webhook_id_state_notice_id", "webhook_id", "state", "notice_id"),
        Index("ix_deliveries_sending", "webhook_id", postgresql_where=text("state = 'sending'")),
    )

    queue: ClassVar = "webhook_id"
    channel: ClassVar = CHANNEL

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    notice_id: Mapped[UUID] = mapped_column(ForeignKey("notices.id", ondelete="CASCADE"), index=True)


SORTS: Final[Sorts] = {"created_at": (Delivery.notice_id,)}

Shown = Row[Delivery, Notice]
"""A delivery and what it tells."""


@dataclass(frozen=True, slots=True)
class Claimed(Lease):
    """A delivery that is this dispatcher's until `lease`, with all that sending it needs."""

    type: str
    data: dict[str, Any]
    created_at: datetime
    webhook_id: UUID
    url: str
    headers: dict[str, str]
    enabled: bool
    secret: bytes
    previous_secret: bytes | None
    previous_until: datetime | None


# Each webhook offers its oldest due deliveries, as many as it may have on their way; the accounts then take turns.
# A full scan of the due ones would let the backlog of one dead webhook slow all others down.
_CLAIM = text("""
    WITH sending AS MATERIALIZED (
        SELECT account_id, webhook_id FROM deliveries WHERE state = 'sending' AND next_attempt_at > :now
    ), due AS (
        SELECT d.id, d.next_attempt_at,
               (SELECT count(*) FROM sending s WHERE s.account_id = w.account_id)
               + row_number() OVER (PARTITION BY w.account_id ORDER BY d.next_attempt_at) AS turn
        FROM webhooks w
        CROSS JOIN LATERAL (
            SELECT id, next_attempt_at FROM deliveries
            WHERE webhook_id = w.id AND next_attempt_at <= :now
            ORDER BY next_attempt_at
            LIMIT greatest(0, :per_webhook - (SELECT count(*) FROM sending s WHERE s.webhook_id = w.id))
            FOR UPDATE SKIP LOCKED
        ) d
    ), chosen AS (
        SELECT id FROM due WHERE turn <= :per_account ORDER BY turn, next_attempt_at LIMIT :room
    )
    UPDATE deliveries d
    SET state = 'sending', next_attempt_at = :lease
    FROM chosen, webhooks w, notices n, accounts a
    WHERE d.id = chosen.id AND w.id = d.webhook_id AND n.id = d.notice_id AND a.id = d.account_id
    RETURNING d.id, d.next_attempt_at AS lease, d.failures, d.account_id, d.notice_id, n.type, n.data, n.created_at,
              a.data_keys, a.index_key, d.webhook_id, w.url, w.headers, w.enabled, w.secret,
              w.previous_secret, w.previous_until
""").bindparams(per_webhook=PER_WEBHOOK, per_account=PER_ACCOUNT)


async def claim(session: AsyncSession, *, room: int, now: datetime) -> list[Claimed]:
    """At most `room` due deliveries, which no other dispatcher gets before the lease ends.

    Of a transaction that has its turn: so the limits of a webhook and of an account hold for all replicas together.
    """
    rows = await session.execute(_CLAIM, {"now": now, "lease": now + LEASE, "room": room})
    return [Claimed(**row) for row in rows.mappings()]


async def get(session: AsyncSession, webhook: Webhook, delivery_id: UUID) -> Shown:
    """The delivery and its notice, or NotFound."""
    found = await session.execute(_shown(webhook).where(Delivery.id == delivery_id))
    row = found.one_or_none()
    if row is None:
        raise NotFound("There is no such delivery.")
    return row


async def of_notice(session: AsyncSession, webhook: Webhook, notice_id: UUID) -> Shown:
    """The delivery of a notice that was just written."""
    found = await session.execute(_shown(webhook).where(Delivery.notice_id == notice_id))
    return found.one()


async def page(
    session: AsyncSession, webhook: Webhook, cut: Cut, *, state: DeliveryState | None = None
) -> Sequence[Shown]:
    """Deliveries of a webhook, in the order of what they tell."""
    statement = _shown(webhook)
    if state is not None:
        statement = statement.where(Delivery.state == state)
    found = await session.execute(cut.of(statement))
    return found.all()


def _shown(webhook: Webhook) -> Select[Delivery, Notice]:
    joined = select(Delivery, Notice).join(Notice, Notice.id == Delivery.notice_id)
    return joined.where(Delivery.webhook_id == webhook.id)


async def redeliver(session: AsyncSession, webhook: Webhook, delivery_id: UUID, *, now: datetime) -> None:
    """Begin a new series of attempts now, whatever came of the last; Conflict if the webhook is disabled."""
    if not await _restart(session, webhook, Delivery.id == delivery_id, now=now):
        await get(session, webhook, delivery_id)  # it is on its way at this moment, or there is none


async def recover(session: AsyncSession, webhook: Webhook, *, since: datetime, now: datetime) -> int:
    """Begin a new series for all that has died since a moment, and count them; Conflict if the webhook is disabled."""
    return await _restart(session, webhook, Delivery.state == DeliveryState.DEAD, Delivery.created_at >= since, now=now)


async def _restart(session: AsyncSession, webhook: Webhook, *which: ColumnElement[bool], now: datetime) -> int:
    check_enabled(webhook)
    return await outgoing.restart(session, Delivery, Delivery.webhook_id == webhook.id, *which, now=now)


def check_enabled(webhook: Webhook) -> None:
    """Raise Conflict if the webhook is disabled."""
    if not webhook.enabled:
        raise Conflict("The webhook is disabled.", code="webhook_disabled")
