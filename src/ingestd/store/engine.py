"""Connections to PostgreSQL, and the one place where the clock is read and ids are made.

The doors and the notices use the asynchronous engine, the flow of an ingestion the synchronous one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import uuid_utils
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

Sessions = async_sessionmaker[AsyncSession]


def utc_now() -> datetime:
    """The present moment, UTC."""
    return datetime.now(UTC)


def new_id() -> UUID:
    """A new UUIDv7: unique, and in the order of making."""
    return UUID(int=uuid_utils.uuid7().int)


def async_engine(url: str, *, pool_size: int = 20) -> AsyncEngine:
    """Open the pool of the doors and the notices; statements never show their parameters in errors (T102)."""
    return create_async_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
    )


def sessions(engine: AsyncEngine) -> Sessions:
    """A maker of sessions; rows stay readable after the commit."""
    return async_sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def transaction(maker: Sessions) -> AsyncIterator[AsyncSession]:
    """One session, one transaction: commits at the end, rolls back on any error."""
    async with maker() as session, session.begin():
        yield session


def engine(url: str, *, pool_size: int = 5) -> Engine:
    """Open the synchronous pool of the flow, or of one data-plane process."""
    return create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=10,
        pool_pre_ping=True,
        hide_parameters=True,
    )
