"""An FTP conversation with a server that is not trusted: aioftp's client, with what it leaves open closed.

All connections go to the one address that was checked, whatever PASV claims (T132); lines, replies and commands are
counted (T139); TLS never falls back to the clear (T131), and its certificate is held to on both connections (T130).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import aioftp
from aioftp.common import SSLSessionBoundContext

from ingestd.domain.connection import CERTIFICATE, HostKey, Kind
from ingestd.domain.errors import Unavailable
from ingestd.fetch.remote import Server, Terms, check_host_key

LINE_BYTES: Final = 8 * 1024
REPLY_LINES: Final = 64
COMMANDS: Final = 200
LEAST_DATA_PORT: Final = 1024
DATA_BUFFER: Final = 256 * 1024


class Control(aioftp.Client):
    """The control connection to a server, over a socket that is connected to its address `ip`.

    `commands` are counted from the greeting on, or from where the caller has set it to zero.
    """

    def __init__(
        self, server: Server, connected: socket.socket, ip: str, *, terms: Terms, context: ssl.SSLContext | None
    ) -> None:
        super().__init__(
            socket_timeout=terms.settings.silence_seconds,
            connection_timeout=terms.settings.connect_seconds,
            ssl=context if server.kind is Kind.FTPS_IMPLICIT else None,
        )
        self._context = context
        self._server = server
        self._ip = ip
        self.commands = 0
        self._lines = 0
        self._connected: socket.socket | None = connected
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self) -> None:
        """Wait for the server's greeting, and agree on TLS where the kind has it."""
        await self.connect(self._ip, self._server.port)
        if self._server.kind is Kind.FTPS_EXPLICIT:
            assert self._context is not None
            with refused_by("tls_refused", "The server does not offer TLS."):
                await self.command("AUTH TLS", "234")
            await self.stream.start_tls(self._context, self._server.host)
            self._check(self.stream.writer)
        if self._server.kind.has_tls:
            with refused_by("tls_refused", "The server does not protect the files by TLS."):
                await self.command("PBSZ 0", "200")
                await self.command("PROT P", "200")

    def close(self) -> None:
        """Close all that is open."""
        if self._connected is not None:
            self._connected.close()
        for writer in self._writers:
            writer.close()

    async def command(self, command: str | None = None, *codes: Any, **more: Any) -> Any:
        """A command and its reply, both counted."""
        self.commands += 1
        self._lines = 0
        if self.commands > COMMANDS:
            raise Unavailable(f"The server needs more than {COMMANDS} commands.", code="protocol_error")
        return await super().command(command, *codes, **more)

    async def parse_line(self) -> tuple[aioftp.Code, str]:
        """A line of a reply; ValueError where it is too long, or one of too many."""
        self._lines += 1
        if self._lines > REPLY_LINES:
            raise ValueError("reply")
        return await super().parse_line()

    async def _open_connection(self, _host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Aioftp's hook for both connections; of the data connection only the port is the server's word."""
        connected, self._connected = self._connected, None
        where: dict[str, Any] = {"sock": connected, "limit": LINE_BYTES}
        context: ssl.SSLContext | None = self.ssl if isinstance(self.ssl, ssl.SSLContext) else None
        if connected is None:
            if port < LEAST_DATA_PORT:
                raise Unavailable("The server wants a data connection to a port below 1024.", code="protocol_error")
            secured = self.stream.writer.get_extra_info("ssl_object")
            if secured is not None:  # many servers want the data connection to resume the session of the control one
                context = SSLSessionBoundContext(
                    ssl.PROTOCOL_TLS_CLIENT, context=secured.context, session=secured.session
                )
            where = {"host": self._ip, "port": port, "limit": DATA_BUFFER}
        name = self._server.host if context else None
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(ssl=context, server_hostname=name, **where), self.connection_timeout
        )
        self._writers.append(writer)  # aioftp forgets a data connection whose command is refused
        if context is not None:
            self._check(writer)
        return reader, writer

    def _check(self, writer: asyncio.StreamWriter) -> None:
        """Hold the certificate to the pinned ones; without any, an authority has vouched for it in the handshake."""
        if self._server.host_keys:
            check_host_key(_certificate(writer), self._server.host_keys)


async def show_certificate(server: Server, connected: socket.socket, ip: str, terms: Terms) -> HostKey:
    """The certificate that a server shows, whoever vouches for it; nothing secret is sent."""
    control = Control(replace(server, host_keys=()), connected, ip, terms=terms, context=_unverified())
    try:
        with failures():
            async with asyncio.timeout(terms.settings.connect_seconds):
                await control.open()
            return _certificate(control.stream.writer)
    finally:
        control.close()


def _certificate(writer: asyncio.StreamWriter) -> HostKey:
    return HostKey(CERTIFICATE, writer.get_extra_info("ssl_object").getpeercert(binary_form=True))


async def context_for(server: Server) -> ssl.SSLContext | None:
    """How the server's certificate is verified: a pinned one is compared itself, and needs no authority's word.

    To load the authorities takes a while, so a thread does it.
    """
    if not server.kind.has_tls:
        return None
    return _unverified() if server.host_keys else await asyncio.to_thread(ssl.create_default_context)


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def refused_by(code: str, detail: str) -> Iterator[None]:
    """Tell what it means that the server refuses a command."""
    try:
        yield
    except aioftp.StatusCodeError as refusal:
        raise passing(refusal) or Unavailable(detail, code=code) from None


def passing(refusal: aioftp.StatusCodeError) -> Unavailable | None:
    """What a reply means that asks to try again, 4yz in RFC 959, or None; 430 is said to a wrong password."""
    code = refusal.received_codes[-1]
    if code == "421":
        return Unavailable("The server broke the connection off.", code="connection_lost")
    if code.startswith("4") and code != "430":
        return Unavailable("The server cannot do this now.", code="server_busy")
    return None


@contextmanager
def failures() -> Iterator[None]:
    """Tell what the library raises, and what it lets through, as Unavailable."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise Unavailable(
            f"No authority vouches for the server's certificate: {error.verify_message}.", code="certificate_untrusted"
        ) from None
    except ssl.SSLError:
        raise Unavailable("TLS with the server failed.", code="tls_failed") from None
    except TimeoutError:
        raise Unavailable("The server has fallen silent.", code="server_silent") from None
    except (OSError, EOFError):
        raise Unavailable("The connection to the server was lost.", code="connection_lost") from None
    except aioftp.StatusCodeError as refusal:
        raise passing(refusal) or _misspoken() from None
    except (aioftp.AIOFTPException, ValueError, LookupError):
        raise _misspoken() from None


def _misspoken() -> Unavailable:
    return Unavailable("The server does not speak FTP as it should.", code="protocol_error")
