"""Import keys: the SSH public keys that open an account's SFTP door (S80 to S83)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ARRAY, ForeignKey, Index, Uuid, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, Session, mapped_column

from ingestd.domain.errors import Conflict
from ingestd.store.accounts import Account
from ingestd.store.base import Base, Key
from ingestd.store.owned import get_owned
from ingestd.store.page import Cut, Sorts


class ImportKey(Base):
    """An import key; name and fingerprint are unique among the keys of an account that are not revoked.

    `webhook_ids` are told of what becomes of its files, whatever else they want (S136).
    """

    __tablename__ = "import_keys"
    __table_args__ = (
        Index("uq_import_keys_name", "account_id", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
        Index(
            "uq_import_keys_fingerprint",
            "account_id",
            "fingerprint",
            unique=True,
            postgresql_where=text("revoked_at IS NULL"),
        ),
    )

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str]
    public_key: Mapped[str]
    fingerprint: Mapped[str]
    webhook_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid), server_default="{}")
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


SORTS: Final[Sorts] = {"created_at": (ImportKey.id,), "name": (ImportKey.name, ImportKey.id)}


def add(session: Session, key: ImportKey) -> ImportKey:
    """Keep a key, new or changed, or raise Conflict where the account has its name or its key already (S81).

    An asynchronous session calls it by `run_sync`.
    """
    session.add(key)
    try:
        session.flush()
    except IntegrityError as error:
        taken = "name" if "uq_import_keys_name" in str(error.orig) else "public key"
        raise Conflict(f"The account has an import key with this {taken} already.", code="import_key_exists") from None
    return key


async def page(session: AsyncSession, account_id: UUID, cut: Cut) -> list[ImportKey]:
    """The keys of an account that are in force."""
    found = select(ImportKey).where(ImportKey.account_id == account_id, ImportKey.revoked_at.is_(None))
    return list(await session.scalars(cut.of(found)))


async def get(session: AsyncSession, account_id: UUID, key_id: UUID, *, lock: bool = False) -> ImportKey:
    """One key in force, held by this transaction if `lock`, or NotFound."""
    in_force = ImportKey.revoked_at.is_(None)
    return await get_owned(session, ImportKey, account_id, key_id, in_force, called="import key", lock=lock)


async def find_admitted(session: AsyncSession, account_id: UUID, fingerprint: str) -> ImportKey | None:
    """The key of this fingerprint that opens the account's SFTP door, or None.

    It must be in force (S83), and the account's plan must include SFTP (S79).
    """
    found: ImportKey | None = await session.scalar(
        select(ImportKey)
        .join(Account, Account.id == ImportKey.account_id)
        .where(
            ImportKey.account_id == account_id,
            ImportKey.fingerprint == fingerprint,
            ImportKey.revoked_at.is_(None),
            Account.features.contains({"sftp": True}),
        )
    )
    return found


async def admitted(session: AsyncSession, keys: Collection[UUID]) -> set[UUID]:
    """Those of the keys that open an SFTP door now (S79, S83)."""
    found = await session.scalars(
        select(ImportKey.id)
        .join(Account, Account.id == ImportKey.account_id)
        .where(ImportKey.id.in_(keys), ImportKey.revoked_at.is_(None), Account.features.contains({"sftp": True}))
    )
    return set(found)


async def webhooks_of(session: AsyncSession, key_id: UUID) -> tuple[UUID, ...]:
    """The webhooks that were chosen for a key, one that has been revoked since too (S136)."""
    return tuple(await session.scalar(select(ImportKey.webhook_ids).where(ImportKey.id == key_id)) or ())


async def used(session: AsyncSession, key_id: UUID, *, now: datetime) -> None:
    """Note that a key opened a session."""
    await session.execute(update(ImportKey).where(ImportKey.id == key_id).values(last_used_at=now))


def all_of(session: Session, account_id: UUID) -> list[ImportKey]:
    """All keys of an account, those that were revoked too, oldest first, for a command."""
    return list(session.scalars(select(ImportKey).where(ImportKey.account_id == account_id).order_by(ImportKey.id)))
