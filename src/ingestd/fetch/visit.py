"""A visit to somebody else's server: the whole way to its files, the same way step by step, and a look at its keys."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ingestd.domain.connection import HostKey, Kind
from ingestd.domain.errors import IngestdError
from ingestd.fetch import control, ftp, sftp
from ingestd.fetch.reach import connect, resolve
from ingestd.fetch.remote import Remote, Server, Step, Terms


@dataclass(slots=True)
class Walked:
    """A step that was begun: how long it took, and why it failed if it did."""

    step: Step
    began: float
    milliseconds: float = 0
    failure: IngestdError | None = None


@asynccontextmanager
async def visit(server: Server, terms: Terms, begin: Callable[[Step], None] = lambda _: None) -> AsyncIterator[Remote]:
    """Go to a server and be let in; `begin` hears of each step as it begins.

    Raises Forbidden "egress_denied", and Unavailable with the codes that `remote` speaks of.
    """
    begin(Step.RESOLVE)
    address = await resolve(server, terms)
    begin(Step.CONNECT)
    connected, ip = await connect(address, terms)
    if server.kind is Kind.SFTP:
        async with sftp.opened(server, connected, terms, begin) as remote:
            yield remote
    else:
        async with ftp.opened(server, connected, ip, terms, begin) as remote:
            yield remote


async def probe(server: Server, terms: Terms) -> list[Walked]:
    """Go the whole way and list the root folder: the steps that were begun, of which the last may have failed."""
    walked: list[Walked] = []

    def begin(step: Step) -> None:
        end()
        walked.append(Walked(step, time.monotonic()))

    def end() -> None:
        if walked:
            walked[-1].milliseconds = round((time.monotonic() - walked[-1].began) * 1000, 1)

    try:
        async with visit(server, terms, begin) as remote:
            await remote.list("", lambda _: False)
            end()
    except IngestdError as failure:
        end()
        walked[-1].failure = failure
    return walked


async def scan(server: Server, terms: Terms) -> list[HostKey]:
    """The keys, or the certificate, that a server shows now, whoever it may be; empty for one without TLS."""
    address = await resolve(server, terms)

    async def reach() -> socket.socket:
        return (await connect(address, terms))[0]

    if server.kind is Kind.SFTP:
        return await sftp.scan(server, reach, terms)
    if not server.kind.has_tls:
        return []
    connected, ip = await connect(address, terms)
    return [await control.show_certificate(server, connected, ip, terms)]
