"""HTTP on the wire: uvicorn's protocol, without its endless patience."""

from __future__ import annotations

import asyncio
import json
from typing import ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_BYTES: Final = 64 * 1024
"""Bytes of headers after which nothing more is read; the API refuses far fewer, with a problem document."""

_UNREADABLE: Final = json.dumps(
    {
        "type": "urn:ingestd:problem:bad_request",
        "title": "Bad request",
        "status": 400,
        "detail": "This is no HTTP request, or its headers are far too large.",
        "code": "bad_request",
        "errors": [],
    }
).encode()


class Protocol(HttpToolsProtocol):
    """One connection. A client that does not send its headers in time, or without end, is cut off (T54)."""

    header_seconds: ClassVar[float] = 10.0
    _awaiting: bool
    _taken: int
    _deadline: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._deadline.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it is too much of headers."""
        if self._awaiting:
            self._taken += len(data)
            if self._taken > HEADER_BYTES + len(data):
                self.send_400_response("")
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Wait for the headers of the next request, from its first byte on."""
        super().on_message_begin()
        if not self._awaiting:
            self._await_headers()

    def on_headers_complete(self) -> None:
        """Let the request take the time it needs; how long its body may take is the route's to say."""
        self._deadline.cancel()
        self._awaiting = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 -- uvicorn's words
        """Answer with a problem document what no application ever sees, and hang up."""
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(_UNREADABLE), _UNREADABLE)
        )
        self.transport.close()

    def _await_headers(self) -> None:
        self._awaiting, self._taken = True, 0
        self._deadline = self.loop.call_later(self.header_seconds, self.transport.close)
