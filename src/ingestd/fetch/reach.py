"""The way to a server: its name looked up once, every address checked, and a socket to one of those (T2 to T4)."""

from __future__ import annotations

import asyncio
import socket

from ingestd import egress
from ingestd.domain.connection import Kind
from ingestd.domain.errors import Unavailable
from ingestd.egress import Purpose, ResolvedAddress
from ingestd.fetch.remote import Server, Terms


async def resolve(server: Server, terms: Terms) -> ResolvedAddress:
    """The server's addresses; Forbidden "egress_denied", Unavailable "dns_failed"."""
    purpose = Purpose.SFTP if server.kind is Kind.SFTP else Purpose.FTP
    return await egress.resolve(server.host, server.port, purpose=purpose, allow=terms.allow)


async def connect(address: ResolvedAddress, terms: Terms) -> tuple[socket.socket, str]:
    """A connection to the first of the addresses that answers, and that address; Unavailable "connect_failed"."""
    for ip in address.addresses:
        found = await _try(ip, address.port, terms.settings.connect_seconds)
        if found is not None:
            return found, ip
    raise Unavailable("The server does not answer at its port.", code="connect_failed")


async def _try(ip: str, port: int, seconds: float) -> socket.socket | None:
    opened = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
    opened.setblocking(False)
    try:
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(opened, (ip, port))
    except OSError:  # TimeoutError is one
        opened.close()
        return None
    except BaseException:
        opened.close()
        raise
    return opened
