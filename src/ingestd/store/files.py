"""Files: what an account has uploaded, whatever door brought it (D18)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from unicodedata import normalize
from uuid import UUID

from sqlalchemy import Connection, ForeignKey, Index, ScalarSelect, select, text, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.domain.errors import Conflict
from ingestd.store import usage
from ingestd.store.base import Base, Key
from ingestd.store.owned import get_owned
from ingestd.store.page import Cut, Sorts


class FileState(StrEnum):
    """What became of a file."""

    AVAILABLE = "available"
    CONSUMED = "consumed"
    SUPERSEDED = "superseded"
    REMOVED = "removed"
    EXPIRED = "expired"


IS_LIVE: Final = text("state IN ('available', 'consumed', 'superseded')")
"""Whether a file's bytes are there, and count against the quota; as the indexes say it."""


class File(Base):
    """A file received whole. `blob` is where its sealed bytes are; ids are made in the order of arrival."""

    __tablename__ = "files"
    __table_args__ = (
        Index("ix_files_account_id_name_received_at_id", "account_id", "name", "received_at", "id"),
        Index("ix_files_blob", "blob", postgresql_where=IS_LIVE),
        Index("ix_files_received_at", "received_at", postgresql_where=IS_LIVE),
        Index("ix_files_account_id_received_at_id", "account_id", "received_at", "id"),
        Index("ix_files_account_id_state_received_at_id", "account_id", "state", "received_at", "id"),
    )

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str]
    size_bytes: Mapped[int]
    sha256: Mapped[str]
    blob: Mapped[str]
    state: Mapped[str]
    uploaded_by: Mapped[dict[str, Any]]
    received_at: Mapped[datetime]


SORTS: Final[Sorts] = {"received_at": (File.received_at, File.id)}


async def page(
    session: AsyncSession,
    account_id: UUID,
    cut: Cut,
    *,
    name: str | None = None,
    states: Collection[FileState] | None = None,
) -> Sequence[File]:
    """Files of the account, those of a name, those in one of some states."""
    statement = select(File).where(File.account_id == account_id)
    if name is not None:
        statement = statement.where(File.name == normalize("NFC", name))
    if states:
        statement = statement.where(File.state.in_(states))
    found = await session.scalars(cut.of(statement))
    return found.all()


async def get(session: AsyncSession, account_id: UUID, file_id: UUID, *, lock: bool = False) -> File:
    """A file of the account, if wanted held by this transaction, or NotFound."""
    return await get_owned(session, File, account_id, file_id, called="file", lock=lock)


async def get_kept(session: AsyncSession, account_id: UUID, file_id: UUID, *, lock: bool = False) -> File:
    """A file of the account whose bytes are still kept, or NotFound, or Conflict where they are not; see `get`."""
    file = await get(session, account_id, file_id, lock=lock)
    if file.state in {FileState.EXPIRED, FileState.REMOVED}:
        raise Conflict("The file is no longer kept; upload it again.", code="file_expired")
    return file


async def get_available(session: AsyncSession, account_id: UUID, file_id: UUID) -> File:
    """A file of the account that waits to be taken, held by this transaction, or NotFound or Conflict "file_taken"."""
    file = await get(session, account_id, file_id, lock=True)
    if file.state != FileState.AVAILABLE:
        raise Conflict("The file does not wait any more. Upload it again.", code="file_taken")
    return file


async def find_available(session: AsyncSession, account_id: UUID, name: str, *, lock: bool = True) -> File | None:
    """The newest upload of a name that no manifest has taken yet, held by this transaction unless told, or None."""
    statement = (
        select(File)
        .where(File.account_id == account_id, File.name == name, File.state == FileState.AVAILABLE)
        .order_by(File.received_at.desc(), File.id.desc())
        .limit(1)
    )
    found: File | None = await session.scalar(statement.with_for_update() if lock else statement)
    return found


async def find_shown(session: AsyncSession, account_id: UUID, name: str, *, since: datetime) -> File | None:
    """The newest upload of a name that waits for a manifest, or was received since and taken; or None."""
    found: File | None = await session.scalar(
        select(File)
        .where(
            File.account_id == account_id,
            File.name == name,
            (File.state == FileState.AVAILABLE) | ((File.state == FileState.CONSUMED) & (File.received_at >= since)),
        )
        .order_by(File.received_at.desc(), File.id.desc())
        .limit(1)
    )
    return found


def name_of(file_id: UUID | None) -> ScalarSelect[str]:
    """The name of a file, looked up by the statement that writes it down."""
    return select(File.name).where(File.id == file_id).scalar_subquery()


async def take(session: AsyncSession, file: File) -> None:
    """Consume a file; older uploads of its name that nobody took are superseded (D18)."""
    await _supersede_older(session, file)
    file.state = FileState.CONSUMED


async def _supersede_older(session: AsyncSession, file: File) -> None:
    await session.execute(
        update(File)
        .where(
            File.account_id == file.account_id,
            File.name == file.name,
            File.state == FileState.AVAILABLE,
            File.received_at <= file.received_at,
            File.id != file.id,
        )
        .values(state=FileState.SUPERSEDED)
    )


async def listing(session: AsyncSession, account_id: UUID, *, after: str, at_most: int) -> list[File]:
    """The newest available upload of each name, by name, those after a name: what an SFTP client sees."""
    newest = (
        select(File)
        .ext(distinct_on(File.name))
        .where(File.account_id == account_id, File.state == FileState.AVAILABLE, File.name > after)
        .order_by(File.name, File.received_at.desc(), File.id.desc())
        .limit(at_most)
    )
    return list(await session.scalars(newest))


async def rename(session: AsyncSession, file: File, name: str, *, now: datetime) -> None:
    """Give an available file another name; it counts as received now (uploads under a temporary name).

    Older uploads of its old name are superseded: otherwise the next oldest would appear in its place.
    """
    await _supersede_older(session, file)
    file.name = name
    file.received_at = now


async def remove(session: AsyncSession, account_id: UUID, name: str) -> list[str]:
    """Remove every available upload of a name and give their room back; gives the blobs that nothing names then."""
    found = await session.scalars(
        select(File)
        .where(File.account_id == account_id, File.name == name, File.state == FileState.AVAILABLE)
        .order_by(File.received_at.desc(), File.id.desc())
        .with_for_update()
    )
    removed = found.all()
    for file in removed:
        file.state = FileState.REMOVED
    await usage.give_back(session, account_id, sum(file.size_bytes for file in removed))
    return [file.blob for file in removed]


async def remove_one(session: AsyncSession, file: File) -> None:
    """Remove an available file and give its room back; nothing names its blob then."""
    file.state = FileState.REMOVED
    await usage.give_back(session, file.account_id, file.size_bytes)


_EXPIRE = text("""
    UPDATE files SET state = 'expired' WHERE id IN (
        SELECT id FROM files
        WHERE state IN ('available', 'consumed', 'superseded') AND received_at < :before AND NOT EXISTS (
            SELECT FROM ingestions i WHERE i.file_id = files.id AND i.status IN ('scheduled', 'in_progress')
        )
        LIMIT :at_most FOR UPDATE SKIP LOCKED
    )
    RETURNING account_id, size_bytes, blob
""")


def expire(connection: Connection, before: datetime, *, at_most: int) -> list[str]:
    """Expire files received before a time that no open ingestion needs, and give their room back; gives their blobs."""
    expired = connection.execute(_EXPIRE, {"before": before, "at_most": at_most}).all()
    usage.free(connection, ((row.account_id, row.size_bytes) for row in expired))
    return [row.blob for row in expired]
