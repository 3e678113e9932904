"""Telling: a notice is a row written in the transaction of the fact, and delivered later (P4)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd import telemetry
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.domain.ingestion import ActorView, Channel, IngestionView
from ingestd.domain.notice import NoticeType, ReceivedFile, thin
from ingestd.domain.plan import Target
from ingestd.domain.recipient import normal_address
from ingestd.domain.run import RESULT_OF, Outcome
from ingestd.store import ingestion_views, messages, notices, runs, segments
from ingestd.store.files import File
from ingestd.store.ingestions import Ingestion
from ingestd.store.runs import Run

log = telemetry.logger(__name__)


def tell_ingestion(connection: Connection, ingestion_id: UUID, notice: NoticeType, *, now: datetime) -> None:
    """Write that something happened to an ingestion, which is shown as it stands in this transaction."""
    row = connection.execute(ingestion_views.shown(Ingestion.id == ingestion_id)).one()
    view = thin(ingestion_views.view(row))
    told = notices.new(row.account_id, notice, view.model_dump(mode="json"), subject_id=ingestion_id, now=now)
    connection.execute(notices.adding(told, chosen=row.webhook_ids))
    connection.execute(messages.adding(told, to=_addresses(row, notice)))
    if (
        view.status.terminal  # completed, too: its segment may have been written off
        and row.data_source_id is not None
        and row.segment_id is not None
        and segments.take_back(connection, row.segment_id, now=now)
    ):
        log.info("segment_taken_back", segment=ids.show(Prefix.SEGMENT, row.segment_id))
    if view.status.terminal and view.channel is Channel.SCHEDULE:
        _end_run(connection, view, ingestion_id, now=now)
    if notice is NoticeType.INGESTION_COMPLETED and row.target == Target.SEGMENT:
        tell_segment(connection, NoticeType.SEGMENT_REFRESHED, row.segment_id, now=now)


def tell_segment(connection: Connection, notice: NoticeType, segment_id: UUID, *, now: datetime) -> None:
    """Write that something happened to a segment, which is shown as it stands in this transaction; of none deleted."""
    row = connection.execute(segments.of_id(segment_id)).one()
    if row.deleted_at is not None:
        return
    told = notices.new(row.account_id, notice, segments.told(row), subject_id=segment_id, now=now)
    connection.execute(notices.adding(told, chosen=row.webhook_ids))


def _end_run(connection: Connection, view: IngestionView, ingestion_id: UUID, *, now: datetime) -> None:
    """End the run that brought an ingestion's file together with it; mail has gone out for the ingestion."""
    error = view.error.model_dump() if view.error else None
    run_id = runs.end_of_ingestion(connection, ingestion_id, RESULT_OF[view.status], error=error, now=now)
    if run_id is not None:
        tell_run(connection, run_id, to=(), now=now)


def tell_run(connection: Connection, run_id: UUID, *, to: Collection[str], now: datetime) -> None:
    """Write how a run has ended; of a failure these addresses are told by mail, too (S36)."""
    row = connection.execute(runs.shown(Run.id == run_id)).one()
    view = runs.view(row)
    notice = NoticeType.RUN_SUCCEEDED if view.outcome is Outcome.SUCCEEDED else NoticeType.RUN_FAILED
    told = notices.new(row.account_id, notice, view.model_dump(mode="json"), subject_id=run_id, now=now)
    connection.execute(notices.adding(told, chosen=runs.webhooks_of(connection, row)))
    connection.execute(messages.adding(told, to=to))


async def tell(session: AsyncSession, notice: NoticeType, ingestion_id: UUID, *, now: datetime) -> None:
    """Write the notice in a door's transaction, whose changes must have been flushed."""
    connection = await session.connection()
    await connection.run_sync(tell_ingestion, ingestion_id, notice, now=now)


async def tell_received(session: AsyncSession, file: File) -> None:
    """Write that a file has come whole, under the name that it has now."""
    received = ReceivedFile(
        id=ids.show(Prefix.FILE, file.id),
        name=file.name,
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        uploaded_by=ActorView.model_validate(file.uploaded_by),
        received_at=file.received_at,
    )
    data = received.model_dump(mode="json")
    told = notices.new(file.account_id, NoticeType.FILE_RECEIVED, data, subject_id=file.id, now=file.received_at)
    await session.execute(notices.adding(told))


async def tell_of_segment(session: AsyncSession, notice: NoticeType, segment_id: UUID, *, now: datetime) -> None:
    """`tell_segment` in a door's transaction, whose changes must have been flushed."""
    connection = await session.connection()
    await connection.run_sync(tell_segment, notice, segment_id, now=now)


def _addresses(row: Row[Any], notice: NoticeType) -> Sequence[str] | None:
    """Who is written to; None is every recipient, where somebody has to act.

    The recipients of a schedule hear of failures only (S36), and those of a data source's file from its start on (S69).
    """
    if notice is NoticeType.INGESTION_HELD:
        return None
    if notice is NoticeType.INGESTION_SCHEDULED and row.data_source_id is None:
        return ()
    if row.channel == Channel.SCHEDULE and notice is not NoticeType.INGESTION_FAILED:
        return ()
    return [address for text in row.recipients if (address := normal_address(text))]
