"""A webhook receiver on loopback: verifies each signature as a consumer would, and keeps what it was told."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass
class Receiver:
    """Listens on a free port of 127.0.0.1 while it is entered; set `secret` before the first notice comes."""

    secret: str = ""
    told: list[dict[str, Any]] = field(default_factory=list)
    forged: int = 0
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The address to register."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/told"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def until(self, kind: str, ingestion: str, *others: str) -> dict[str, Any]:
        """Wait until an ingestion's notice of a type has come, or of one of others, and give its `data`."""
        async with self.news:
            while True:
                for notice in self.told:
                    if notice["type"] in (kind, *others) and notice["data"]["id"] == ingestion:
                        found: dict[str, Any] = notice["data"]
                        return found
                await self.news.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(headers["content-length"]))
        known = self._verify(headers, body)
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % (b"204" if known else b"401"))
        await writer.drain()
        writer.close()
        async with self.news:
            if known:
                self.told.append(json.loads(body) | {"id": headers["webhook-id"]})
            else:
                self.forged += 1
            self.news.notify_all()

    def _verify(self, headers: dict[str, str], body: bytes) -> bool:
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
        given = headers["webhook-signature"].encode().split()
        return any(hmac.compare_digest(expected, each) for each in given)
