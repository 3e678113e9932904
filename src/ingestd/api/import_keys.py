"""Import keys and the SFTP server they open (S79 to S84)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ingestd.api.context import Caller, Reading, Scope, Service, SftpAddress, Tx, needs
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.errors import Forbidden, Unavailable
from ingestd.domain.ids import Prefix
from ingestd.domain.import_key import parse_public_key
from ingestd.store import accounts, import_keys
from ingestd.store.engine import new_id, utc_now
from ingestd.store.import_keys import ImportKey

router = Router(prefix="/v1", tags=["Import keys"])


class ImportKeyIn(BaseModel):
    """A new import key; the user name is the account's id and cannot be chosen (S80)."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=120)]
    public_key: Annotated[str, Field(description="One OpenSSH public key line, such as the file id_ed25519.pub holds.")]


class ImportKeyOut(BaseModel):
    """An import key in force."""

    id: str
    name: str
    username: str
    fingerprint: str
    public_key: str
    created_at: datetime
    last_used_at: datetime | None


class SftpOut(BaseModel):
    """Where to put files, as whom, and how to know the server."""

    host: str
    port: int
    username: str
    url: str
    host_key_fingerprints: list[str]
    commands: list[str]


class ImportKeyList(BaseModel):
    """The import keys of the account, and the server they open (S84)."""

    data: list[ImportKeyOut]
    server: SftpOut | None


def _shown(key: ImportKey) -> ImportKeyOut:
    return ImportKeyOut(
        id=ids.show(Prefix.IMPORT_KEY, key.id),
        name=key.name,
        username=ids.show(Prefix.ACCOUNT, key.account_id),
        fingerprint=key.fingerprint,
        public_key=key.public_key,
        created_at=key.created_at,
        last_used_at=key.last_used_at,
    )


def _server(address: SftpAddress, username: str) -> SftpOut:
    return SftpOut(
        host=address.host,
        port=address.port,
        username=username,
        url=f"sftp://{username}@{address.host}:{address.port}/",
        host_key_fingerprints=list(address.fingerprints),
        commands=[
            f"sftp -i ~/.ssh/id_ed25519 -P {address.port} {username}@{address.host}",
            "put filename.csv",
            "put file.manifest",
        ],
    )


@router.post(
    "/import-keys",
    status_code=201,
    operation_id="import_keys_create",
    summary="Register an import key",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
)
async def create(body: ImportKeyIn, tx: Tx, caller: Caller) -> ImportKeyOut:
    """Register an SSH public key; its owner can log in at once. 403 where the account's plan has no SFTP (S79)."""
    account = await accounts.get(tx, caller.account_id)
    if not account.allows("sftp"):
        raise Forbidden("The account's plan does not include SFTP.", code="feature_missing")
    public = parse_public_key(body.public_key)
    key = ImportKey(
        id=new_id(),
        account_id=account.id,
        name=body.name,
        public_key=public.line,
        fingerprint=public.fingerprint,
        created_at=utc_now(),
    )
    return _shown(await tx.run_sync(import_keys.add, key))


@router.get(
    "/import-keys",
    operation_id="import_keys_list",
    summary="List import keys",
    dependencies=[needs(Scope.ACCOUNT_READ)],
)
async def list_all(tx: Reading, service: Service, caller: Caller) -> ImportKeyList:
    """The keys in force, oldest first, with the server's address."""
    username = ids.show(Prefix.ACCOUNT, caller.account_id)
    return ImportKeyList(
        data=[_shown(key) for key in await import_keys.page(tx, caller.account_id)],
        server=service.sftp and _server(service.sftp, username),
    )


@router.delete(
    "/import-keys/{key_id}",
    status_code=204,
    operation_id="import_keys_revoke",
    summary="Revoke a key",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
)
async def revoke(key_id: str, tx: Tx, caller: Caller) -> None:
    """Revoke a key: it opens no new session, and what an open one does next is refused."""
    key = await import_keys.get(tx, caller.account_id, ids.read(Prefix.IMPORT_KEY, key_id))
    key.revoked_at = utc_now()


@router.get("/sftp", operation_id="sftp_get", summary="Show the SFTP server", dependencies=[needs(Scope.ACCOUNT_READ)])
async def sftp(service: Service, caller: Caller) -> SftpOut:
    """Host, port, user name, host-key fingerprints and ready-made commands."""
    if service.sftp is None:
        raise Unavailable("The SFTP server is not running here.")
    return _server(service.sftp, ids.show(Prefix.ACCOUNT, caller.account_id))
