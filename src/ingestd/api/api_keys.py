"""API keys: a secret is shown once, when the key is made or replaced by a new one."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import Depends, Response
from pydantic import Field, with_config
from typing_extensions import TypedDict

from ingestd.api import audit
from ingestd.api.context import NO_STORE, Caller, Principal, Reading, Scope, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import ApiKeyId
from ingestd.api.model import A_DAY, STRICT, In, Name, Out, RotateIn
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.errors import Forbidden, Invalid, Problem
from ingestd.domain.ids import Prefix
from ingestd.domain.moment import Moment
from ingestd.store import api_keys
from ingestd.store.api_keys import ApiKey
from ingestd.store.engine import utc_now

router = Router(prefix="/v1/api-keys", tags=["API keys"])


class ApiKeyIn(In):
    """A new API key."""

    name: Name
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(Scope))]
    expires_at: Moment | None = None


@with_config(STRICT)
class ApiKeyPatch(TypedDict, total=False):
    """A change of an API key; null in `expires_at` lets it live on."""

    name: Name
    expires_at: Moment | None


class ApiKeyOut(Out):
    """An API key, without its secret."""

    name: str
    scopes: list[Scope]
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None


class ApiKeyMade(ApiKeyOut):
    """An API key as it is shown once: `key` is what its owner sends."""

    key: str


class ApiKeyPage(Page[ApiKeyOut]):
    """API keys, those that are no longer in force too."""


def shown(key: ApiKey) -> ApiKeyOut:
    """A key as the API shows it."""
    return ApiKeyOut(
        id=ids.show(Prefix.API_KEY, key.id),
        name=key.name,
        scopes=key.scopes,
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
    )


@router.post(
    "",
    status_code=201,
    operation_id="api_keys_create",
    summary="Make an API key",
    dependencies=[needs(Scope.ACCOUNT_WRITE), NO_STORE],
)
async def create(body: ApiKeyIn, tx: Tx, caller: Caller, response: Response) -> ApiKeyMade:
    """Make a key; it can have no scope that the caller's key has not. The secret is in this answer only."""
    now = utc_now()
    _check_scopes(caller, body.scopes)
    _check_expiry(body.expires_at, now)
    key, text = api_keys.issue(
        caller.account_id, name=body.name, scopes=body.scopes, now=now, expires_at=body.expires_at
    )
    tx.add(key)
    return _made(tx, caller, response, key, text)


@router.get("", operation_id="api_keys_list", summary="List API keys", dependencies=[needs(Scope.ACCOUNT_READ)])
async def list_all(
    tx: Reading, caller: Caller, asked: Annotated[Asked, Depends(listing(api_keys.SORTS, "created_at"))]
) -> ApiKeyPage:
    """The keys of the account, oldest first."""
    return asked.page(ApiKeyPage, await api_keys.page(tx, caller.account_id, asked.cut), shown)


@router.get(
    "/{key_id}", operation_id="api_keys_get", summary="Show an API key", dependencies=[needs(Scope.ACCOUNT_READ)]
)
async def get_one(key_id: ApiKeyId, tx: Reading, caller: Caller) -> ApiKeyOut:
    """One key, in force or not."""
    return shown(await api_keys.get(tx, caller.account_id, key_id))


@router.patch(
    "/{key_id}", operation_id="api_keys_change", summary="Change an API key", dependencies=[needs(Scope.ACCOUNT_WRITE)]
)
async def change(key_id: ApiKeyId, body: ApiKeyPatch, tx: Tx, caller: Caller, match: IfMatch) -> ApiKeyOut:
    """Rename a key, or set when it expires; its scopes stay what they are: make another key for others.

    It can have no scope that the caller's key has not.
    """
    key = await api_keys.get(tx, caller.account_id, key_id, lock=True)
    _check_scopes(caller, key.scopes)
    before = shown(key)
    match.check(before)
    _check_expiry(body.get("expires_at"), utc_now())
    key.name = body.get("name", key.name)
    key.expires_at = body.get("expires_at", key.expires_at)
    return audit.changed(tx, caller, "api_key.changed", before, shown(key))


@router.post(
    "/{key_id}/rotate",
    status_code=201,
    operation_id="api_keys_rotate",
    summary="Replace an API key",
    dependencies=[needs(Scope.ACCOUNT_WRITE), NO_STORE],
)
async def rotate(key_id: ApiKeyId, body: RotateIn = A_DAY, *, tx: Tx, caller: Caller, response: Response) -> ApiKeyMade:
    """Make a new key with the name and scopes of this one, which expires when the grace is over (a day, if unsaid)."""
    old = await api_keys.get(tx, caller.account_id, key_id, lock=True)
    _check_scopes(caller, old.scopes)
    before, now = shown(old), utc_now()
    new, text = api_keys.replace(old, grace=timedelta(seconds=body.grace_seconds), now=now)
    tx.add(new)
    audit.changed(tx, caller, "api_key.changed", before, shown(old))
    return _made(tx, caller, response, new, text)


@router.delete(
    "/{key_id}",
    status_code=204,
    operation_id="api_keys_revoke",
    summary="Revoke an API key",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
)
async def revoke(key_id: ApiKeyId, tx: Tx, caller: Caller, match: IfMatch) -> None:
    """Revoke a key: its next request is refused. One with the scope `admin` is revoked by one that has it, too."""
    key = await api_keys.get(tx, caller.account_id, key_id, lock=True)
    if Scope.ADMIN in key.scopes:
        caller.demand(Scope.ADMIN)
    before = shown(key)
    match.check(before)
    key.revoked_at = key.revoked_at or utc_now()
    audit.changed(tx, caller, "api_key.revoked", before, shown(key))


def _check_scopes(caller: Principal, scopes: list[Scope]) -> None:
    """Refuse to give, or to let live on, what the caller's key has not itself."""
    if not all(caller.may(scope) for scope in scopes):
        raise Forbidden(
            "A key can neither give scopes that it does not have nor change who has them.", code="scope_missing"
        )


def _check_expiry(expires_at: datetime | None, now: datetime) -> None:
    """Refuse a moment that has passed: whoever wants to end a key revokes it."""
    if expires_at is not None and expires_at <= now:
        problem = Problem("/body/expires_at", "past", "'expires_at' has passed; to end a key, revoke it.")
        raise Invalid("The key would not be in force.", problems=(problem,))


def _made(tx: Tx, caller: Principal, response: Response, key: ApiKey, text: str) -> ApiKeyMade:
    made = shown(key)
    audit.note(tx, caller, "api_key.created", made.id, after=made)
    response.headers["Location"] = f"{router.prefix}/{made.id}"
    return ApiKeyMade(**made.model_dump(), key=text)
