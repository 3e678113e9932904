"""Mail: one attempt to hand a letter to the mail server, or to keep it where there is none.

The server is connected to as webhooks are: its name is looked up once, each address checked, and connected to as
checked. Its certificate must be good for its name.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import parseaddr
from enum import StrEnum
from typing import Any, Final, Literal

import aiosmtplib
from aiosmtplib import SMTPException, SMTPResponseException

from ingestd import egress
from ingestd.domain.errors import Forbidden, Invalid, Unavailable
from ingestd.notify.exchange import CONNECT_SECONDS
from ingestd.notify.webhooks import is_tls
from ingestd.settings import MailSettings

ATTEMPT_SECONDS: Final = 45.0
"""What an attempt may take, from the look-up of the server to the end of its answer; less than a lease."""

GOODBYE_SECONDS: Final = 2.0
ANSWER_LENGTH: Final = 200
_FINAL: Final = range(500, 600)


class MailCode(StrEnum):
    """What came of an attempt; `refused` is the last word about this recipient, and the last is our failure.

    It is the server's, or ours where the account may not write to them any more (D39). `kept` is a mail that was kept
    because no mail server is set.
    """

    DELIVERED = "delivered"
    KEPT = "kept"
    REFUSED = "refused"
    DEFERRED = "deferred"
    LOGIN_FAILED = "login_failed"
    TIMEOUT = "timeout"
    BLOCKED = "blocked"
    DNS_FAILED = "dns_failed"
    TLS_FAILED = "tls_failed"
    CONNECT_FAILED = "connect_failed"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of an attempt: the code and the text that the server answered with, and how long it took."""

    code: MailCode
    status: int | None = None
    answer: str | None = None
    ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """The operator's mail server, and how to talk to it."""

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    sender: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    allow: tuple[egress.Allowed, ...] = ()
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    resolver: egress.Resolver = egress.system_resolver
    seconds: float = ATTEMPT_SECONDS

    async def send(self, mail: EmailMessage, to: str) -> Result:
        """Hand a mail over once. Whatever the server does, a result comes back within `seconds`."""
        return await self._attempt(self._hand_over(mail, to))

    async def greet(self) -> Result:
        """Connect and log in, and send nothing: to see whether mail could be handed over."""
        return await self._attempt(self._look_in())

    async def _attempt(self, doing: Coroutine[Any, Any, str]) -> Result:
        began = time.perf_counter()
        status, answer = None, None
        try:
            async with asyncio.timeout(self.seconds):
                status, answer, code = 250, await doing, MailCode.DELIVERED
        except aiosmtplib.SMTPRecipientsRefused as error:
            status, answer = error.recipients[0].code, error.recipients[0].message
            code = MailCode.REFUSED if status in _FINAL else MailCode.DEFERRED
        except SMTPResponseException as error:
            status, answer, code = error.code, error.message, _code(error)
        except (Forbidden, Invalid):
            code = MailCode.BLOCKED
        except Unavailable:
            code = MailCode.DNS_FAILED
        except (TimeoutError, aiosmtplib.SMTPTimeoutError):
            code = MailCode.TIMEOUT
        except (SMTPException, OSError) as error:
            code = MailCode.TLS_FAILED if is_tls(error) else MailCode.CONNECT_FAILED
        return Result(code, status, _plain(answer), round((time.perf_counter() - began) * 1000))

    async def _hand_over(self, mail: EmailMessage, to: str) -> str:
        async with self._session() as session:
            _, answer = await session.sendmail(parseaddr(self.sender)[1], [to], mail.as_bytes())
            return answer

    async def _look_in(self) -> str:
        async with self._session() as session:
            return (await session.noop()).message

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiosmtplib.SMTP]:
        session = aiosmtplib.SMTP(
            hostname=self.host,
            sock=await self._connected(),
            use_tls=self.security == "tls",
            start_tls=self.security == "starttls",
            tls_context=self.tls,
            username=self.username,
            password=self.password,
            local_hostname=parseaddr(self.sender)[1].rpartition("@")[2],
            timeout=self.seconds,
        )
        try:
            await session.connect()
            yield session
            with suppress(SMTPException, OSError):  # what the server has taken it has, however it says goodbye
                await session.quit(timeout=GOODBYE_SECONDS)
        finally:
            session.close()

    async def _connected(self) -> socket.socket:
        """A connection to the first of the host's addresses that takes one."""
        resolved = await egress.resolve(
            self.host, self.port, purpose=egress.Purpose.SMTP, allow=self.allow, resolver=self.resolver
        )
        *others, last = resolved.addresses
        for address in others:
            try:
                return await egress.connect(address, self.port, seconds=CONNECT_SECONDS)
            except OSError:
                continue
        return await egress.connect(last, self.port, seconds=CONNECT_SECONDS)


def mail_server(settings: MailSettings, allow: tuple[egress.Allowed, ...]) -> MailServer | None:
    """The mail server of the settings, or None where none is set; Unavailable where its authority cannot be read."""
    if settings.host is None:
        return None
    try:
        tls = ssl.create_default_context(cafile=settings.authority)
    except OSError as error:
        detail = f"INGESTD_MAIL__AUTHORITY must be a PEM file that we can read ({error.strerror})."
        raise Unavailable(detail, code="authority_unusable") from None
    return MailServer(
        host=settings.host,
        port=settings.port,
        security=settings.security,
        sender=settings.sender,
        username=settings.username,
        password=settings.password.get_secret_value() if settings.password else None,
        allow=allow,
        tls=tls,
    )


def _code(error: SMTPResponseException) -> MailCode:
    """What a refusal means: of the mail itself it is final; all else the operator can mend, and it is tried again."""
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        return MailCode.LOGIN_FAILED
    if isinstance(error, aiosmtplib.SMTPDataError) and error.code in _FINAL:
        return MailCode.REFUSED
    return MailCode.DEFERRED


def _plain(answer: str | None) -> str | None:
    """The server's words as one line of bounded length."""
    if answer is None:
        return None
    return "".join(char for char in " ".join(answer.split()) if char.isprintable())[:ANSWER_LENGTH]
