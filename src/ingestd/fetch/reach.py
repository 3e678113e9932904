"""The way to a server: its name looked up once, every address checked, and a socket to one of those (T2 to T4)."""

from __future__ import annotations

import socket
from contextlib import suppress

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
        with suppress(OSError):
            return await egress.connect(ip, address.port, seconds=terms.settings.connect_seconds), ip
    raise Unavailable("The server does not answer at its port.", code="connect_failed")
