"""Import keys and the SFTP server they open (S79 to S84)."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Response
from pydantic import BaseModel, Field, with_config
from typing_extensions import TypedDict

from ingestd.api import audit
from ingestd.api.choice import Chosen, chosen
from ingestd.api.context import Caller, Reading, Scope, Service, SftpAddress, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import ImportKeyId
from ingestd.api.model import STRICT, In, Name, Out
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.errors import Forbidden, Unavailable
from ingestd.domain.ids import Prefix
from ingestd.domain.import_key import MAX_TEXT, parse_public_key
from ingestd.domain.moment import Moment
from ingestd.store import accounts, import_keys
from ingestd.store.engine import new_id, utc_now
from ingestd.store.import_keys import ImportKey

router = Router(prefix="/v1", tags=["Import keys"])


class ImportKeyIn(In):
    """A new import key; the user name is the account's id and cannot be chosen (S80)."""

    name: Name
    public_key: Annotated[
        str,
        Field(
            max_length=MAX_TEXT + 1,
            description="One OpenSSH public key line, such as the file id_ed25519.pub holds.",
            examples=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ9Vq0cJqRWlPhmUoQqYkkTBF6v8QV0Jq0zZ2R7dW1mD"],
        ),
    ]
    webhooks: Chosen = Field([])


@with_config(STRICT)
class ImportKeyPatch(TypedDict, total=False):
    """A change of an import key."""

    name: Name
    webhooks: Chosen


class ImportKeyOut(Out):
    """An import key in force."""

    name: str
    username: str
    fingerprint: str
    public_key: str
    webhooks: list[str]
    created_at: Moment
    last_used_at: Moment | None


class SftpOut(BaseModel):
    """Where to put files, as whom, and how to know the server."""

    host: str
    port: int
    username: str
    url: str
    host_key_fingerprints: list[str]
    commands: list[str]


class ImportKeyPage(Page[ImportKeyOut]):
    """Import keys in force, and the server they open, null where it is not known (S84)."""

    server: SftpOut | None


def shown(key: ImportKey) -> ImportKeyOut:
    """A key as the API shows it."""
    return ImportKeyOut(
        id=ids.show(Prefix.IMPORT_KEY, key.id),
        name=key.name,
        username=ids.show(Prefix.ACCOUNT, key.account_id),
        fingerprint=key.fingerprint,
        public_key=key.public_key,
        webhooks=[ids.show(Prefix.WEBHOOK, each) for each in key.webhook_ids],
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
async def create(body: ImportKeyIn, tx: Tx, caller: Caller, response: Response) -> ImportKeyOut:
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
        webhook_ids=await chosen(tx, caller, body.webhooks),
        created_at=utc_now(),
    )
    made = shown(await tx.run_sync(import_keys.add, key))
    audit.note(tx, caller, "import_key.created", made.id, after=made)
    response.headers["Location"] = f"/v1/import-keys/{made.id}"
    return made


@router.get(
    "/import-keys",
    operation_id="import_keys_list",
    summary="List import keys",
    dependencies=[needs(Scope.ACCOUNT_READ)],
)
async def list_all(
    tx: Reading,
    service: Service,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(import_keys.SORTS, "created_at"))],
) -> ImportKeyPage:
    """The keys in force, oldest first, with the server's address."""
    server = service.sftp and _server(service.sftp, ids.show(Prefix.ACCOUNT, caller.account_id))
    rows = await import_keys.page(tx, caller.account_id, asked.cut)
    return asked.page(ImportKeyPage, rows, shown, server=server)


@router.get(
    "/import-keys/{key_id}",
    operation_id="import_keys_get",
    summary="Show an import key",
    dependencies=[needs(Scope.ACCOUNT_READ)],
)
async def get_one(key_id: ImportKeyId, tx: Reading, caller: Caller) -> ImportKeyOut:
    """One key in force."""
    return shown(await import_keys.get(tx, caller.account_id, key_id))


@router.patch(
    "/import-keys/{key_id}",
    operation_id="import_keys_change",
    summary="Rename an import key",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
)
async def change(key_id: ImportKeyId, body: ImportKeyPatch, tx: Tx, caller: Caller, match: IfMatch) -> ImportKeyOut:
    """Rename a key; another public key is another import key."""
    webhook_ids = await chosen(tx, caller, body["webhooks"]) if "webhooks" in body else None
    key = await import_keys.get(tx, caller.account_id, key_id, lock=True)
    before = shown(key)
    match.check(before)
    if webhook_ids is not None:
        key.webhook_ids = webhook_ids
    key.name = body.get("name", key.name)  # last: a query would write it down, and stumble over one that is taken
    after = shown(await tx.run_sync(import_keys.add, key))
    return audit.changed(tx, caller, "import_key.changed", before, after)


@router.delete(
    "/import-keys/{key_id}",
    status_code=204,
    operation_id="import_keys_revoke",
    summary="Revoke an import key",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
)
async def revoke(key_id: ImportKeyId, tx: Tx, caller: Caller, match: IfMatch) -> None:
    """Revoke a key: it opens no new session, an open one can do nothing more, and is ended within seconds."""
    key = await import_keys.get(tx, caller.account_id, key_id, lock=True)
    before = shown(key)
    match.check(before)
    key.revoked_at = utc_now()
    audit.note(tx, caller, "import_key.revoked", before.id, before=before)


@router.get("/sftp", operation_id="sftp_get", summary="Show the SFTP server", dependencies=[needs(Scope.ACCOUNT_READ)])
async def sftp(service: Service, caller: Caller) -> SftpOut:
    """Host, port, user name, host-key fingerprints and ready-made commands, whichever process has the server."""
    if service.sftp is None:
        raise Unavailable(
            "The SFTP server does not run here, and neither INGESTD_SFTP__PUBLIC_HOST nor INGESTD_SFTP__HOST_KEY says "
            "where it is."
        )
    return _server(service.sftp, ids.show(Prefix.ACCOUNT, caller.account_id))
