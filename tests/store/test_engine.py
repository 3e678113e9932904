"""The pool of the doors: what a cancelled request leaves behind costs nobody else anything."""

import asyncio

import pytest_asyncio
from sqlalchemy import text

from ingestd.store.engine import async_engine, sessions, transaction


@pytest_asyncio.fixture
async def pool(ground):
    """A pool of one connection, which the next one who asks is given again."""
    engine = async_engine(ground.database_url, pool_size=1)
    yield sessions(engine)
    await engine.dispose()


async def test_a_cancelled_statement_leaves_no_connection_that_nobody_can_use(pool, monkeypatch):
    async def work():
        async with transaction(pool) as session:
            await session.connection()
            asyncio.current_task().cancel()
            await session.execute(text("SELECT CAST(:n AS integer)"), [{"n": 1}, {"n": 2}])

    monkeypatch.setattr("psycopg.waiting.MAX_BUSY_TIME", 0)  # a loop that is always busy
    await asyncio.gather(work(), return_exceptions=True)
    async with pool() as session:
        assert await session.scalar(text("SELECT 1")) == 1
