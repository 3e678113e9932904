"""Who works on an ingestion: a process takes it over with a fence, and only the present owner may change it.

Three guards make any job engine harmless: `seq` gives the account's order, `fence` is a number that only the present
owner knows, and the ledger (`store.ledger`) makes a repeat do nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, Select, case, cast, func, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import aliased

from ingestd.domain.errors import IngestdError, NotFound
from ingestd.domain.ingestion import Status
from ingestd.store.accounts import Account
from ingestd.store.data_sources import DataSource
from ingestd.store.files import File
from ingestd.store.ingestions import IS_OPEN, Ingestion

_Earlier = aliased(Ingestion)


class FenceLost(IngestdError):
    """Another process owns the ingestion now; this one stops and changes nothing."""

    code = "fence_lost"


class Gone(NotFound):
    """The ingestion is not there any more: its account was deleted, and nothing is left to do."""


def claim(connection: Connection, ingestion_id: UUID, *, crashed: bool) -> Row[Any]:
    """Take an ingestion over with a new fence, and give its row as it is now; a terminal one is given unchanged.

    `crashed` says that this process's last attempt has crashed; those of dead processes are counted by who finds them.
    """
    connection.execute(
        update(Ingestion)
        .where(Ingestion.id == ingestion_id, IS_OPEN)
        .values(
            fence=Ingestion.fence + 1,
            attempts=Ingestion.attempts + int(crashed),
            status=Status.IN_PROGRESS,
            started_at=func.coalesce(Ingestion.started_at, func.now()),
        )
    )
    return peek(connection, ingestion_id)


def count_crash(connection: Connection, ingestion_ids: Collection[UUID]) -> None:
    """Count an attempt that crashed for each of these ingestions; for none whose row a process holds just now."""
    free = select(Ingestion.id).where(Ingestion.id.in_(ingestion_ids)).with_for_update(skip_locked=True)
    connection.execute(update(Ingestion).where(Ingestion.id.in_(free)).values(attempts=Ingestion.attempts + 1))


def peek(connection: Connection, ingestion_id: UUID) -> Row[Any]:
    """The row as it is now, with the blob it reads and its account's sealed keys, or Gone.

    The blob is its file's, or the error file whose rows it tries again, and null where that has expired.
    """
    row: Row[Any] | None = connection.execute(_with_blob_and_keys().where(Ingestion.id == ingestion_id)).one_or_none()
    if row is None:
        raise Gone
    return row


def _with_blob_and_keys() -> Select[Any]:
    return (
        select(
            Ingestion.__table__,
            Account.data_keys,
            Account.index_key,
            case((Ingestion.rows_of.is_(None), File.blob), else_=_Earlier.error_blob).label("blob"),
            case((Ingestion.rows_of.is_(None), File.size_bytes), else_=_Earlier.error_size_bytes).label("size_bytes"),
            File.received_at,
            DataSource.name.label("data_source_name"),
        )
        .outerjoin(DataSource, DataSource.id == Ingestion.data_source_id)
        .join(Account, Account.id == Ingestion.account_id)
        .outerjoin(File, File.id == Ingestion.file_id)
        .outerjoin(_Earlier, _Earlier.id == Ingestion.rows_of)
    )


def change(connection: Connection, ingestion_id: UUID, fence: int, **values: Any) -> None:
    """Change columns of an ingestion that this process owns, or raise FenceLost."""
    changed = connection.execute(
        update(Ingestion)
        .where(Ingestion.id == ingestion_id, Ingestion.fence == fence, Ingestion.status == Status.IN_PROGRESS)
        .values(**values)
    )
    if changed.rowcount == 0:
        raise FenceLost


def finish(connection: Connection, ingestion_id: UUID, fence: int, *, warnings: Sequence[str], **values: Any) -> None:
    """Change an ingestion for the last time, adding warnings to those it began with, or raise FenceLost."""
    more = cast(list(warnings), JSONB)
    change(connection, ingestion_id, fence, warnings=Ingestion.warnings.op("||")(more), **values)


def guard(connection: Connection, ingestion_id: UUID, fence: int) -> None:
    """Hold the ingestion for the rest of this transaction, or raise FenceLost; the last statement before a commit."""
    held = connection.execute(
        select(Ingestion.id)
        .where(Ingestion.id == ingestion_id, Ingestion.fence == fence, Ingestion.status == Status.IN_PROGRESS)
        .with_for_update(read=True)
    )
    if held.first() is None:
        raise FenceLost
