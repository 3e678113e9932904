"""Manifests: each name once per account, for ever (S107, D18)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from unicodedata import normalize
from uuid import UUID

from sqlalchemy import Connection, ForeignKey, Index, UniqueConstraint, exists, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.store import expiry
from ingestd.store.accounts import Account
from ingestd.store.base import Base, Key
from ingestd.store.files import File, FileState
from ingestd.store.owned import get_owned
from ingestd.store.page import Cut, Sorts


class ManifestState(StrEnum):
    """Where a manifest stands."""

    DRAFT = "draft"
    WAITING = "waiting"
    ACCEPTED = "accepted"
    REFUSED = "refused"


HAS_TEXT: Final = text("blob IS NOT NULL AND state IN ('accepted', 'refused')")
"""Whether a manifest that nobody waits for any more still has its text; as the index says it."""


class Manifest(Base):
    """A manifest as it came in, what it was paired with, or why it was refused.

    One that came before its data file and is `waiting` for it has that file's name and who brought the manifest. `blob`
    has its text, null once that has expired.
    """

    __tablename__ = "manifests"
    __table_args__ = (
        UniqueConstraint("account_id", "name"),
        Index("ix_manifests_account_id_created_at_id", "account_id", "created_at", "id"),
        Index("ix_manifests_account_id_state_created_at_id", "account_id", "state", "created_at", "id"),
        Index("ix_manifests_blob", "blob"),
        Index("ix_manifests_created_at", "created_at", postgresql_where=HAS_TEXT),
        Index("ix_manifests_waiting", "created_at", postgresql_where=text("state = 'waiting'")),
    )

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str]
    size_bytes: Mapped[int]
    sha256: Mapped[str]
    blob: Mapped[str | None]
    state: Mapped[str]
    problems: Mapped[list[Any]]
    file_id: Mapped[UUID | None] = mapped_column(ForeignKey("files.id"), index=True)
    waits_for: Mapped[str | None]
    brought_by: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]


SORTS: Final[Sorts] = {
    "created_at": (Manifest.created_at, Manifest.id),
    "name": (Manifest.name, Manifest.id),
}


async def page(
    session: AsyncSession,
    account_id: UUID,
    cut: Cut,
    *,
    name: str | None = None,
    states: Collection[ManifestState] | None = None,
) -> Sequence[Manifest]:
    """Manifests of the account, the one of a name, those in one of some states."""
    statement = select(Manifest).where(Manifest.account_id == account_id)
    if name is not None:
        statement = statement.where(Manifest.name == normalize("NFC", name))
    if states:
        statement = statement.where(Manifest.state.in_(states))
    found = await session.scalars(cut.of(statement))
    return found.all()


async def get(session: AsyncSession, account_id: UUID, manifest_id: UUID, *, lock: bool = False) -> Manifest:
    """A manifest of the account, if wanted held by this transaction, or NotFound."""
    return await get_owned(session, Manifest, account_id, manifest_id, called="manifest", lock=lock)


async def find(session: AsyncSession, account_id: UUID, name: str) -> Manifest | None:
    """The manifest of this name, or None."""
    found: Manifest | None = await session.scalar(
        select(Manifest).where(Manifest.account_id == account_id, Manifest.name == name)
    )
    return found


async def to_settle(session: AsyncSession, before: datetime) -> Sequence[Manifest]:
    """The manifests that wait for a data file which has come, or have done so since before a time."""
    come = exists().where(
        File.account_id == Manifest.account_id, File.name == Manifest.waits_for, File.state == FileState.AVAILABLE
    )
    statement = (
        select(Manifest)
        .join(Account, Account.id == Manifest.account_id)
        .where(
            text("manifests.state = 'waiting'"), come | (Manifest.created_at <= before), Account.deleted_at.is_(None)
        )
        .order_by(Manifest.created_at, Manifest.id)
    )
    found = await session.scalars(statement)
    return found.all()


_EXPIRE: Final = expiry.of_blobs("manifests", "state IN ('accepted', 'refused') AND created_at < :before")


def expire(connection: Connection, before: datetime, *, at_most: int) -> list[str]:
    """Forget the texts of manifests that came before a time and wait for nothing; their names stay used (D18)."""
    return list(connection.scalars(_EXPIRE, {"before": before, "at_most": at_most}))


_EXPIRE_DRAFTS: Final = text("""
    WITH old AS MATERIALIZED (
        SELECT draft.id FROM accounts a CROSS JOIN LATERAL (
            SELECT id FROM manifests
            WHERE account_id = a.id AND state = 'draft' AND created_at < :before
            ORDER BY created_at LIMIT :at_most FOR UPDATE SKIP LOCKED
        ) draft
        LIMIT :at_most
    )
    DELETE FROM manifests m USING old WHERE m.id = old.id RETURNING m.blob
""")


def expire_drafts(connection: Connection, before: datetime, *, at_most: int) -> list[str]:
    """Delete the drafts that were made before a time and never submitted; their names are free again (D18)."""
    return list(connection.scalars(_EXPIRE_DRAFTS, {"before": before, "at_most": at_most}))
