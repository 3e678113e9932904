"""HTTP on the wire: uvicorn's protocol, without its endless patience."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingestd.api.catalogue import CATALOGUE

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

HEADER_BYTES: Final = 64 * 1024
"""Bytes of headers after which nothing more is read; the API refuses far fewer, with a problem document."""

CONNECTIONS: Final = 1000
"""Connections and requests at a time, beyond which a request is answered 503 at once."""


def _problem(code: str, detail: str = "") -> bytes:
    """A problem document, for what no application sees."""
    kind, urn = CATALOGUE[code], f"urn:ingestd:problem:{code}"
    shown = {"type": urn, "title": kind.title, "status": kind.status, "detail": detail or kind.cause}
    return json.dumps(shown | {"code": code, "errors": []}).encode()


_UNREADABLE: Final = _problem("bad_request", "This is no HTTP request, or its headers are far too large.")
_OVERLOADED: Final = _problem("overloaded")


async def _refuse(_: Scope, __: Receive, send: Send) -> None:
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(_OVERLOADED)),
        (b"retry-after", b"1"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": _OVERLOADED})


class Protocol(HttpToolsProtocol):
    """One connection. A client that does not send its headers in time, or without end, is cut off (T54)."""

    header_seconds: ClassVar[float] = 10.0
    at_once: ClassVar[int] = CONNECTIONS
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
        if max(len(self.connections), len(self.tasks)) > self.at_once:
            self.app = _refuse
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
