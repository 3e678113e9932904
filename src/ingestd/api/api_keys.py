"""API keys: a secret is shown once, when the key is made."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from ingestd.api.context import Principal, Scope, Tx, require
from ingestd.domain import ids
from ingestd.domain.errors import Forbidden, NotFound
from ingestd.domain.ids import Prefix
from ingestd.store import api_keys
from ingestd.store.api_keys import ApiKey
from ingestd.store.engine import utc_now

router = APIRouter(prefix="/v1/api-keys", tags=["API keys"])


class ApiKeyIn(BaseModel):
    """A new API key."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=120)]
    scopes: Annotated[list[Scope], Field(min_length=1)]
    expires_at: datetime | None = None


class ApiKeyOut(BaseModel):
    """An API key, without its secret."""

    id: str
    name: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class ApiKeyMade(ApiKeyOut):
    """An API key as it is shown once: `key` is what its owner sends."""

    key: str


def _shown(key: ApiKey) -> dict[str, object]:
    return {
        "id": ids.show(Prefix.API_KEY, key.id),
        "name": key.name,
        "scopes": key.scopes,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


@router.post("", status_code=201, operation_id="api_keys_create", summary="Make an API key")
async def create(
    body: ApiKeyIn,
    tx: Tx,
    response: Response,
    principal: Annotated[Principal, Depends(require(Scope.ACCOUNT_WRITE))],
) -> ApiKeyMade:
    """Make a key; it can have no scope that the caller's key has not. The secret is in this answer only."""
    if Scope.ADMIN not in principal.scopes and not principal.scopes.issuperset(body.scopes):
        raise Forbidden("A key cannot give scopes that it does not have.", code="scope_missing")
    key, text = api_keys.issue(
        principal.account_id, name=body.name, scopes=body.scopes, now=utc_now(), expires_at=body.expires_at
    )
    tx.add(key)
    await tx.flush()
    response.headers["Cache-Control"] = "no-store"
    return ApiKeyMade.model_validate(_shown(key) | {"key": text})


@router.get("", operation_id="api_keys_list", summary="List API keys")
async def list_all(tx: Tx, principal: Annotated[Principal, Depends(require(Scope.ACCOUNT_READ))]) -> list[ApiKeyOut]:
    """The keys of the account, oldest first."""
    return [ApiKeyOut.model_validate(_shown(key)) for key in await api_keys.page(tx, principal.account_id)]


@router.delete("/{key_id}", status_code=204, operation_id="api_keys_revoke", summary="Revoke an API key")
async def revoke(key_id: str, tx: Tx, principal: Annotated[Principal, Depends(require(Scope.ACCOUNT_WRITE))]) -> None:
    """Revoke a key: its next request is refused."""
    key = await api_keys.find(tx, ids.read(Prefix.API_KEY, key_id))
    if key is None or key.account_id != principal.account_id:
        raise NotFound("There is no such API key.")
    key.revoked_at = key.revoked_at or utc_now()
