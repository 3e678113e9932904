"""API keys: who may call the HTTP API, and with which scopes (T51, T52)."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.store.base import Base, Key


class ApiKey(Base):
    """An API key; only the SHA-256 of its secret is kept."""

    __tablename__ = "api_keys"

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), index=True)
    name: Mapped[str]
    scopes: Mapped[list[Any]]
    secret_sha256: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


async def find(session: AsyncSession, key_id: UUID) -> ApiKey | None:
    """The key of this id, in force or not, or None."""
    return await session.get(ApiKey, key_id)


async def page(session: AsyncSession, account_id: UUID) -> list[ApiKey]:
    """The keys of an account, oldest first."""
    return list(await session.scalars(select(ApiKey).where(ApiKey.account_id == account_id).order_by(ApiKey.id)))
