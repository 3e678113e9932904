"""Where webhooks are chosen: import keys, segments and data sources (S136)."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import any_, func, update
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.store.data_sources import DataSource
from ingestd.store.import_keys import ImportKey
from ingestd.store.segments import Segment

_CHOOSING: Final = (ImportKey, Segment, DataSource)


async def forget(session: AsyncSession, account_id: UUID, webhook_id: UUID) -> None:
    """Take a webhook that is deleted from all that it was chosen for."""
    for table in _CHOOSING:
        chosen = update(table).where(table.account_id == account_id, any_(table.webhook_ids) == webhook_id)
        await session.execute(chosen.values(webhook_ids=func.array_remove(table.webhook_ids, webhook_id)))
