"""Webhooks: one attempt to post a notice, signed as Standard Webhooks 1.0 has it.

The receiver is a stranger: its address is checked by `egress` and connected to as checked (T2 to T4), a redirect is
a failure (T5), no proxy or credential of ours is used (T10), and of its answer only the status is kept (T11, T12).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import h11
import httpx

from ingestd import __version__, egress
from ingestd.domain import ids
from ingestd.domain.errors import Forbidden, Invalid, Unavailable
from ingestd.domain.ids import Prefix
from ingestd.keyring import AccountKeys
from ingestd.notify import exchange

ATTEMPT_SECONDS: Final = 15.0
"""What an attempt may take, from the look-up of the host to the end of the answer."""

BODY_LIMIT: Final = 20_000
LONGEST_WAIT: Final = timedelta(days=1)

_MARK: Final = "whsec_"
_RETRY_AFTER_STATUSES: Final = (429, 503)
_SUCCESS: Final = range(200, 300)


class Code(StrEnum):
    """What came of an attempt. The last two are ours: a webhook disabled in the meantime, a failure of the service."""

    DELIVERED = "delivered"
    HTTP_3XX = "http_3xx"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    TIMEOUT = "timeout"
    BLOCKED = "blocked"
    DNS_FAILED = "dns_failed"
    TLS_FAILED = "tls_failed"
    CONNECT_FAILED = "connect_failed"
    DISABLED = "disabled"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Message:
    """What is posted: `id` is the notice's and the same in every attempt; `keys` sign, the newest first."""

    id: UUID
    delivery_id: UUID
    url: str
    body: bytes = field(repr=False)
    keys: Sequence[str] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Those of the account, which never take the place of ours."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of an attempt; `status` is the receiver's, `retry_after` what it asked for with a 429 or 503."""

    code: Code
    status: int | None = None
    ms: int = 0
    retry_after: timedelta | None = None


def new_secret() -> str:
    """A new signing secret, as the account is shown it once."""
    return _MARK + base64.b64encode(secrets.token_bytes(32)).decode()


def seal_headers(keys: AccountKeys, webhook_id: UUID, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a webhook as they are stored: each value is sealed for its place (T110, T112)."""
    return {
        name: base64.b64encode(keys.seal_secret(_header_context(webhook_id, name), value.encode())).decode()
        for name, value in headers.items()
    }


def open_headers(keys: AccountKeys, webhook_id: UUID, sealed: Mapping[str, str]) -> dict[str, str]:
    """The headers of a webhook as they are sent."""
    return {
        name: keys.open_secret(_header_context(webhook_id, name), base64.b64decode(value)).decode()
        for name, value in sealed.items()
    }


def _header_context(webhook_id: UUID, name: str) -> str:
    return f"webhooks/{webhook_id}/headers/{name}"


def secret_context(webhook_id: UUID) -> str:
    """The place a webhook's secrets are sealed for (T112)."""
    return f"webhooks/{webhook_id}/secret"


def body(kind: str, at: datetime, data: dict[str, Any]) -> bytes:
    """The body: compact JSON of `type`, `timestamp` and `data`, below 20 kB.

    Of larger data only the id is sent, with `"truncated": true`: the API has the rest.
    """
    event = {"type": kind, "timestamp": at.astimezone(UTC).isoformat().replace("+00:00", "Z"), "data": data}
    written = _compact(event)
    if len(written) < BODY_LIMIT:
        return written
    return _compact(event | {"data": {"id": data.get("id"), "truncated": True}})


def sign(secret: str, message_id: str, timestamp: int, content: bytes) -> str:
    """The signature `v1,<base64>`: HMAC-SHA256 of id, Unix time and body, joined by dots."""
    key = base64.b64decode(secret.removeprefix(_MARK))
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + content, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """How this service posts: the operator's allow list, the authorities it trusts, and its patience."""

    allow: tuple[egress.Allowed, ...] = ()
    tls: ssl.SSLContext = field(default_factory=httpx.create_ssl_context)
    resolver: egress.Resolver = egress.system_resolver
    seconds: float = ATTEMPT_SECONDS

    async def send(self, message: Message, *, now: datetime) -> Result:
        """Post the message once. Whatever the receiver does, a result comes back within `seconds`."""
        began = time.perf_counter()
        status, retry_after = None, None
        try:
            async with asyncio.timeout(self.seconds):
                answer = await self._post(message, now)
                status, code = answer.status_code, _code(answer.status_code)
                retry_after = _retry_after(answer, now)
        except (Forbidden, Invalid):
            code = Code.BLOCKED
        except Unavailable:
            code = Code.DNS_FAILED
        except TimeoutError:
            code = Code.TIMEOUT
        except OSError as error:
            code = Code.TLS_FAILED if is_tls(error) else Code.CONNECT_FAILED
        return Result(code, status, round((time.perf_counter() - began) * 1000), retry_after)

    async def _post(self, message: Message, now: datetime) -> h11.Response:
        """Connect to the host's addresses in turn until one takes the connection, and post once."""
        target = egress.parse_url(message.url, self.allow)
        resolved = await egress.resolve(
            target.host, target.port, purpose=target.purpose, allow=self.allow, resolver=self.resolver
        )
        url = urlsplit(target.url)
        streams = await self._connected(resolved, self.tls if url.scheme == "https" else None)
        place = f"{url.path or '/'}?{url.query}".removesuffix("?")
        headers = {**_headers(message, now), "host": url.netloc}
        return await exchange.post(*streams, place, headers, message.body)

    async def _connected(
        self, resolved: egress.ResolvedAddress, tls: ssl.SSLContext | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        *others, last = resolved.addresses
        for address in others:
            try:
                return await exchange.connect(address, resolved.port, tls=tls, name=resolved.host)
            except OSError as error:
                if is_tls(error):
                    raise
        return await exchange.connect(last, resolved.port, tls=tls, name=resolved.host)


def _headers(message: Message, now: datetime) -> dict[str, str]:
    message_id, timestamp = ids.show(Prefix.MESSAGE, message.id), int(now.timestamp())
    return {
        **message.headers,
        "accept-encoding": "identity",
        "connection": "close",
        "content-type": "application/json",
        "ingestd-delivery": ids.show(Prefix.DELIVERY, message.delivery_id),
        "user-agent": f"ingestd/{__version__}",
        "webhook-id": message_id,
        "webhook-signature": " ".join(sign(key, message_id, timestamp, message.body) for key in message.keys),
        "webhook-timestamp": str(timestamp),
    }


def _compact(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def _code(status: int) -> Code:
    if status in _SUCCESS:
        return Code.DELIVERED
    return {3: Code.HTTP_3XX, 4: Code.HTTP_4XX}.get(status // 100, Code.HTTP_5XX)


def _retry_after(answer: h11.Response, now: datetime) -> timedelta | None:
    """What `Retry-After` asks for, in seconds or as a date, at most a day; None if it says nothing one could read."""
    asked = dict(answer.headers).get(b"retry-after", b"") if answer.status_code in _RETRY_AFTER_STATUSES else b""
    text = asked.decode("latin-1")
    try:
        if text.isascii() and text.isdecimal():
            wait = timedelta(seconds=int(text))
        else:
            at = parsedate_to_datetime(text)
            wait = at.replace(tzinfo=at.tzinfo or UTC) - now
    except (ValueError, OverflowError):
        return None
    return min(max(wait, timedelta()), LONGEST_WAIT)


def is_tls(error: BaseException | None) -> bool:
    """Whether an error of TLS is behind another one."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None
