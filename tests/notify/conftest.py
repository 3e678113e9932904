"""A real database, a receiver on loopback and a dispatcher whose clock the tests move."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import pytest
import trustme
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.conftest import own_database
from tests.notify.receiver import Answer, Receiver, Receivers
from tests.notify.world import Clock, World

from ingestd.keyring import Keyring, new_master
from ingestd.store import engine
from ingestd.store.base import Base
from ingestd.store.engine import Sessions

TABLES = [
    Base.metadata.tables[name] for name in ("accounts", "webhooks", "notices", "deliveries", "recipients", "messages")
]


@pytest.fixture
async def receivers() -> AsyncIterator[Receivers]:
    """Start receivers, with TLS if given a context."""
    servers: list[asyncio.Server] = []
    serving: set[asyncio.Task[None]] = set()

    async def start(answer: Answer | None = None, tls: ssl.SSLContext | None = None) -> Receiver:
        receiver = Receiver() if answer is None else Receiver(answer)

        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(receiver.serve(reader, writer))
            serving.add(task)
            task.add_done_callback(serving.discard)

        if tls is not None:
            tls.sni_callback = lambda _socket, name, _context: receiver.names.append(name)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls, ssl_shutdown_timeout=0.1 if tls else None)
        servers.append(server)
        receiver.port = server.sockets[0].getsockname()[1]
        return receiver

    yield start
    for server in servers:
        server.close()
    _, hanging = await asyncio.wait(serving, timeout=0.1) if serving else (None, set())
    for task in hanging:
        task.cancel()
    await asyncio.gather(*serving, return_exceptions=True)
    for server in servers:
        await server.wait_closed()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """What a sender that trusts the authority uses."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def certified(authority: trustme.CA) -> ssl.SSLContext:
    """What the mail server `mail.test` uses."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("mail.test").configure_cert(context)
    return context


@pytest.fixture
def serving(authority: trustme.CA) -> ssl.SSLContext:
    """What the receiver `hooks.test` uses."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("hooks.test").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """The URL of a real PostgreSQL."""
    with own_database() as url:
        yield url


@pytest.fixture(scope="session")
async def database_engine(database: str) -> AsyncIterator[AsyncEngine]:
    made = engine.async_engine(database)
    async with made.begin() as connection:
        await connection.run_sync(Base.metadata.create_all, tables=TABLES)
    yield made
    await made.dispose()


@pytest.fixture
async def sessions(database_engine: AsyncEngine) -> Sessions:
    """Sessions on empty tables."""
    async with database_engine.begin() as connection:
        await connection.execute(text("TRUNCATE accounts CASCADE"))
    return engine.sessions(database_engine)


@pytest.fixture
def world(database: str, sessions: Sessions) -> World:
    return World(database, sessions, Clock(datetime.now(UTC)), Keyring.load(new_master()))
