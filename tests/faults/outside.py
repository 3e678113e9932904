"""A database of its own beside the service, which can be ended at once, and the wire between them, which can be cut."""

import asyncio
import os
import signal
from contextlib import suppress

from sqlalchemy import make_url

from ingestd.keyring import new_master
from ingestd.store import embedded

LAZY = {  # what a part commits is on the disk late, so that a crash shows whether anybody waits for it
    "fsync": "off",
    "shared_buffers": "64MB",
    "wal_writer_delay": "10s",
    "wal_writer_flush_after": "1GB",
}


class Database:
    """A PostgreSQL, reached by TCP through a wire that can swallow what it answers to a COMMIT."""

    def __init__(self, folder):
        self._folder = folder / "postgres"
        self._blobs = folder / "blobs"
        self._marker = None
        self.swallowed = 0

    async def open(self):
        """Start it, and the wire."""
        await self.start()
        self._wire = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port = self._wire.sockets[0].getsockname()[1]
        url = make_url(self._server.url)
        self.url = f"postgresql://{url.username}:{url.password}@127.0.0.1:{port}/{url.database}"

    async def close(self):
        """End it and remove its data."""
        self._wire.close()
        await asyncio.to_thread(self._server.stop)
        embedded.remove(self._folder)

    @property
    def environment(self):
        """What a service needs to know to stand on it."""
        return {"INGESTD_DATABASE_URL": self.url, "INGESTD_MASTER_KEY": MASTER, "INGESTD_BLOB_URL": str(self._blobs)}

    @property
    def inside(self):
        """Its URL for a test, which goes round the wire."""
        return self._server.url

    @property
    def settings(self):
        """The settings of a test that stands on it."""
        return {"database_url": self.inside, "master_key": MASTER, "blob_url": str(self._blobs)}

    async def start(self):
        """Start the server."""
        self._server = await asyncio.to_thread(embedded.start, self._folder, settings=LAZY)
        self._socket = make_url(self._server.url).query["host"] + "/.s.PGSQL.5432"

    async def crash(self):
        """End the server as `pg_ctl stop -m immediate` does, and start it again."""
        os.kill(self._server.pid, signal.SIGQUIT)
        await asyncio.to_thread(self._server.stop)
        await self.start()

    def swallow(self, statement):
        """Let the next transaction with this statement commit, and its connection break before that is known."""
        self._marker, self.swallowed = statement, 0

    async def _carry(self, reader, writer):
        try:
            answers, server = await asyncio.open_unix_connection(self._socket)
        except OSError:
            writer.close()
            return
        commits = asyncio.Event()
        pumps = {
            asyncio.create_task(self._ask(reader, server, commits)),
            asyncio.create_task(_answer(answers, writer, commits)),
        }
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for each in pumps:
            each.cancel()
        for end in (writer, server):
            end.transport.abort()

    async def _ask(self, reader, server, commits):
        """Carry what the service says; after the marked statement, note its COMMIT."""
        marked = False
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                marked = marked or (self._marker is not None and self._marker in data)
                if marked and b"COMMIT\0" in data:
                    commits.set()
                    self._marker = None
                    self.swallowed += 1
                server.write(data)
                await server.drain()


async def _answer(answers, writer, commits):
    """Carry what the database says, unless it answers the COMMIT that was noted."""
    with suppress(OSError):
        while (data := await answers.read(1 << 16)) and not commits.is_set():
            writer.write(data)
            await writer.drain()


MASTER = new_master()
