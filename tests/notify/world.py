"""Accounts with webhooks, a clock that the test moves, and dispatchers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select

from ingestd import egress
from ingestd.blobs.store import BlobStore
from ingestd.keyring import AccountKeys, Keyring, SealedKeys
from ingestd.metrics import new_metrics
from ingestd.notify import webhooks as sending
from ingestd.notify.letters import House
from ingestd.notify.mailing import Mailing
from ingestd.notify.outbox import Channel, Outbox
from ingestd.notify.posting import Posting
from ingestd.notify.smtp import MailServer
from ingestd.notify.webhooks import Sender
from ingestd.store import deliveries, engine, messages
from ingestd.store.accounts import Account
from ingestd.store.deliveries import Delivery
from ingestd.store.engine import Sessions, transaction
from ingestd.store.messages import Message
from ingestd.store.notices import Notice, adding
from ingestd.store.outgoing import Lease
from ingestd.store.recipients import Recipient
from ingestd.store.webhooks import Webhook

LOOPBACK = egress.parse_allow(["127.0.0.0/8:*"])


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now

    def move(self, by: timedelta) -> None:
        self.now += by


@dataclass
class World:
    """Accounts with webhooks, and dispatchers that tell them."""

    url: str = field(repr=False)
    sessions: Sessions
    clock: Clock
    keyring: Keyring
    sender: Sender = field(default_factory=lambda: Sender(allow=LOOPBACK))
    jitter: float = 0.0
    blobs: BlobStore | None = None
    accounts: dict[UUID, AccountKeys] = field(default_factory=dict)

    async def account(self, features: dict[str, object] | None = None) -> UUID:
        account_id = engine.new_id()
        sealed = self.keyring.new_account_keys(account_id)
        self.accounts[account_id] = self.keyring.open(account_id, sealed)
        async with transaction(self.sessions) as session:
            session.add(
                Account(
                    id=account_id, name="an account", time_zone="UTC", sync_time=time(4), features=features or {},
                    email_domains=["example.org"], next_seq=1, data_keys=sealed.data, index_key=sealed.index,
                    created_at=self.clock(),
                )
            )  # fmt: skip
        return account_id

    async def webhook(self, account_id: UUID, url: str, secret: str | None = None, **more: object) -> Webhook:
        webhook_id = engine.new_id()
        webhook = Webhook(
            id=webhook_id, account_id=account_id, name="a webhook", url=url, enabled=True,
            secret=self.seal(account_id, webhook_id, secret or sending.new_secret()),
            created_at=self.clock(), updated_at=self.clock(), **more,
        )  # fmt: skip
        async with transaction(self.sessions) as session:
            session.add(webhook)
        return webhook

    def seal(self, account_id: UUID, webhook_id: UUID, secret: str) -> bytes:
        return self.accounts[account_id].seal_secret(sending.secret_context(webhook_id), secret.encode())

    async def tell(self, account_id: UUID, kind: str = "ingestion.completed", **data: object) -> UUID:
        notice = Notice(
            id=engine.new_id(), account_id=account_id, type=kind, subject_id=None, data=data, created_at=self.clock()
        )
        async with transaction(self.sessions) as session:
            await session.execute(adding(notice))
        return notice.id

    def keys(self, account_id: UUID, _: SealedKeys) -> AccountKeys:
        return self.accounts[account_id]

    def posting(self) -> Posting:
        return Posting(
            sender=self.sender, keys=self.keys, metrics=new_metrics(), clock=self.clock, jitter=lambda: self.jitter
        )

    def outbox(self) -> Outbox:
        return Outbox(url=self.url, sessions=self.sessions, channel=self.posting(), clock=self.clock)

    def mailing(self, server: MailServer | None) -> Mailing:
        return Mailing(
            sessions=self.sessions, server=server, house=House("ingestd <post@cdp.test>", "https://cdp.test", 30, 7),
            attachment_bytes=1000, blobs=self.blobs, keys=self.keys, metrics=new_metrics(), clock=self.clock,
            jitter=lambda: self.jitter,
        )  # fmt: skip

    async def recipient(self, account_id: UUID, address: str, milestones: list[str], *, confirmed: bool = True) -> None:
        async with transaction(self.sessions) as session:
            session.add(
                Recipient(
                    id=engine.new_id(), account_id=account_id, address=address, name="somebody", milestones=milestones,
                    confirmed_at=self.clock() if confirmed else None, created_at=self.clock(),
                )
            )  # fmt: skip

    async def write(self, account_id: UUID, kind: str, to: list[str] | None, **data: object) -> None:
        """Tell by mail."""
        notice = Notice(
            id=engine.new_id(), account_id=account_id, type=kind, subject_id=None, data=data, created_at=self.clock()
        )
        async with transaction(self.sessions) as session:
            await session.execute(adding(notice, only=[]))
            await session.execute(messages.adding(notice, to=to))

    async def mail_due(self, server: MailServer | None) -> int:
        """Send the mails that can be sent now, once; how many they were."""
        async with transaction(self.sessions) as session:
            claimed = await messages.claim(session, room=32, now=self.clock())
        await self.deliver(self.mailing(server), claimed)
        return len(claimed)

    async def messages(self) -> list[Message]:
        async with self.sessions() as session:
            return list(await session.scalars(select(Message).order_by(Message.created_at, Message.address)))

    async def claim(self) -> list[deliveries.Claimed]:
        async with transaction(self.sessions) as session:
            return await deliveries.claim(session, room=32, now=self.clock())

    async def send_due(self) -> int:
        """Send what can be sent now, once; how much that was."""
        claimed = await self.claim()
        await self.deliver(self.posting(), claimed)
        return len(claimed)

    async def deliver(self, channel: Channel[Any], claimed: Sequence[Lease]) -> None:
        """Send what was claimed, and mark it."""
        if not claimed:
            return
        ended = await asyncio.gather(*map(channel.send, claimed))
        async with transaction(self.sessions) as session:
            await channel.mark(session, ended, now=self.clock())

    async def deliveries(self) -> list[Delivery]:
        async with self.sessions() as session:
            return list(await session.scalars(select(Delivery).order_by(Delivery.notice_id, Delivery.webhook_id)))

    async def again(self, webhook: Webhook) -> Webhook:
        """The webhook as it is now."""
        async with self.sessions() as session:
            return await session.get_one(Webhook, webhook.id)
