"""What a route is given: the parts of the service, one transaction, and who is calling."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.api.problems import Unauthenticated
from ingestd.domain.errors import Forbidden
from ingestd.domain.submission import Actor
from ingestd.egress import Allowed
from ingestd.ingest.intake import Intake
from ingestd.store import api_keys
from ingestd.store.engine import transaction, utc_now


class Scope(StrEnum):
    """What an API key may do; `admin` may do all, and make accounts."""

    ACCOUNT_READ = "account:read"
    ACCOUNT_WRITE = "account:write"
    INGESTIONS_READ = "ingestions:read"
    INGESTIONS_WRITE = "ingestions:write"
    PROFILES_READ = "profiles:read"
    PROFILES_READ_PII = "profiles:read_pii"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    ADMIN = "admin"


@dataclass(frozen=True)
class SftpAddress:
    """Where clients find the SFTP server, and by which host keys they know it."""

    host: str
    port: int
    fingerprints: tuple[str, ...]
    host_keys: tuple[str, ...]


@dataclass(frozen=True)
class Parts:
    """The parts of the service that routes use."""

    intake: Intake
    egress_allow: tuple[Allowed, ...]
    sftp: SftpAddress | None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling: a key, its account and its scopes."""

    key_id: UUID
    key_name: str
    account_id: UUID
    scopes: frozenset[str]

    @property
    def actor(self) -> Actor:
        """The caller as the one who did something."""
        return Actor("api_key", self.key_id, self.key_name)


def parts(request: Request) -> Parts:
    """The parts of the service."""
    found: Parts = request.app.state.parts
    return found


async def begin(request: Request) -> AsyncIterator[AsyncSession]:
    """One transaction for one request; it commits before the answer is sent."""
    async with transaction(parts(request).intake.sessions) as session:
        yield session


async def authenticate(request: Request) -> Principal:
    """The caller, or Unauthenticated; an unknown key costs what a known one does (T51)."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    key_id, secret = api_keys.split(text)
    async with parts(request).intake.sessions() as session:
        key = await api_keys.find(session, key_id) if key_id else None
    if not api_keys.fits(key, secret, now=utc_now()) or key is None or scheme.lower() != "bearer":
        raise Unauthenticated
    return Principal(key.id, key.name, key.account_id, frozenset(key.scopes))


def require(scope: Scope) -> Callable[[Principal], Principal]:
    """The dependency that lets only callers with a scope through; the refusal names it."""

    def check(principal: Annotated[Principal, Depends(authenticate)]) -> Principal:
        if not principal.scopes & {scope, Scope.ADMIN}:
            raise Forbidden(f"This needs the scope {scope}.", code="scope_missing")
        return principal

    return check


Tx = Annotated[AsyncSession, Depends(begin, scope="function")]
Service = Annotated[Parts, Depends(parts)]
