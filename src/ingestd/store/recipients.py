"""Recipients: the people of an account who may be sent e-mail (D39)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ForeignKey, UniqueConstraint, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.store.accounts import Account
from ingestd.store.base import Base, Key
from ingestd.store.owned import get_owned
from ingestd.store.page import Cut, Sorts


class Recipient(Base):
    """Somebody who may be sent e-mail once their address is confirmed; `address` is in its normal form."""

    __tablename__ = "recipients"
    __table_args__ = (UniqueConstraint("account_id", "address"),)

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    address: Mapped[str]
    name: Mapped[str]
    milestones: Mapped[list[Any]]
    confirmed_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


SORTS: Final[Sorts] = {"created_at": (Recipient.id,), "address": (Recipient.address, Recipient.id)}


async def page(session: AsyncSession, account_id: UUID, cut: Cut) -> Sequence[Recipient]:
    """Recipients of the account."""
    found = await session.scalars(cut.of(select(Recipient).where(Recipient.account_id == account_id)))
    return found.all()


async def get(session: AsyncSession, account_id: UUID, recipient_id: UUID, *, lock: bool = False) -> Recipient:
    """A recipient of the account, if wanted held by this transaction, or NotFound."""
    return await get_owned(session, Recipient, account_id, recipient_id, called="recipient", lock=lock)


async def known(session: AsyncSession, account_id: UUID, recipient_ids: Collection[UUID]) -> set[UUID]:
    """Which of some recipients the account has."""
    found = await session.scalars(
        select(Recipient.id).where(Recipient.account_id == account_id, Recipient.id.in_(recipient_ids))
    )
    return set(found)


async def addresses(session: AsyncSession, account_id: UUID, recipient_ids: Collection[UUID]) -> Sequence[str]:
    """The addresses of those of some recipients that are still there."""
    found = await session.scalars(
        select(Recipient.address)
        .where(Recipient.account_id == account_id, Recipient.id.in_(recipient_ids))
        .order_by(Recipient.id)
    )
    return found.all()


async def may_be_written_to(session: AsyncSession, account: Account, address: str) -> bool:
    """Whether an address is that of a recipient, who has confirmed it where the account wants that, or of a domain."""
    recipient = await find(session, account.id, address)
    if recipient is None:
        return address.rpartition("@")[2] in account.email_domains
    return recipient.confirmed_at is not None


async def find(session: AsyncSession, account_id: UUID, address: str) -> Recipient | None:
    """The recipient with an address in its normal form, or None."""
    found: Recipient | None = await session.scalar(
        select(Recipient).where(Recipient.account_id == account_id, Recipient.address == address)
    )
    return found
