"""Idempotency-Key: a POST that is sent twice has one effect, and the second answer is the first one's (T60).

Every POST that takes `Tx` has it, with nothing to do in the route: `begin` calls `enter` before the route runs, and
`routes` calls `keep` with the answer while the transaction is still open, so that effect and answer are committed
together or not at all. A refusal has no effect and is not kept. A POST that only reads takes `Reading` instead.

A route whose effect is in a transaction of its own (an upload) calls both itself, inside that transaction.
The answer is sealed with the account's keys, since it may hold a secret that is shown once (docs/decisions/0007).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.api.problems import Refused
from ingestd.domain.errors import Conflict, Invalid, Problem
from ingestd.keyring import AccountKeys
from ingestd.store import idempotency_keys
from ingestd.store.engine import utc_now
from ingestd.store.idempotency_keys import KEPT, IdempotencyKey

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
_FORM: Final = re.compile(r"[!-~]{1,255}")
_HEADERS_KEPT: Final = ("content-type", "location", "etag", "cache-control")


class Replayed(Exception):
    """This request was answered before."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


@dataclass(frozen=True, slots=True)
class Entered:
    """A request whose answer is to be kept."""

    session: AsyncSession
    account_id: UUID
    keys: AccountKeys
    name: bytes
    fingerprint: bytes


async def enter(
    request: Request, session: AsyncSession, *, account_id: UUID, key_id: UUID, keys: AccountKeys, content: bytes
) -> None:
    """Begin an idempotent request in the transaction of its effect; `content` is what tells it from another.

    Raises Replayed where it was answered before, 409 where it is in flight, 422 where the key came with other content.
    One API key never gets another one's answers.
    """
    given = request.headers[HEADER]
    if not _FORM.fullmatch(given):
        problem = Problem(f"/header/{HEADER}", "format", "1 to 255 printable ASCII characters.")
        raise Invalid("The Idempotency-Key is not well formed.", problems=(problem,))
    name = _digest(str(key_id), request.url.path, given)
    fingerprint = _digest(request.url.query, content)
    if not await idempotency_keys.claim(session, name):
        raise Conflict("A request with this Idempotency-Key is in flight.", code="idempotency_key_in_use")
    known = await idempotency_keys.find(session, account_id, name)
    if known is not None and known.created_at > utc_now() - KEPT:
        if known.fingerprint != fingerprint:
            raise Refused("idempotency_key_reused")
        raise Replayed(_restored(keys.open_secret(_context(name), known.answer)))
    request.state.idempotency = Entered(session, account_id, keys, name, fingerprint)


async def keep(request: Request, response: Response) -> None:
    """Keep the answer of a request that was entered, in the same transaction."""
    entered: Entered | None = getattr(request.state, "idempotency", None)
    if entered is None:
        return
    answered = IdempotencyKey(
        account_id=entered.account_id,
        hash=entered.name,
        fingerprint=entered.fingerprint,
        answer=entered.keys.seal_secret(_context(entered.name), _packed(response)),
        created_at=utc_now(),
    )
    await entered.session.merge(answered)  # in the place of one that holds no longer
    await entered.session.flush()


def _digest(*parts: str | bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        text = part.encode() if isinstance(part, str) else part
        digest.update(len(text).to_bytes(8) + text)
    return digest.digest()


def _context(name: bytes) -> str:
    return f"idempotency_keys/{name.hex()}/answer"


def _packed(response: Response) -> bytes:
    headers = {name: response.headers[name] for name in _HEADERS_KEPT if name in response.headers}
    return json.dumps([response.status_code, headers, bytes(response.body).decode()]).encode()


def _restored(packed: bytes) -> Response:
    found: Any = json.loads(packed)
    status, headers, body = found
    return Response(body, status, headers={**headers, REPLAYED: "true"})
