"""The activity log: the ingestions of an account by time, filtered, as a page or as a whole (S71, S137)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from unicodedata import normalize
from uuid import UUID

from sqlalchemy import Row, Select, text
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.domain.ingestion import Channel, Status
from ingestd.domain.plan import Target
from ingestd.store.ingestion_views import shown
from ingestd.store.ingestions import Ingestion
from ingestd.store.page import Cut, Sorts

SORTS: Final[Sorts] = {"created_at": (Ingestion.created_at, Ingestion.id)}

AT_A_TIME: Final = 500
ALL_AT_ONE_MOMENT: Final = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
    "SET LOCAL idle_in_transaction_session_timeout = '1min'",  # a reader who stops reading holds nothing for long
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which ingestions; what is empty or None is no matter. `uploader` is a typed id, the times are half-open."""

    statuses: Collection[Status] = ()
    channels: Collection[Channel] = ()
    targets: Collection[Target] = ()
    uploader: str | None = None
    data_source_id: UUID | None = None
    segment_id: UUID | None = None
    file_name: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


async def page(session: AsyncSession, account_id: UUID, cut: Cut, wanted: Wanted) -> list[Row[Any]]:
    """Some of the wanted ingestions of the account, as rows of `ingestion_views.shown`."""
    found = await session.execute(cut.of(_of(account_id, wanted)))
    return list(found.all())


async def export(session: AsyncSession, account_id: UUID, wanted: Wanted) -> AsyncIterator[Sequence[Row[Any]]]:
    """All the wanted ingestions of the account as they are at one moment, newest first, a few at a time.

    Nothing else may have been asked in this transaction yet.
    """
    for setting in ALL_AT_ONE_MOMENT:
        await session.execute(text(setting))
    statement = _of(account_id, wanted).order_by(Ingestion.created_at.desc(), Ingestion.id.desc())
    found = await session.stream(statement, execution_options={"yield_per": AT_A_TIME})
    async for rows in found.partitions():
        yield rows


def _of(account_id: UUID, wanted: Wanted) -> Select[Any]:
    conditions = [Ingestion.account_id == account_id]
    if wanted.statuses:
        conditions.append(Ingestion.status.in_(wanted.statuses))
    if wanted.channels:
        conditions.append(Ingestion.channel.in_(wanted.channels))
    if wanted.targets:
        conditions.append(Ingestion.target.in_(wanted.targets))
    if wanted.uploader is not None:
        conditions.append(Ingestion.uploaded_by["id"].astext == wanted.uploader)
    if wanted.segment_id is not None:
        conditions.append(Ingestion.segment_id == wanted.segment_id)
    if wanted.data_source_id is not None:
        conditions.append(Ingestion.data_source_id == wanted.data_source_id)
    if wanted.file_name is not None:
        conditions.append(Ingestion.file_name == normalize("NFC", wanted.file_name))
    if wanted.created_from is not None:
        conditions.append(Ingestion.created_at >= wanted.created_from)
    if wanted.created_to is not None:
        conditions.append(Ingestion.created_at < wanted.created_to)
    return shown(*conditions)
