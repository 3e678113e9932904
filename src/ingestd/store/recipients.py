"""Recipients: the people of an account who may be sent e-mail (D39)."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, UniqueConstraint, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.domain.errors import NotFound
from ingestd.store.base import Base, Key


class Recipient(Base):
    """Somebody who may be sent e-mail; `address` is in its normal form."""

    __tablename__ = "recipients"
    __table_args__ = (UniqueConstraint("account_id", "address"),)

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    address: Mapped[str]
    name: Mapped[str]
    milestones: Mapped[list[Any]]
    created_at: Mapped[datetime]


async def get(session: AsyncSession, account_id: UUID, recipient_id: UUID) -> Recipient:
    """A recipient of the account, held by this transaction, or NotFound."""
    found: Recipient | None = await session.scalar(
        select(Recipient).where(Recipient.account_id == account_id, Recipient.id == recipient_id).with_for_update()
    )
    if found is None:
        raise NotFound("There is no such recipient.")
    return found


async def find(session: AsyncSession, account_id: UUID, address: str) -> Recipient | None:
    """The recipient with an address in its normal form, or None."""
    found: Recipient | None = await session.scalar(
        select(Recipient).where(Recipient.account_id == account_id, Recipient.address == address)
    )
    return found
