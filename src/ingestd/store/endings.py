"""The end of an account: it is shut and its keys are gone at once, its rows follow, its audit trail stays (T114).

What lies sealed in the blob store nobody can read from then on; the upkeep finds no row that names it, and removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Engine, Table, delete, select, text, tuple_, update
from sqlalchemy.orm import Session

from ingestd.domain.errors import Conflict, NotFound
from ingestd.store.accounts import Account
from ingestd.store.api_keys import ApiKey
from ingestd.store.audit import AuditEntry
from ingestd.store.base import Base
from ingestd.store.import_keys import ImportKey
from ingestd.store.ingestions import IS_OPEN, Ingestion
from ingestd.store.segments import Segment, SegmentMember
from ingestd.store.webhooks import Webhook

_DESTROYED: Final = b""

AT_ONCE: Final = 10_000
"""Rows that a transaction removes, so that none is long however large the account was."""

_BY_KEY: Final = text("SELECT set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)")
"""In this transaction each row is found by its key: a pass of a large table would be cheaper, but not one per batch."""


def shut(session: Session, account_id: UUID, *, now: datetime) -> Account:
    """Shut an account for ever, or raise NotFound, or Conflict while an ingestion of it waits or runs.

    Its row lock keeps new ingestions out meanwhile. An asynchronous session calls it by `run_sync`.
    """
    held = select(Account).where(Account.id == account_id, Account.deleted_at.is_(None)).with_for_update()
    account = session.scalar(held)
    if account is None:
        raise NotFound("There is no such account.")
    if session.scalar(select(Ingestion.id).where(Ingestion.account_id == account_id, IS_OPEN).limit(1)):
        raise Conflict("Ingestions of the account wait or run. Cancel them, or wait.", code="account_busy")
    account.deleted_at = now
    account.data_keys = account.index_key = _DESTROYED
    for table in (ApiKey, ImportKey):
        session.execute(delete(table).where(table.account_id == account_id))
    session.execute(update(Webhook).where(Webhook.account_id == account_id).values(enabled=False))
    return account


def remove_all(engine: Engine, stopped: Callable[[], bool] = lambda: False) -> int:
    """Remove the rows of every account that was shut, some of a table in a transaction; the number of accounts.

    Ends early when it is `stopped`; the next call goes on.
    """
    with engine.begin() as connection:
        shut_ones = connection.scalars(select(Account.id).where(Account.deleted_at.is_not(None))).all()
    for account_id in shut_ones:
        for table, rows in _of(account_id):
            while not stopped() and _remove_some(engine, table, rows):
                pass
    return 0 if stopped() else len(shut_ones)


def _remove_some(engine: Engine, table: Table, rows: ColumnElement[bool]) -> bool:
    """Remove rows of a table, the newest first, since they may refer to older ones; whether there can be more."""
    key = table.primary_key.columns
    newest = select(*key).where(rows).order_by(*(column.desc() for column in key)).limit(AT_ONCE)
    with engine.begin() as connection:
        connection.execute(_BY_KEY)
        return connection.execute(delete(table).where(tuple_(*key).in_(newest))).rowcount == AT_ONCE


def _of(account_id: UUID) -> Iterator[tuple[Table, ColumnElement[bool]]]:
    """Every table with rows of accounts but the audit trail, and those of this one; what refers to others first."""
    segments = select(Segment.number).where(Segment.account_id == account_id)
    yield Base.metadata.tables[SegmentMember.__tablename__], SegmentMember.segment.in_(segments)
    for table in reversed(Base.metadata.sorted_tables):
        if table.name == Account.__tablename__:
            yield table, table.c.id == account_id
        elif "account_id" in table.c and table.name != AuditEntry.__tablename__:
            yield table, table.c.account_id == account_id
        for key in table.foreign_keys if "account_id" not in table.c else ():
            owner = key.column.table
            if "account_id" in owner.c:
                yield table, key.parent.in_(select(key.column).where(owner.c.account_id == account_id))
