"""Webhooks: where an account is told what happens (S136)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, ForeignKey, Index, LargeBinary, Text, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.domain.notice import MAX_WEBHOOKS
from ingestd.store.base import Base, Key
from ingestd.store.owned import check_room, get_owned
from ingestd.store.page import Cut, Sorts

PATIENCE: Final = timedelta(days=5)
"""How long a webhook may fail, without one success in between, before it is disabled."""

RESERVED: Final = frozenset(
    {
        *("accept-encoding", "connection", "content-encoding", "content-length", "content-type", "cookie", "expect"),
        *("host", "keep-alive", "trailer", "transfer-encoding", "upgrade", "user-agent", "via"),
    }
)
RESERVED_PREFIXES: Final = ("ingestd-", "proxy-", "webhook-")
"""Headers that an account cannot set, since they are ours or change how a request is read (T15)."""


class Disabled(StrEnum):
    """Why a webhook is disabled."""

    BY_ACCOUNT = "by_account"
    GONE = "gone"
    FAILING = "failing"


class Webhook(Base):
    """An address and the types of events it wants; null means all of them.

    The secrets are sealed (T110), and so are the values of `headers`, which is sent with each event.
    """

    __tablename__ = "webhooks"
    __table_args__ = (Index("ix_webhooks_account_id_id", "account_id", "id"),)

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str]
    url: Mapped[str]
    secret: Mapped[bytes] = mapped_column(LargeBinary)
    previous_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    previous_until: Mapped[datetime | None]
    events: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    headers: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    enabled: Mapped[bool]
    disabled_reason: Mapped[str | None]
    failing_since: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    def enable(self) -> None:
        """Send to it again, with all its patience back."""
        self.enabled, self.disabled_reason, self.failing_since = True, None, None

    def disable(self) -> None:
        """Stop sending to it, because the account says so."""
        self.enabled, self.disabled_reason = False, Disabled.BY_ACCOUNT

    def rotate(self, sealed: bytes, *, until: datetime) -> None:
        """Take a new secret; the one before it signs too until then."""
        self.previous_secret, self.previous_until = self.secret, until
        self.secret = sealed


SORTS: Final[Sorts] = {"created_at": (Webhook.id,), "name": (Webhook.name, Webhook.id)}


async def add(session: AsyncSession, webhook: Webhook) -> None:
    """Keep a new webhook, or raise Conflict where the account has all it may have."""
    await check_room(session, Webhook, webhook.account_id, MAX_WEBHOOKS, called="webhooks")
    session.add(webhook)
    await session.flush()


async def get(session: AsyncSession, account_id: UUID, webhook_id: UUID, *, lock: bool = False) -> Webhook:
    """The webhook of the account, held by this transaction if `lock`, or NotFound."""
    return await get_owned(session, Webhook, account_id, webhook_id, called="webhook", lock=lock)


async def page(session: AsyncSession, account_id: UUID, cut: Cut) -> list[Webhook]:
    """Webhooks of the account."""
    return list(await session.scalars(cut.of(select(Webhook).where(Webhook.account_id == account_id))))


async def unknown(session: AsyncSession, account_id: UUID, chosen: Collection[UUID]) -> set[UUID]:
    """Those of the chosen ids that are no webhook of the account (S136)."""
    known = await session.scalars(select(Webhook.id).where(Webhook.account_id == account_id, Webhook.id.in_(chosen)))
    return set(chosen) - set(known)


async def record_success(session: AsyncSession, webhook_ids: Collection[UUID]) -> None:
    """Note that webhooks have taken a delivery."""
    healthy = update(Webhook).where(Webhook.id.in_(webhook_ids), Webhook.failing_since.is_not(None))
    await session.execute(healthy.values(failing_since=None))


async def record_failure(session: AsyncSession, webhook_id: UUID, *, gone: bool, now: datetime) -> Webhook | None:
    """Note that it has not; one that is gone, or has failed for `PATIENCE`, is disabled, and given."""
    since: datetime | None = await session.scalar(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.enabled)
        .values(failing_since=func.coalesce(Webhook.failing_since, now))
        .returning(Webhook.failing_since)
    )
    if since is None or not (gone or now - since >= PATIENCE):
        return None
    webhook = await session.get_one(Webhook, webhook_id, populate_existing=True)
    webhook.enabled, webhook.updated_at = False, now
    webhook.disabled_reason = Disabled.GONE if gone else Disabled.FAILING
    await session.flush()
    return webhook
