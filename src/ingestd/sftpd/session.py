"""asyncssh's side of a session, cut down to what we do. It reaches into the library, whose version is pinned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from asyncssh import SSHReader, SSHServerChannel, SSHWriter
from asyncssh.sftp import SFTPServerHandler
from asyncssh.stream import SSHServerStreamSession

from ingestd.sftpd.inbox import Inbox
from ingestd.telemetry import logger

VERSION: Final = 3
"""The version of SFTP that every client speaks."""

EXTENSIONS: Final = (b"fsync@openssh.com", b"posix-rename@openssh.com", b"limits@openssh.com")

_log = logger(__name__)


class Handler(SFTPServerHandler):
    """The reader of requests, without the extensions that could only be refused (T27)."""

    _extensions = [(name, b"1") for name in EXTENSIONS]  # noqa: RUF012 -- the library's
    _packet_handlers = {  # noqa: RUF012
        request: run
        for request, run in SFTPServerHandler._packet_handlers.items()  # noqa: SLF001
        if isinstance(request, int) or request in EXTENSIONS
    }


class Session(SSHServerStreamSession[bytes]):
    """A channel on which SFTP may be asked for, and neither a shell nor a command (T35).

    `running` holds the tasks of sessions until they have ended, `channels` the open channels.
    """

    def __init__(
        self,
        open_inbox: Callable[[SSHServerChannel[bytes]], Inbox],
        *,
        running: set[asyncio.Task[None]],
        channels: set[Session],
    ) -> None:
        super().__init__(None)
        self._open_inbox = open_inbox
        self._running = running
        self._channels = channels
        channels.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for another."""
        self._channels.discard(self)
        super().connection_lost(exc)

    def subsystem_requested(self, subsystem: str) -> bool:
        """Whether a subsystem may be asked for."""
        return subsystem == "sftp"

    def session_started(self) -> None:
        """Run the session in a task of its own."""
        assert isinstance(self._chan, SSHServerChannel)
        assert self._conn is not None
        reader, writer = SSHReader[bytes](self, self._chan), SSHWriter[bytes](self, self._chan)
        task = self._conn.create_task(_serve(self._open_inbox(self._chan), reader, writer), self._chan.logger)
        self._running.add(task)
        task.add_done_callback(self._running.discard)


async def _serve(inbox: Inbox, reader: SSHReader[bytes], writer: SSHWriter[bytes]) -> None:
    """Answer requests until the session ends.

    asyncssh neither cleans up nor keeps the connection's other sessions alive when a session ends by a signal or
    before its first request.
    """
    try:
        await Handler(inbox, reader, writer, VERSION).run()
    except Exception as error:  # noqa: BLE001 -- it ends this session, and no more
        _log.info("SFTP session broken", error=error)
    finally:
        inbox.end()
        writer.close()
