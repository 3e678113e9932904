"""What a client of somebody else's server gives, whatever the server speaks, and how it fails.

All failures are Unavailable with one of the codes below, which the catalogue of problems explains; a changed host key
is told by HostKeyChanged. None of them quotes what the server said.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from ingestd.domain.connection import HostKey, Kind, Login
from ingestd.domain.errors import Unavailable
from ingestd.domain.remote_file import RemoteFile
from ingestd.egress import Allowed
from ingestd.settings import FetchSettings

BLOCK: Final = 1024 * 1024
"""Bytes that are asked for at a time."""

BROKEN: Final = frozenset({"connect_failed", "connection_lost", "server_busy", "server_silent", "transfer_truncated"})
"""The codes of a transfer that may be resumed where it broke off."""


class Step(StrEnum):
    """What is done on the way to a server's files, in this order."""

    RESOLVE = "resolve"
    CONNECT = "connect"
    HOST_KEY = "host_key"
    AUTHENTICATE = "authenticate"
    LIST_ROOT = "list_root"


@dataclass(frozen=True, slots=True)
class Server:
    """Somebody else's server, and how to be let in. `host_keys` are those it is known by."""

    kind: Kind
    host: str
    port: int
    username: str
    login: Login = field(repr=False)
    root: str
    host_keys: tuple[HostKey, ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """What is borne with, and where the operator lets us go besides public addresses."""

    settings: FetchSettings
    allow: tuple[Allowed, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder's files and the names of its folders; `skipped` entries had a name or a kind that is not dealt with."""

    files: tuple[RemoteFile, ...]
    folders: tuple[str, ...]
    skipped: int


class Remote(Protocol):
    """A server's files below the root folder; paths are those of `domain.connection.parse_path`."""

    async def list(self, folder: str, wanted: Callable[[str], bool]) -> Listing:
        """The entries of a folder, of the files only those whose name is wanted.

        Unavailable "path_not_found", "permission_denied", "listing_limit" (T133), "server_silent".
        """
        ...

    async def look(self, folder: str, name: str) -> RemoteFile:
        """A file as it is now; Unavailable "path_not_found" where it is gone."""
        ...

    def read(self, folder: str, name: str, offset: int) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes from an offset on, to the end as the server tells it, or "transfer_truncated".

        Unavailable "resume_refused" where the server can only begin at 0.
        """
        ...


class HostKeyChanged(Unavailable):
    """The server shows another key than those it is known by."""

    code = "host_key_changed"

    def __init__(self, seen: HostKey) -> None:
        super().__init__(f"The server shows another key than the pinned ones: {seen.algorithm} {seen.fingerprint}.")
        self.seen = seen


def check_host_key(seen: HostKey, pinned: tuple[HostKey, ...]) -> None:
    """Raise unless the key is one that the server is known by; nothing secret has been sent by then (T130)."""
    if not pinned:
        raise Unavailable(
            f"No key of this server is pinned; it shows {seen.algorithm} {seen.fingerprint}.", code="host_key_unknown"
        )
    if seen not in pinned:
        raise HostKeyChanged(seen)


@dataclass
class Pace:
    """Watches a transfer that drips: over each stretch of `seconds` it must have brought `floor` bytes (T135)."""

    seconds: float
    floor: int
    _since: float = field(default_factory=time.monotonic)
    _bytes: int = 0

    def count(self, size: int) -> None:
        """Count what has come, or raise Unavailable "too_slow"."""
        self._bytes += size
        now = time.monotonic()
        if now - self._since < self.seconds:
            return
        if self._bytes < self.floor:
            raise Unavailable(f"The server sent less than {self.floor} bytes in {self.seconds:g} s.", code="too_slow")
        self._since, self._bytes = now, 0


def too_long(settings: FetchSettings) -> Unavailable:
    """That a listing does not end (T133)."""
    return Unavailable(
        f"The folder's listing has more than {settings.listing_entries} entries or {settings.listing_bytes} bytes.",
        code="listing_limit",
    )


@asynccontextmanager
async def listing_time(settings: FetchSettings) -> AsyncIterator[None]:
    """The time that a listing may take; a server that needs more may be quicker another time."""
    try:
        async with asyncio.timeout(settings.listing_seconds):
            yield
    except TimeoutError:
        detail = f"The server did not list the folder within {settings.listing_seconds:g} s."
        raise Unavailable(detail, code="server_silent") from None
