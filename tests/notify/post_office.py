"""A mail server on loopback (aiosmtpd), with TLS and logins as the test wants, and a world with mails."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

NAME, PASSWORD = "ingestd", "open sesame"


@dataclass
class PostOffice:
    """Takes mail, unless told otherwise: `refusing` gives the server's answer to an address, or None."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    connections: int = 0
    refusing: Callable[[str], str | None] = lambda _address: None
    at_data: Callable[[Session], str | None] = lambda _session: None
    """What to do when a mail has come: gives an answer in place of 250, or breaks the connection off."""
    at_quit: Callable[[SMTP], Awaitable[None]] | None = None

    async def handle_RCPT(  # noqa: N802 -- aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if refused := self.refusing(address):
            return refused
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if answer := self.at_data(session):
            if answer == "die":
                server.transport.abort()
            return answer
        self.encrypted.append(session.ssl is not None or bool(server.transport.get_extra_info("sslcontext")))
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 2.0.0 Taken as number 7"

    async def handle_QUIT(self, server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802
        if self.at_quit is not None:
            await self.at_quit(server)
        return "221 Bye"


def authenticate(_server: SMTP, _session: Session, _envelope: Envelope, mechanism: str, given: Any) -> AuthResult:
    assert mechanism in {"LOGIN", "PLAIN"}
    fits = isinstance(given, LoginPassword) and (given.login, given.password) == (NAME.encode(), PASSWORD.encode())
    return AuthResult(success=fits, handled=False)


@asynccontextmanager
async def post_office(
    tls: ssl.SSLContext | None = None, *, implicit: bool = False, **more: Any
) -> AsyncIterator[PostOffice]:
    """A mail server: with a TLS context it demands STARTTLS and a login, or speaks TLS from the first byte."""
    office = PostOffice(**more)
    started: list[SMTP] = []
    demands: dict[str, Any] = {}
    if tls is not None and not implicit:
        demands = {"tls_context": tls, "require_starttls": True, "authenticator": authenticate, "auth_required": True}

    def serve() -> SMTP:
        office.connections += 1
        started.append(SMTP(office, hostname="mail.test", loop=asyncio.get_running_loop(), **demands))
        return started[-1]

    server = await asyncio.get_running_loop().create_server(serve, "127.0.0.1", 0, ssl=tls if implicit else None)
    office.port = server.sockets[0].getsockname()[1]
    yield office
    server.close()
    for each in started:
        if each.transport is not None:
            each.transport.abort()
    await server.wait_closed()
