"""The pool of the doors, where a cancelled request costs nobody else anything; and which failures pass."""

import asyncio
import os
import socket
from contextlib import closing

import psycopg
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ingestd.store.engine import async_engine, engine, is_transient, sessions, transaction


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


def cut(connection):
    """Let the network break a connection off, which neither end has done."""
    with socket.socket(fileno=os.dup(connection.fileno())) as broken:
        broken.shutdown(socket.SHUT_RDWR)


def ended_by_the_server(connection):
    with psycopg.connect(connection.info.dsn, password=connection.info.password, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 60000)", [connection.info.backend_pid])
    connection.execute("SELECT 1")


def cut_before_a_statement(connection):
    cut(connection)
    connection.execute("SELECT 1")


def cut_some_statements_ago(connection):
    cut(connection)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.execute("SELECT 1")


def cut_in_a_copy(connection):
    connection.execute("CREATE TEMP TABLE copied (a text)")
    with connection.cursor().copy("COPY copied FROM STDIN") as copy:
        cut(connection)
        while True:
            copy.write(b"a\n" * 10_000)


def nobody_there(_):
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        psycopg.connect(host="127.0.0.1", port=unheard.getsockname()[1])


def too_slow(connection):
    connection.execute("SET statement_timeout = 1; SELECT pg_sleep(60)")


def too_many_parameters(connection):
    connection.execute("SELECT " + ", ".join(["%s"] * 65_536), range(65_536))


def within_another_statement(connection):
    connection.pgconn.send_query(b"SELECT 1")
    connection.execute("SELECT 1")


def too_long_for_an_index(connection):
    connection.execute("CREATE TEMP TABLE indexed (a text UNIQUE)")
    connection.execute("INSERT INTO indexed SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1000) n")


def of_a_closed_cursor(connection):
    cursor = connection.cursor()
    cursor.close()
    cursor.execute("SELECT 1")


def wrong(connection):
    connection.execute("SELECT 1 / 0")


PASSING = [
    *(ended_by_the_server, cut_before_a_statement, cut_some_statements_ago, cut_in_a_copy),
    *(nobody_there, too_slow),
]
STAYING = [too_many_parameters, within_another_statement, too_long_for_an_index, of_a_closed_cursor, wrong]


@pytest.mark.parametrize("fail", PASSING + STAYING)
def test_a_lost_connection_passes_and_what_will_fail_again_does_not(ground, fail):
    opened = closing(psycopg.connect(ground.database_url, autocommit=True))
    with opened as connection, pytest.raises(psycopg.Error) as failed:
        fail(connection)
    assert is_transient(failed.value) == (fail in PASSING)


@pytest.mark.parametrize(
    ("statement", "passes"), [("SELECT pg_terminate_backend(pg_backend_pid())", True), ("SELECT 1 / 0", False)]
)
def test_failures_that_come_by_way_of_sqlalchemy_are_told_apart_too(ground, statement, passes):
    pool = engine(ground.database_url, pool_size=1)
    with pytest.raises(DBAPIError) as failed, pool.connect() as connection:
        connection.execute(text(statement))
    assert is_transient(failed.value) == passes
    pool.dispose()
