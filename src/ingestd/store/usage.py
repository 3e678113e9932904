"""Usage: the bytes that each account keeps, those of uploads still on their way included (T42, I9).

`stored_bytes` is the size of the files that are still there, and of what open uploads have reserved. A transaction
holds the account, then files, the newest first, then a reservation, and then the usage: of these what it needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, ForeignKey, Update, delete, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.store.base import Base, Key


class Usage(Base):
    """What an account keeps; there is no row before its first file."""

    __tablename__ = "usage"

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
    stored_bytes: Mapped[int]


class Reservation(Base):
    """What a large upload has taken so far; one that has not grown for long belongs to a process that died."""

    __tablename__ = "reservations"

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    reserved_bytes: Mapped[int]
    renewed_at: Mapped[datetime]


async def stored(session: AsyncSession, account_id: UUID) -> int:
    """The bytes that an account keeps now."""
    found = await session.get(Usage, account_id)
    return found.stored_bytes if found else 0


async def take(session: AsyncSession, account_id: UUID, more: int, *, limit: int) -> bool:
    """Count some bytes more, or change nothing and give False where they would be beyond the limit (T42)."""
    if more > limit:
        return False
    row = insert(Usage).values(account_id=account_id, stored_bytes=more)
    counted = await session.execute(
        row.on_conflict_do_update(
            index_elements=[Usage.account_id],
            set_={"stored_bytes": Usage.stored_bytes + more},
            where=Usage.stored_bytes + more <= limit,
        ).returning(Usage.stored_bytes)
    )
    return counted.first() is not None


async def give_back(session: AsyncSession, account_id: UUID, freed: int) -> None:
    """Count some bytes less."""
    await session.execute(_less(account_id, freed))


async def reserve(
    session: AsyncSession, reservation_id: UUID, account_id: UUID, more: int, *, limit: int, now: datetime
) -> bool:
    """Let a reservation grow, or give False where the account has no room for it."""
    row = insert(Reservation).values(id=reservation_id, account_id=account_id, reserved_bytes=more, renewed_at=now)
    await session.execute(
        row.on_conflict_do_update(
            index_elements=[Reservation.id],
            set_={"reserved_bytes": Reservation.reserved_bytes + more, "renewed_at": now},
        )
    )
    return await take(session, account_id, more, limit=limit)


async def end(session: AsyncSession, reservation_id: UUID) -> int:
    """Forget a reservation; gives its bytes, which stay counted for the caller to settle."""
    found: int | None = await session.scalar(
        delete(Reservation).where(Reservation.id == reservation_id).returning(Reservation.reserved_bytes)
    )
    return found or 0


def end_stale(connection: Connection, before: datetime) -> int:
    """Give back the reservations that have not grown since the time; their number."""
    gone = connection.execute(
        delete(Reservation)
        .where(Reservation.renewed_at < before)
        .returning(Reservation.account_id, Reservation.reserved_bytes)
    ).all()
    free(connection, gone)
    return len(gone)


def free(connection: Connection, freed: Iterable[tuple[UUID, int]]) -> None:
    """Count bytes of some accounts less."""
    total = Counter[UUID]()
    for account_id, size in freed:
        total[account_id] += size
    for account_id in sorted(total):
        connection.execute(_less(account_id, total[account_id]))


def _less(account_id: UUID, freed: int) -> Update:
    return update(Usage).where(Usage.account_id == account_id).values(stored_bytes=Usage.stored_bytes - freed)
