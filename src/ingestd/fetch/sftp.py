"""Files of an SFTP server that is known by its pinned host keys."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final

import asyncssh
from asyncssh.constants import FILEXFER_TYPE_DIRECTORY, FILEXFER_TYPE_REGULAR

from ingestd.domain.connection import Auth, HostKey
from ingestd.domain.errors import Unavailable
from ingestd.domain.remote_file import RemoteFile, is_safe
from ingestd.fetch.remote import BLOCK, Listing, Server, Step, Terms, check_host_key, listing_time, too_long

CLOSE_SECONDS: Final = 2.0

ALGORITHMS: Final = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}
"""Kinds of host keys, and the signatures that a key of the kind may make."""


@asynccontextmanager
async def opened(
    server: Server, connected: socket.socket, terms: Terms, begin: Callable[[Step], None]
) -> AsyncIterator[SftpRemote]:
    """Let us in over a connected socket; the secret is shown to a known key only (T130)."""
    begin(Step.HOST_KEY)
    by_key = server.login.auth is Auth.PRIVATE_KEY
    client = _Client(server, begin)
    known = {key.algorithm: None for key in server.host_keys}
    with failures():
        try:
            connection = await _connect(
                server,
                connected,
                terms,
                client,
                [*known, *ALGORITHMS],  # so that a server which has no such key any more shows another
                client_keys=[asyncssh.import_private_key(server.login.secret)] if by_key else [],
                password=None if by_key else server.login.secret,
                preferred_auth="publickey" if by_key else "password,keyboard-interactive",
            )
        except asyncssh.HostKeyNotVerifiable:
            raise client.refusal or Unavailable("The host key cannot be read.", code="protocol_error") from None
    try:
        begin(Step.LIST_ROOT)
        with failures():
            async with asyncio.timeout(terms.settings.connect_seconds):
                session = await connection.start_sftp_client(path_errors="surrogateescape")
                root = str(await session.realpath(server.root or "."))
        yield SftpRemote(connection, session, root.rstrip("/"), terms)
    finally:
        await _close(connection)


async def scan(server: Server, connect: Callable[[], Awaitable[socket.socket]], terms: Terms) -> list[HostKey]:
    """The keys that a server shows, one of each kind; nothing is sent but what an exchange of keys needs."""
    found = []
    for kind in ALGORITHMS:
        client = _Scan()
        with failures(), suppress(asyncssh.HostKeyNotVerifiable, asyncssh.KeyExchangeFailed):  # seen, or none such
            await _close(await _connect(server, await connect(), terms, client, [kind], client_keys=[]))
        if client.seen is not None:
            found.append(client.seen)
    return found


async def _connect(
    server: Server,
    connected: socket.socket,
    terms: Terms,
    client: asyncssh.SSHClient,
    kinds: Sequence[str],
    **options: Any,
) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        sock=connected,
        username=server.username,
        client_factory=lambda: client,
        known_hosts=([], [], []),  # so that each key is shown to the client, which decides
        server_host_key_algs=[name for kind in dict.fromkeys(kinds) for name in ALGORITHMS[kind]],
        login_timeout=terms.settings.connect_seconds,
        keepalive_interval=terms.settings.silence_seconds / 3,
        agent_path=None,
        config=None,
        **options,
    )


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    """Part from a server that may not want to part."""
    connection.close()
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.wait_closed()
    except TimeoutError:
        connection.abort()


class _Scan(asyncssh.SSHClient):
    """Looks at the host key and believes none."""

    seen: HostKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Keep the key, and go no further."""
        del host, addr, port
        self.seen = HostKey(key.get_algorithm(), key.public_data)
        return False


class _Client(asyncssh.SSHClient):
    """Goes on to the authentication with a known host key only; `refusal` says why it did not."""

    def __init__(self, server: Server, begin: Callable[[Step], None]) -> None:
        self._server = server
        self._begin = begin
        self.refusal: Unavailable | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Whether the key is a pinned one."""
        del host, addr, port
        try:
            check_host_key(HostKey(key.get_algorithm(), key.public_data), self._server.host_keys)
        except Unavailable as refusal:
            self.refusal = refusal
            return False
        self._begin(Step.AUTHENTICATE)
        return True


class SftpRemote:
    """A `Remote` over SFTP."""

    def __init__(
        self, connection: asyncssh.SSHClientConnection, client: asyncssh.SFTPClient, root: str, terms: Terms
    ) -> None:
        self._connection = connection
        self._client = client
        self._root = root
        self._settings = terms.settings

    async def list(self, folder: str, wanted: Callable[[str], bool]) -> Listing:
        """The entries of a folder."""
        entries = asyncio.create_task(self._list(folder, wanted))
        try:
            async with listing_time(self._settings):
                await asyncio.wait([entries])
        finally:
            if not entries.done():  # asyncssh would ask the server to close the folder, and wait for its answer
                self._connection.abort()
                await asyncio.wait([entries])
            entries.exception()  # seen, whatever else is told
        return entries.result()

    async def _list(self, folder: str, wanted: Callable[[str], bool]) -> Listing:
        files, folders, skipped, entries, size = [], [], 0, 0, 0
        with failures():
            async for entry in self._client.scandir(await self._real(folder)):
                name = str(entry.filename)
                if name in {".", ".."}:
                    continue
                entries, size = entries + 1, size + len(name) + len(entry.longname or "")
                if entries > self._settings.listing_entries or size > self._settings.listing_bytes:
                    raise too_long(self._settings)
                file = _file(name, entry.attrs)
                if not is_safe(name):
                    skipped += 1
                elif file is not None and wanted(name):
                    files.append(file)
                elif entry.attrs.type == FILEXFER_TYPE_DIRECTORY:
                    folders.append(name)
                elif file is None:
                    skipped += 1
        return Listing(tuple(files), tuple(folders), skipped)

    async def look(self, folder: str, name: str) -> RemoteFile:
        """A file's size and time now."""
        with failures():
            async with asyncio.timeout(self._settings.silence_seconds):
                file = _file(name, await self._client.lstat(f"{await self._real(folder)}/{name}"))
        if file is None:
            raise Unavailable("There is no such file.", code="path_not_found")
        return file

    @asynccontextmanager
    async def read(self, folder: str, name: str, offset: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes from an offset on."""
        with failures():
            async with asyncio.timeout(self._settings.silence_seconds):
                file = await self._client.open(f"{await self._real(folder)}/{name}", "rb")
        try:
            yield self._pieces(file, offset)
        finally:
            with suppress(Unavailable), failures():  # whatever ended it is told, not that the end failed too
                async with asyncio.timeout(CLOSE_SECONDS):
                    await file.close()

    async def _pieces(self, file: Any, offset: int) -> AsyncIterator[bytes]:
        with failures():
            while True:
                async with asyncio.timeout(self._settings.silence_seconds):
                    piece = await file.read(BLOCK, offset)  # asyncssh has many requests of it on their way at a time
                if not piece:
                    return
                offset += len(piece)
                yield piece

    async def _real(self, folder: str) -> str:
        """Where a folder really is: a link may not lead out of the root folder."""
        real = str(await self._client.realpath(f"{self._root}/{folder}"))
        if not f"{real}/".startswith(f"{self._root}/"):
            raise Unavailable("The folder leads out of the root folder.", code="permission_denied")
        return real


def _file(name: str, attrs: asyncssh.SFTPAttrs) -> RemoteFile | None:
    """The entry as a file, or None where it is none; links are none (T136)."""
    if attrs.type != FILEXFER_TYPE_REGULAR or attrs.size is None or attrs.mtime is None:
        return None
    return RemoteFile(name, attrs.size, datetime.fromtimestamp(attrs.mtime, UTC))


@contextmanager
def failures() -> Iterator[None]:
    """Tell what the library raises, and what it lets through, as Unavailable."""
    try:
        yield
    except asyncssh.PermissionDenied:
        raise Unavailable(
            "The server does not let us in with this user name and secret.", code="login_refused"
        ) from None
    except asyncssh.SFTPNoSuchFile:
        raise Unavailable("There is no such file or folder.", code="path_not_found") from None
    except asyncssh.SFTPPermissionDenied:
        raise Unavailable("We may not read this file or folder.", code="permission_denied") from None
    except TimeoutError:
        raise Unavailable("The server has fallen silent.", code="server_silent") from None
    except (OSError, asyncssh.ConnectionLost, asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection):
        raise Unavailable("The connection to the server was lost.", code="connection_lost") from None
    except (asyncssh.Error, ValueError):
        raise Unavailable("The server does not speak SFTP as it should.", code="protocol_error") from None
