"""API keys: who may call the HTTP API, and with which scopes (T51, T52)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.domain import ids
from ingestd.store.base import Base, Key
from ingestd.store.engine import new_id
from ingestd.store.owned import get_owned
from ingestd.store.page import Cut, Sorts

_MARK: Final = "isk"
_SECRET_BYTES: Final = 32
_MAX_TEXT: Final = 200


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


SORTS: Final[Sorts] = {"created_at": (ApiKey.id,), "name": (ApiKey.name, ApiKey.id)}


def issue(
    account_id: UUID, *, name: str, scopes: Sequence[str], now: datetime, expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """A new key and its text, which its owner is shown once; 256 random bits need no slow hash."""
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    key = ApiKey(
        id=new_id(),
        account_id=account_id,
        name=name,
        scopes=[str(scope) for scope in scopes],
        secret_sha256=_hash(secret),
        created_at=now,
        expires_at=expires_at,
    )
    return key, f"{_MARK}_{ids.encode(key.id)}_{secret}"


def replace(key: ApiKey, *, grace: timedelta, now: datetime) -> tuple[ApiKey, str]:
    """A new key in the place of an old one, which is in force until the grace is over, and its text."""
    end = now + grace
    new, text = issue(key.account_id, name=key.name, scopes=key.scopes, now=now, expires_at=key.expires_at)
    key.expires_at = min(key.expires_at or end, end)
    return new, text


def split(text: str) -> tuple[UUID | None, str]:
    """The id and the secret in a key's text; the id is None where the text is no key."""
    mark, _, rest = text[:_MAX_TEXT].partition("_")
    key_id, _, secret = rest.partition("_")
    return (ids.decode(key_id) if mark == _MARK else None), secret


def fits(key: ApiKey | None, secret: str, *, now: datetime) -> bool:
    """Whether a secret is the key's and the key is in force; compares in constant time, without a key too (T51)."""
    same = hmac.compare_digest(_hash(secret), key.secret_sha256 if key else bytes(32))
    return same and key is not None and key.revoked_at is None and (key.expires_at is None or now < key.expires_at)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


async def find(session: AsyncSession, key_id: UUID) -> ApiKey | None:
    """The key of this id, in force or not, or None."""
    return await session.get(ApiKey, key_id)


async def get(session: AsyncSession, account_id: UUID, key_id: UUID, *, lock: bool = False) -> ApiKey:
    """The key of the account, in force or not, held by this transaction if `lock`, or NotFound."""
    return await get_owned(session, ApiKey, account_id, key_id, called="API key", lock=lock)


async def page(session: AsyncSession, account_id: UUID, cut: Cut) -> list[ApiKey]:
    """The keys of an account."""
    return list(await session.scalars(cut.of(select(ApiKey).where(ApiKey.account_id == account_id))))
