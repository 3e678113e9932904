"""One exchange of HTTP/1.1 with a stranger: a request on a connection of its own, and the answer's head.

Written on h11, since a client made for the web does more than is wanted here: it follows and unpacks, remembers
cookies, looks for proxies, and keeps connections by address, which two hosts may share.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final

import h11

ANSWER_LIMIT: Final = 64 * 1024
"""How much of an answer is read at most, head and body, as it comes (T12)."""

CONNECT_SECONDS: Final = 5.0
"""What connecting to one address of a host may take, TLS too, before the next one is tried."""


class NotHttp(OSError):
    """What came is no answer of HTTP, or it broke off."""


async def connect(
    address: str, port: int, *, tls: ssl.SSLContext | None, name: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to an address; with TLS its certificate must be good for the name. Raises OSError, TimeoutError too."""
    async with asyncio.timeout(CONNECT_SECONDS):
        return await asyncio.open_connection(address, port, ssl=tls, server_hostname=name if tls else None)


async def post(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str, headers: Mapping[str, str], body: bytes
) -> h11.Response:
    """Post once and read the answer, which is forgotten but for its head; the connection ends with that.

    A receiver may take a connection that is closed early for a failure, so the answer is read to its end, but not
    beyond the limit. Raises OSError, `NotHttp` among them.
    """
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(method="POST", target=target, headers=[*headers.items(), ("content-length", str(len(body)))])
    try:
        for event in (request, h11.Data(data=body), h11.EndOfMessage()):
            writer.write(connection.send(event) or b"")
        return await _answer(reader, connection)
    except h11.RemoteProtocolError as error:
        raise NotHttp from error
    finally:
        writer.transport.abort()


async def _answer(reader: asyncio.StreamReader, connection: h11.Connection) -> h11.Response:
    answer, size = None, 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA and size < ANSWER_LIMIT:
            piece = await reader.read(ANSWER_LIMIT)
            connection.receive_data(piece)
            size += len(piece)
        elif isinstance(event, h11.Response):
            answer = event
        elif not isinstance(event, h11.Data | h11.InformationalResponse):
            break  # it has ended, or there is more than we read
    if answer is None:
        raise NotHttp
    return answer
