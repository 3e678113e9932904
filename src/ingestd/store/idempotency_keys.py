"""Idempotency keys: what a POST answered, kept in the transaction of its effect (T60)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, ForeignKey, Index, LargeBinary, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.store import expiry
from ingestd.store.base import Base

KEPT: Final = timedelta(hours=24)
"""How long an answer holds."""


class IdempotencyKey(Base):
    """An answered request: `hash` names it, `fingerprint` is its content's, `answer` is sealed."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("ix_idempotency_keys_account_id_created_at", "account_id", "created_at"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    answer: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]


async def claim(session: AsyncSession, name: bytes) -> bool:
    """Hold a request's name until this transaction ends; False where another one holds it: it is in flight."""
    lock = int.from_bytes(name[:8], signed=True)
    return bool(await session.scalar(select(func.pg_try_advisory_xact_lock(lock))))


async def find(session: AsyncSession, account_id: UUID, name: bytes) -> IdempotencyKey | None:
    """The answered request of this name, or None."""
    return await session.get(IdempotencyKey, (account_id, name))


_EXPIRE: Final = expiry.of_rows("idempotency_keys", "created_at")


def expire(connection: Connection, before: datetime, *, at_most: int) -> int:
    """Forget the answers that were given before a time; their number."""
    return connection.execute(_EXPIRE, {"before": before, "at_most": at_most}).rowcount
