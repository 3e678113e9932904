"""Connections: FTP and SFTP servers of others, from which files are fetched (S17 to S19)."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Final, NamedTuple
from uuid import UUID

from fastapi import Depends, Response
from pydantic import Field, SecretStr, with_config
from typing_extensions import TypedDict

from ingestd import egress
from ingestd.api import audit
from ingestd.api.context import Caller, Parts, Principal, Reading, Scope, Service, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import ConnectionId
from ingestd.api.model import STRICT, In, Name
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.domain.connection import (
    MAX_HOST_KEYS,
    MAX_PATH,
    ConnectionView,
    Kind,
    parse_host_key,
    parse_login,
    parse_root,
)
from ingestd.domain.errors import Conflict, Unavailable
from ingestd.egress import Purpose
from ingestd.store import connections, schedules
from ingestd.store.connections import Connection, secret_context, view
from ingestd.store.engine import new_id, utc_now

router = Router(prefix="/v1/connections", tags=["Connections"])

_MAX_SECRET: Final = 16 * 1024
_SECRETS: Final = ("password", "private_key")

Host = Annotated[str, Field(min_length=1, max_length=253, examples=["ftp.example.org"])]
Port = Annotated[int, Field(ge=1, le=65535, description="Default: the usual one of the kind.")]
Root = Annotated[
    str,
    Field(
        max_length=MAX_PATH,
        description="The folder that paths begin at; without a leading slash it begins where the login leads to.",
        examples=["demo_apac/demo_master"],
    ),
]
Username = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
Secret = Annotated[SecretStr, Field(min_length=1, max_length=_MAX_SECRET, json_schema_extra={"writeOnly": True})]
HostKeys = Annotated[
    list[Annotated[str, Field(max_length=_MAX_SECRET)]],
    Field(
        max_length=MAX_HOST_KEYS,
        description="Lines as the scan shows them. SFTP is spoken to a known key only; FTPS without one to a "
        "certificate that a public authority has signed.",
    ),
]


class ConnectionIn(In):
    """A new connection: a password, or for SFTP a private key in its place."""

    name: Name
    kind: Kind
    host: Host
    port: Port | None = None
    root: Root = ""
    username: Username
    password: Secret | None = None
    private_key: Secret | None = None
    host_keys: HostKeys = Field(default=[])


@with_config(STRICT)
class ConnectionPatch(TypedDict, total=False):
    """A change of a connection. Another server (kind, host or port) needs the secret again, and its key pinned anew."""

    name: Name
    kind: Kind
    host: Host
    port: Port
    root: Root
    username: Username
    password: Secret
    private_key: Secret


class HostKeysIn(In):
    """The keys that a server is known by from now on."""

    host_keys: HostKeys


class ConnectionPage(Page[ConnectionView]):
    """Connections."""


async def _found(body: ConnectionIn, service: Service) -> str:
    """The host of a new connection, looked up before the transaction begins: none waits for a name server."""
    return await _checked_host(service, body.kind, body.host, body.port or body.kind.port)


@router.post(
    "",
    status_code=201,
    operation_id="connections_create",
    summary="Configure a connection",
    dependencies=[needs(Scope.CONNECTIONS_WRITE)],
)
async def create(
    host: Annotated[str, Depends(_found)],
    body: ConnectionIn,
    *,
    tx: Tx,
    service: Service,
    caller: Caller,
    response: Response,
) -> ConnectionView:
    """Keep a server that files are fetched from; an account has at most five. The secret is sealed, never shown."""
    now = utc_now()
    connection = Connection(
        id=new_id(),
        account_id=caller.account_id,
        name=body.name,
        kind=body.kind,
        host=host,
        port=body.port or body.kind.port,
        root=parse_root(body.root),
        username=body.username,
        host_keys=[parse_host_key(line, body.kind).line for line in body.host_keys],
        created_at=now,
        updated_at=now,
    )
    await _seal(tx, connection, body, service)
    await connections.add(tx, connection)
    made = view(connection)
    audit.note(tx, caller, "connection.created", made.id, after=made)
    response.headers["Location"] = f"{router.prefix}/{made.id}"
    return made


@router.get(
    "",
    operation_id="connections_list",
    summary="List connections",
    dependencies=[needs(Scope.CONNECTIONS_READ)],
)
async def list_all(
    tx: Reading, caller: Caller, asked: Annotated[Asked, Depends(listing(connections.SORTS, "created_at"))]
) -> ConnectionPage:
    """The connections of the account, oldest first."""
    return asked.page(ConnectionPage, await connections.page(tx, caller.account_id, asked.cut), view)


@router.get(
    "/{connection_id:id}",
    operation_id="connections_get",
    summary="Show a connection",
    dependencies=[needs(Scope.CONNECTIONS_READ)],
)
async def get_one(connection_id: ConnectionId, tx: Reading, caller: Caller) -> ConnectionView:
    """One connection, without its secret."""
    return view(await connections.get(tx, caller.account_id, connection_id))


@router.patch(
    "/{connection_id:id}",
    operation_id="connections_change",
    summary="Change a connection",
    dependencies=[needs(Scope.CONNECTIONS_WRITE)],
)
async def change(
    connection_id: ConnectionId, body: ConnectionPatch, *, tx: Tx, service: Service, caller: Caller, match: IfMatch
) -> ConnectionView:
    """Change some of it. A secret that is kept goes to the server it was given for, and to no other."""
    address = await _new_address(connection_id, body, service, caller)
    connection = await connections.get(tx, caller.account_id, connection_id, lock=True)
    before = view(connection)
    match.check(before)
    moved = address is not None and address != _Address(before.kind, before.host, before.port)
    if address is not None and moved:
        connection.kind, connection.host, connection.port = address
        connection.pin([])
    if moved or not body.keys().isdisjoint(_SECRETS):
        await _seal(tx, connection, body, service)
    connection.name = body.get("name", before.name)
    connection.username = body.get("username", before.username)
    connection.root = parse_root(body.get("root", before.root))
    return await _changed(tx, caller, connection, before)


@router.put(
    "/{connection_id}/host-keys",
    operation_id="connections_pin_host_keys",
    summary="Pin the keys of a server",
    dependencies=[needs(Scope.CONNECTIONS_WRITE)],
)
async def pin(connection_id: ConnectionId, body: HostKeysIn, tx: Tx, caller: Caller, match: IfMatch) -> ConnectionView:
    """Say by which keys the server is known: those of a scan, compared with what its operator says they are."""
    connection = await connections.get(tx, caller.account_id, connection_id, lock=True)
    before = view(connection)
    match.check(before)
    connection.pin([parse_host_key(line, before.kind).line for line in body.host_keys])
    return await _changed(tx, caller, connection, before)


@router.delete(
    "/{connection_id:id}",
    status_code=204,
    operation_id="connections_delete",
    summary="Delete a connection",
    dependencies=[needs(Scope.CONNECTIONS_WRITE)],
)
async def delete(connection_id: ConnectionId, tx: Tx, caller: Caller, match: IfMatch) -> None:
    """Forget a server and its secret."""
    connection = await connections.get(tx, caller.account_id, connection_id, lock=True)
    before = view(connection)
    match.check(before)
    if await schedules.is_used(tx, connection.id):
        raise Conflict("A schedule fetches from this connection.", code="connection_used")
    await tx.delete(connection)
    audit.note(tx, caller, "connection.deleted", before.id, before=before)


async def _changed(tx: Tx, caller: Principal, connection: Connection, before: ConnectionView) -> ConnectionView:
    connection.updated_at = utc_now()
    await tx.run_sync(connections.flush)
    after = view(connection)
    audit.note(tx, caller, "connection.changed", after.id, before=before, after=after)
    return after


class _Address(NamedTuple):
    """What makes a server another one."""

    kind: Kind
    host: str
    port: int


async def _new_address(
    connection_id: UUID, body: ConnectionPatch, service: Parts, caller: Principal
) -> _Address | None:
    """The address that a change leads to, or None where it says nothing of it; asked before its transaction begins."""
    if not body.keys() & {"kind", "host", "port"}:
        return None
    async with service.intake.sessions() as session:
        before = view(await connections.get(session, caller.account_id, connection_id))
    kind = body.get("kind", before.kind)
    port = body.get("port", before.port if kind is before.kind else kind.port)
    return _Address(kind, await _checked_host(service, kind, body.get("host", before.host), port), port)


async def _checked_host(service: Parts, kind: Kind, host: str, port: int) -> str:
    """The host in normal form, or why we do not connect to it (T2, T9).

    One that cannot be looked up now is kept: it is resolved and checked anew at every visit.
    """
    purpose = Purpose.SFTP if kind is Kind.SFTP else Purpose.FTP
    with suppress(Unavailable):
        await egress.resolve(host, port, purpose=purpose, allow=service.egress_allow)
    return egress.parse_host(host)


async def _seal(tx: Tx, connection: Connection, given: ConnectionIn | ConnectionPatch, service: Parts) -> None:
    """Take the secret of a request over into the connection, sealed."""
    said = given if isinstance(given, dict) else given.model_dump()
    texts = {name: said[name].get_secret_value() for name in _SECRETS if said.get(name) is not None}
    login = parse_login(Kind(connection.kind), **dict.fromkeys(_SECRETS) | texts)
    keys = await service.intake.keys(connection.account_id, tx)
    connection.auth, connection.public_key = login.auth, login.public_key
    connection.secret = keys.seal_secret(secret_context(connection.id), login.secret.encode())
