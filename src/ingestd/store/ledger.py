"""The ledger: which parts of an ingestion have been applied, each written in the transaction that applies it.

A repeat finds its row and does nothing; a crash that takes a part's rows takes its entry as well.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, ForeignKey, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from ingestd.store.base import Base


class LedgerEntry(Base):
    """A part that has been applied; `counts` is what it changed."""

    __tablename__ = "ledger"

    ingestion_id: Mapped[UUID] = mapped_column(ForeignKey("ingestions.id"), primary_key=True)
    part: Mapped[str] = mapped_column(primary_key=True)
    counts: Mapped[dict[str, Any]]
    applied_at: Mapped[datetime]


def open_part(connection: Connection, ingestion_id: UUID, part: str) -> bool:
    """Write the ledger row of a part in the caller's transaction; False where the part has been applied before."""
    entry = insert(LedgerEntry).values(ingestion_id=ingestion_id, part=part, counts={}, applied_at=func.now())
    written = connection.execute(entry.on_conflict_do_nothing().returning(LedgerEntry.part))
    return written.first() is not None


def close_part(connection: Connection, ingestion_id: UUID, part: str, counts: dict[str, int]) -> None:
    """Write what a part changed into its ledger row, in the transaction that applies it."""
    connection.execute(
        update(LedgerEntry)
        .where(LedgerEntry.ingestion_id == ingestion_id, LedgerEntry.part == part)
        .values(counts=counts)
    )


def settle_part(connection: Connection, ingestion_id: UUID, part: str) -> dict[str, int] | None:
    """What a part changed, None if it is not there; once the caller's transaction has committed, it is on the disk.

    The row is written again, so that there is something to bring to the disk, and with it all that came before.
    """
    row = (LedgerEntry.ingestion_id == ingestion_id, LedgerEntry.part == part)
    again = update(LedgerEntry).where(*row).values(applied_at=func.now()).returning(LedgerEntry.counts)
    return connection.execute(again).scalar_one_or_none()


def applied(connection: Connection, ingestion_id: UUID) -> dict[str, dict[str, int]]:
    """What each applied part changed, by part."""
    rows = connection.execute(
        select(LedgerEntry.part, LedgerEntry.counts).where(LedgerEntry.ingestion_id == ingestion_id)
    )
    return {part: counts for part, counts in rows}  # noqa: C416 -- rows are no pairs for dict()


_EXPIRE: Final = text("""
    DELETE FROM ledger WHERE ctid = ANY (ARRAY(
        SELECT l.ctid FROM ledger l JOIN ingestions i ON i.id = l.ingestion_id
        WHERE l.ingestion_id < :before AND i.status NOT IN ('scheduled', 'in_progress')
        ORDER BY l.ingestion_id LIMIT :at_most
    ))
""")


def expire(connection: Connection, before: UUID, *, at_most: int) -> int:
    """Forget the parts of ingestions made before an id that have ended; their number."""
    return connection.execute(_EXPIRE, {"before": before, "at_most": at_most}).rowcount
