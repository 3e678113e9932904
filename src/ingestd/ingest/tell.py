"""Telling: a notice is a row written in the transaction of the fact, and delivered later (P4)."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.domain.notice import NoticeType, thin
from ingestd.store import ingestions, notices
from ingestd.store.engine import new_id
from ingestd.store.ingestions import Ingestion
from ingestd.store.notices import Notice


def tell_ingestion(connection: Connection, ingestion_id: UUID, notice: NoticeType, *, now: datetime) -> None:
    """Write that something happened to an ingestion, which is shown as it stands in this transaction."""
    row = connection.execute(ingestions.shown(Ingestion.id == ingestion_id)).one()
    connection.execute(
        notices.adding(
            Notice(
                id=new_id(),
                account_id=row.account_id,
                type=notice,
                subject_id=ingestion_id,
                data=thin(ingestions.view(row)).model_dump(mode="json"),
                created_at=now,
            )
        )
    )


async def tell(session: AsyncSession, notice: NoticeType, ingestion_id: UUID, *, now: datetime) -> None:
    """Write the notice in a door's transaction, whose changes must have been flushed."""
    connection = await session.connection()
    await connection.run_sync(tell_ingestion, ingestion_id, notice, now=now)
