"""Recipients: the people of an account who may be sent e-mail (D39)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ForeignKey, UniqueConstraint, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.domain.errors import NotFound
from ingestd.store.base import Base, Key
from ingestd.store.page import Cut, Sorts


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


SORTS: Final[Sorts] = {"created_at": (Recipient.id,), "address": (Recipient.address, Recipient.id)}


async def page(session: AsyncSession, account_id: UUID, cut: Cut) -> Sequence[Recipient]:
    """Recipients of the account."""
    found = await session.scalars(cut.of(select(Recipient).where(Recipient.account_id == account_id)))
    return found.all()


async def get(session: AsyncSession, account_id: UUID, recipient_id: UUID, *, lock: bool = False) -> Recipient:
    """A recipient of the account, if wanted held by this transaction, or NotFound."""
    statement = select(Recipient).where(Recipient.account_id == account_id, Recipient.id == recipient_id)
    found: Recipient | None = await session.scalar(statement.with_for_update() if lock else statement)
    if found is None:
        raise NotFound("There is no such recipient.")
    return found


async def find(session: AsyncSession, account_id: UUID, address: str) -> Recipient | None:
    """The recipient with an address in its normal form, or None."""
    found: Recipient | None = await session.scalar(
        select(Recipient).where(Recipient.account_id == account_id, Recipient.address == address)
    )
    return found
