"""What a route is given: the parts of the service, one transaction, and who is calling.

A route says in its decorator what it needs, and in its parameters what it uses:

    @router.post("", status_code=201, dependencies=[needs(Scope.ACCOUNT_WRITE)], …)
    async def create(body: ThingIn, tx: Tx, caller: Caller) -> ThingOut: …

`needs` runs first, so that nothing is done, or told, for a caller without the scope. `Tx` commits before the answer is
sent and brings Idempotency-Key to a POST; `Reading` is for routes that only read. Neither is for a route that streams
or waits: that opens short sessions of its own (`Service.intake.sessions`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Header, Request, Response, Security
from fastapi.security import HTTPBearer
from pydantic import WithJsonSchema
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.api import idempotency
from ingestd.api.export_limit import ExportLimit
from ingestd.api.problems import Refused
from ingestd.api.rate import Rate
from ingestd.domain import ids
from ingestd.domain.errors import Forbidden
from ingestd.domain.ids import Prefix
from ingestd.domain.submission import Actor
from ingestd.egress import Allowed
from ingestd.fetch.remote import Terms
from ingestd.ingest.intake import Intake
from ingestd.settings import FetchSettings, RetentionSettings
from ingestd.store import accounts, api_keys
from ingestd.store.api_keys import ApiKey
from ingestd.store.engine import transaction, utc_now


class Scope(StrEnum):
    """What an API key may do; `admin` may do all, make accounts, and act for another with `Account-Id`."""

    ACCOUNT_READ = "account:read"
    ACCOUNT_WRITE = "account:write"
    CONNECTIONS_READ = "connections:read"
    CONNECTIONS_WRITE = "connections:write"
    INGESTIONS_READ = "ingestions:read"
    INGESTIONS_WRITE = "ingestions:write"
    PROFILES_READ = "profiles:read"
    PROFILES_READ_PII = "profiles:read_pii"
    PROFILES_WRITE = "profiles:write"
    DATA_SOURCES_READ = "data_sources:read"
    DATA_SOURCES_WRITE = "data_sources:write"
    SEGMENTS_READ = "segments:read"
    SEGMENTS_WRITE = "segments:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    AUDIT_READ = "audit:read"
    ADMIN = "admin"


@dataclass(frozen=True)
class SftpAddress:
    """Where clients find the SFTP server, and by which host keys they know it."""

    host: str
    port: int
    fingerprints: tuple[str, ...]
    host_keys: tuple[str, ...]


Check = Callable[[], Awaitable[bool]]
"""Whether something that the service depends on answers."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of the service that routes use.

    `checks` are those of readiness, by name. `stopping` is set when the service goes down: what streams or waits ends
    then by itself, since the server would wait for it.
    """

    intake: Intake
    egress_allow: tuple[Allowed, ...]
    sftp: SftpAddress | None
    rate: Rate
    checks: Mapping[str, Check]
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    fetch: FetchSettings = field(default_factory=FetchSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    exports: ExportLimit = field(default_factory=ExportLimit)

    @property
    def terms(self) -> Terms:
        """On which terms other people's servers are visited."""
        return Terms(self.fetch, self.egress_allow)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling: a key, the account it acts for, its scopes; and the id of the request."""

    key_id: UUID
    key_name: str
    account_id: UUID
    scopes: frozenset[str]
    request_id: str

    @property
    def actor(self) -> Actor:
        """The caller as the one who did something."""
        return Actor("api_key", self.key_id, self.key_name)

    def may(self, scope: str) -> bool:
        """Whether the key has a scope."""
        return not self.scopes.isdisjoint({scope, Scope.ADMIN})

    def demand(self, scope: Scope) -> None:
        """Raise Forbidden, which names the scope, where the key does not have it."""
        if not self.may(scope):
            raise Forbidden(f"This needs the scope {scope}.", code="scope_missing")


def parts(request: Request) -> Parts:
    """The parts of the service."""
    found: Parts = request.app.state.parts
    return found


_bearer = HTTPBearer(auto_error=False, scheme_name="ApiKey", bearerFormat="isk_<key id>_<secret>")


async def authenticate(
    request: Request,
    _: Annotated[object, Depends(_bearer)],
    acts_for: Annotated[
        str | None, Header(alias="Account-Id", description="The account to act for; needs the scope `admin`.")
    ] = None,
) -> Principal:
    """The caller, or 401; an unknown key costs what a known one does (T51). Counts against the rate limits (T53)."""
    known: Principal | None = getattr(request.state, "principal", None)
    if known is not None:  # FastAPI asks once for each set of scopes
        return known
    key = await _key(request)
    await parts(request).rate.count(request, str(key.id))
    parts(request).rate.enter(request, key.account_id)
    account_id = key.account_id if acts_for is None else await _account(request, key, acts_for)
    found = Principal(key.id, key.name, account_id, frozenset(key.scopes), request.state.request_id)
    request.state.principal = found
    return found


async def _key(request: Request) -> ApiKey:
    headers = request.headers.getlist("authorization")
    if not headers:
        raise _unauthenticated()
    scheme, _, text = headers[0].partition(" ")
    key_id, secret = api_keys.split(text)
    async with parts(request).intake.sessions() as session:
        key = await api_keys.find(session, key_id) if key_id else None
    if (
        api_keys.fits(key, secret, now=utc_now())
        and key is not None
        and scheme.lower() == "bearer"
        and len(headers) < 2
    ):
        return key
    await parts(request).rate.count_wrong_key(request)
    raise _unauthenticated()


def _unauthenticated() -> Refused:
    return Refused(
        "unauthenticated",
        "Send a valid API key: Authorization: Bearer isk_….",
        headers={"WWW-Authenticate": "Bearer"},
    )


async def _account(request: Request, key: ApiKey, named: str) -> UUID:
    """The account that an operator's key acts for."""
    if Scope.ADMIN not in key.scopes:
        raise Forbidden(f"Account-Id needs the scope {Scope.ADMIN}.", code="scope_missing")
    async with parts(request).intake.sessions() as session:
        return (await accounts.get(session, ids.read(Prefix.ACCOUNT, named))).id


def needs(scope: Scope) -> Any:
    """The dependency, for a route's decorator, that lets only callers with a scope through; the refusal names it."""

    async def check(caller: Caller) -> None:
        caller.demand(scope)

    return Security(check, scopes=[scope])


Caller = Annotated[Principal, Depends(authenticate)]
Service = Annotated[Parts, Depends(parts)]


IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=idempotency.HEADER,
        description="A text of your own for this request: sent again within 24 hours, it has no second effect.",
    ),
    WithJsonSchema({"type": "string", "pattern": "^[!-~]{1,255}$"}),
]


async def begin(
    request: Request, service: Service, caller: Caller, idempotency_key: IdempotencyKey = None
) -> AsyncIterator[AsyncSession]:
    """One transaction for one request; it commits before the answer is sent. A POST may carry an Idempotency-Key."""
    repeatable = request.method == "POST" and idempotency_key is not None
    keys = await service.intake.keys(caller.account_id) if repeatable else None
    async with transaction(service.intake.sessions) as session:
        if keys is not None:
            content = await request.body()
            await idempotency.enter(
                request, session, account_id=caller.account_id, key_id=caller.key_id, keys=keys, content=content
            )
        yield session


async def read(service: Service) -> AsyncIterator[AsyncSession]:
    """A session for one request that only reads."""
    async with transaction(service.intake.sessions) as session:
        yield session


Tx = Annotated[AsyncSession, Depends(begin, scope="function")]
Reading = Annotated[AsyncSession, Depends(read, scope="function")]
Late = Annotated[AsyncSession, Depends(read, scope="function")]
"""As Tx, for a POST that streams its body first: nothing is held until its first statement. It calls
`idempotency.enter` itself, once it knows what came."""


async def _no_store(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"


NO_STORE = Depends(_no_store)
"""For the decorator of a route whose answers hold a secret or personal data: nothing keeps them on the way."""
