"""A receiver of webhooks on loopback, which answers as the test wants."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field


@dataclass
class Request:
    """What a receiver saw; header names in lower case."""

    target: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def reply(status: int, *headers: str, body: bytes = b"") -> Answer:
    """Answer with a status, and the headers as they stand."""

    async def answer(_: Request, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} Because", f"Content-Length: {len(body)}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + body)

    return answer


@dataclass
class Receiver:
    """An HTTP server on loopback that notes what arrives and answers as it is told."""

    answer: Answer = field(default_factory=lambda: reply(204))
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    under_way: int = 0
    most_under_way: int = 0
    port: int = 0
    names: list[str | None] = field(default_factory=list)
    """The server names that TLS clients asked for."""
    arrivals: asyncio.Queue[Request] = field(default_factory=asyncio.Queue)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?a=b"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        request = Request(head[0].split(" ")[1], headers, body)
        self.requests.append(request)
        self.arrivals.put_nowait(request)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.answer(request, writer)
            await writer.drain()
        finally:
            self.under_way -= 1


Receivers = Callable[..., Awaitable[Receiver]]
