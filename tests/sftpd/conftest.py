"""The door on a real database and a real folder of blobs, and clients that knock on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.conftest import own_database
from tests.sftpd.world import Client, World, opened

from ingestd.ingest import engine as jobs
from ingestd.ingest.engine import JobEngine
from ingestd.store import deliveries, engine, import_keys, replicas
from ingestd.store.base import Base

DECLARED = (deliveries, import_keys, replicas)  # importing a table declares it


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """The URL of a real PostgreSQL with the tables of the job engine."""
    with own_database() as url:
        jobs.migrate(url)
        yield url


@pytest.fixture(scope="session")
async def doors(database: str) -> AsyncIterator[AsyncEngine]:
    made = engine.async_engine(database)
    async with made.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield made
    await made.dispose()


@pytest.fixture(scope="session")
def job_engine(database: str, doors: AsyncEngine) -> Iterator[JobEngine]:
    sql = engine.engine(database)
    made = JobEngine(database, sql, replica="test")
    yield made
    made.close()
    sql.dispose()


@pytest.fixture
async def world(doors: AsyncEngine, job_engine: JobEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with opened(doors, job_engine, tmp_path) as made:
        yield made


@pytest.fixture
def open_world(doors: AsyncEngine, job_engine: JobEngine, tmp_path: Path) -> Callable[..., Any]:
    """Open the door with settings of one's own."""
    return lambda **settings: opened(doors, job_engine, tmp_path, **settings)


@pytest.fixture
async def client(world: World) -> Client:
    return await world.client()
