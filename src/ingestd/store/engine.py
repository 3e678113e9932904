"""Connections to PostgreSQL, and the one place where the clock is read and ids are made.

The doors and the notices use the asynchronous engine, the flow of an ingestion the synchronous one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import psycopg
import uuid_utils
from psycopg.pq import PipelineStatus, TransactionStatus
from pydantic_core import from_json
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, configure_mappers
from sqlalchemy.pool import ConnectionPoolEntry

Sessions = async_sessionmaker[AsyncSession]
DatabaseError = psycopg.Error
PoolError = SQLAlchemyError
ConnectionInfo = psycopg.ConnectionInfo


def raw(connection: Connection) -> psycopg.Connection[Any]:
    """The driver's connection, which knows COPY, in the same transaction."""
    found = connection.connection.driver_connection
    assert isinstance(found, psycopg.Connection)
    return found


@contextmanager
def committing(url: str) -> Iterator[Session]:
    """One synchronous session, one transaction, for a command; rows stay readable after the commit."""
    opened = engine(url, pool_size=1)
    try:
        with Session(opened, expire_on_commit=False) as session, session.begin():
            yield session
    finally:
        opened.dispose()


@contextmanager
def autocommitting(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A driver's connection for questions, each a transaction of its own."""
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        yield connection


@contextmanager
def asking(pool: Engine) -> Iterator[psycopg.Connection[Any]]:
    """The same, of a pool."""
    with pool.connect() as connection:
        yield raw(connection.execution_options(isolation_level="AUTOCOMMIT"))


def fill(pool: Engine, connections: int) -> None:
    """Make the mapping of tables, and open so many connections of a pool, before they are needed.

    None is opened if the database does not answer.
    """
    configure_mappers()
    with suppress(SQLAlchemyError), ExitStack() as stack:
        for _ in range(connections):
            stack.enter_context(pool.connect())


_REFUSED: Final = ("sending query", "sending prepared query")
"""How psycopg begins where a statement did not leave: it has too many parameters, or another is not done yet."""

_BEYOND_LIMITS: Final = "54"
"""The class of PostgreSQL's errors that what a statement brings is too much, for an index say: it always will be."""


def is_transient(error: BaseException) -> bool:
    """Whether the database failed in a way that passes: a lost connection, a deadlock, a time-out, a full disk."""
    error = _origin(error)
    if not isinstance(error, psycopg.OperationalError):
        return False
    if error.sqlstate is None:  # the driver's own: the connection is lost, or was never made
        return not str(error).startswith(_REFUSED)
    return not error.sqlstate.startswith(_BEYOND_LIMITS)


def is_forbidden(error: BaseException) -> bool:
    """Whether the database refuses what our role has no right to."""
    return isinstance(_origin(error), psycopg.errors.InsufficientPrivilege)


def _origin(error: BaseException) -> BaseException:
    """What the driver raised, where SQLAlchemy has wrapped it."""
    while isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    return error


async def ping(maker: Sessions) -> bool:
    """Whether the database answers."""
    try:
        async with maker() as session:
            await session.execute(text("SELECT 1"))
    except (SQLAlchemyError, OSError):
        return False
    return True


def utc_now() -> datetime:
    """The present moment, UTC."""
    return datetime.now(UTC)


def new_id() -> UUID:
    """A new UUIDv7: unique, and in the order of making."""
    return UUID(int=uuid_utils.uuid7().int)


def id_at(moment: datetime) -> UUID:
    """The least id that is made at a moment or later."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def moment_of(made: UUID) -> datetime:
    """When an id was made."""
    return datetime.fromtimestamp((made.int >> 80) / 1000, UTC)


def async_engine(url: str, *, pool_size: int = 20) -> AsyncEngine:
    """Open the pool of the doors and the notices; statements never show their parameters in errors (T102)."""
    opened = create_async_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
        json_deserializer=from_json,  # a quarter of the time of json.loads, and lists read thousands
    )
    event.listen(opened.sync_engine, "checkin", _discard_unless_idle)
    return opened


def _discard_unless_idle(connection: Any, entry: ConnectionPoolEntry) -> None:
    """Keep a connection that cannot begin a transaction out of the pool: its next user would fail.

    A task that is cancelled as psycopg enters the pipeline of an `executemany` leaves the connection in that pipeline,
    and a rollback does not take it out.
    """
    if connection is not None and (
        connection.info.transaction_status != TransactionStatus.IDLE
        or connection.info.pipeline_status != PipelineStatus.OFF
    ):
        entry.invalidate()


def sessions(engine: AsyncEngine) -> Sessions:
    """A maker of sessions; rows stay readable after the commit."""
    return async_sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def transaction(maker: Sessions) -> AsyncIterator[AsyncSession]:
    """One session, one transaction: commits at the end, rolls back on any error."""
    async with maker() as session, session.begin():
        yield session


BULK: Final = {"work_mem": "64MB", "temp_buffers": "64MB"}
"""Settings of a data-plane process's connections: what a part stages stays in memory."""


def engine(url: str, *, pool_size: int = 5, settings: Mapping[str, str] | None = None) -> Engine:
    """Open the synchronous pool of the flow, or, with the settings BULK, of one data-plane process."""
    options = " ".join(f"-c {name}={value}" for name, value in (settings or {}).items())
    return create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        connect_args={"options": options} if options else {},
        pool_size=pool_size,
        max_overflow=10,
        pool_pre_ping=True,
        hide_parameters=True,
        json_deserializer=from_json,  # a quarter of the time of json.loads, and lists read thousands
    )
