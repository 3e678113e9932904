"""Accounts: whose files, keys and people these are."""

from __future__ import annotations

from datetime import datetime, time
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, LargeBinary, Time, false, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, Session, mapped_column

from ingestd.domain.errors import NotFound
from ingestd.keyring import SealedKeys
from ingestd.store.base import Base, Key
from ingestd.store.page import Cut, Sorts


class Rotation(StrEnum):
    """How far a rotation of an account's data keys is; null: there is none."""

    ASKED = "asked"
    SEALING = "sealing"
    FAILED = "failed"
    """It was given up, or the sealing of what was marked; it can be asked for again."""


class Account(Base):
    """An account. `next_seq` is the number its next ingestion gets; the keysets are sealed by the master key.

    `restricted_events` are names of events that its files may not write, beside those in the settings (D36).

    One that was deleted has no keysets, and is gone for everybody but the upkeep, which removes its rows.
    """

    __tablename__ = "accounts"

    id: Mapped[Key]
    name: Mapped[str]
    time_zone: Mapped[str]
    sync_time: Mapped[time] = mapped_column(Time)
    features: Mapped[dict[str, Any]]
    email_domains: Mapped[list[Any]]
    restricted_events: Mapped[list[Any]] = mapped_column(server_default="[]")
    confirm_recipients: Mapped[bool] = mapped_column(server_default=false())
    next_seq: Mapped[int]
    data_keys: Mapped[bytes] = mapped_column(LargeBinary)
    index_key: Mapped[bytes] = mapped_column(LargeBinary)
    rotation: Mapped[str | None]
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]

    def allows(self, feature: str) -> bool:
        """Whether a feature (`sftp`, `milestone_emails`) is switched on (S79, S133)."""
        return bool(self.features.get(feature))


_IS_THERE: Final = Account.deleted_at.is_(None)

SORTS: Final[Sorts] = {"created_at": (Account.id,), "name": (Account.name, Account.id)}


async def page(session: AsyncSession, cut: Cut) -> list[Account]:
    """Accounts, for an operator."""
    return list(await session.scalars(cut.of(select(Account).where(_IS_THERE))))


async def get(session: AsyncSession, account_id: UUID) -> Account:
    """The account, or NotFound."""
    return _found(await session.scalar(select(Account).where(Account.id == account_id, _IS_THERE)))


async def lock(session: AsyncSession, account_id: UUID) -> Account:
    """The account, held by this transaction until it ends, or NotFound. Rows that name it can be added meanwhile."""
    held = select(Account).where(Account.id == account_id, _IS_THERE).with_for_update(key_share=True)
    return _found(await session.scalar(held))


def _found(account: Account | None) -> Account:
    if account is None:
        raise NotFound("There is no such account.")
    return account


async def take_seq(session: AsyncSession, account_id: UUID) -> int:
    """The next number in the account's order of ingestions; the row stays locked until the commit (D31)."""
    found: int | None = await session.scalar(
        update(Account)
        .where(Account.id == account_id, _IS_THERE)
        .values(next_seq=Account.next_seq + 1)
        .returning(Account.next_seq - 1)
    )
    if found is None:
        raise NotFound("There is no such account.")
    return found


def all_of(session: Session) -> list[Account]:
    """All accounts, oldest first, for a command."""
    return list(session.scalars(select(Account).where(_IS_THERE).order_by(Account.id)))


def of_command(session: Session, account_id: UUID) -> Account:
    """The account, or NotFound, for a command."""
    return _found(session.scalar(select(Account).where(Account.id == account_id, _IS_THERE)))


def keys_for_sealing(connection: Connection, account_id: UUID, *, shared: bool = False) -> SealedKeys | None:
    """The keys of an account, whose row this transaction then holds; None where there is no such account.

    Where it is `shared` only the end of the account waits: rows that name it can be added, and numbers taken.
    """
    mine = (Account.id == account_id, _IS_THERE)
    found = select(Account.data_keys, Account.index_key).where(*mine).with_for_update(read=shared, key_share=shared)
    row = connection.execute(found).one_or_none()
    return SealedKeys(row.data_keys, row.index_key) if row else None


def keep_keys(connection: Connection, account_id: UUID, keys: SealedKeys) -> None:
    """Give an account other keys."""
    values = {"data_keys": keys.data, "index_key": keys.index}
    connection.execute(update(Account).where(Account.id == account_id).values(values))


def move_on(connection: Connection, account_id: UUID, before: Rotation, after: Rotation | None) -> bool:
    """Take a rotation a step further; False where it is not at the step before."""
    at = update(Account).where(Account.id == account_id, Account.rotation == before)
    return connection.execute(at.values(rotation=after)).rowcount > 0


def fail_rotation(connection: Connection, account_id: UUID) -> None:
    """Say that personal values could not be sealed, whatever was to seal them."""
    connection.execute(update(Account).where(Account.id == account_id).values(rotation=Rotation.FAILED))
