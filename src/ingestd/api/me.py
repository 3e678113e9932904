"""Who the caller is, and what the service bears with: what a client asks first."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from ingestd.api.context import Caller, Service
from ingestd.api.pages import DEFAULT_LIMIT, MAX_LIMIT
from ingestd.api.rate import WINDOW_SECONDS
from ingestd.api.routes import MIB, Router
from ingestd.api.strict import DEPTH
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.store.idempotency_keys import KEPT

router = Router(prefix="/v1", tags=["System"])


class MeOut(BaseModel):
    """The API key of the request, and the account it acts for."""

    key_id: str
    key_name: str
    account_id: str
    scopes: list[str]


class LimitsOut(BaseModel):
    """What requests and files are held to."""

    requests: int
    per_seconds: int
    body_bytes: int
    body_depth: int
    page_items: int
    page_items_max: int
    idempotency_seconds: int
    file_bytes: Annotated[int, Field(description="Of any file.")]
    data_source_file_bytes: Annotated[int, Field(description="Of a file for a data source (D10).")]


@router.get("/me", operation_id="me_get", summary="Show who is calling")
async def me(caller: Caller) -> MeOut:
    """The key, its scopes and its account; any key may ask."""
    return MeOut(
        key_id=ids.show(Prefix.API_KEY, caller.key_id),
        key_name=caller.key_name,
        account_id=ids.show(Prefix.ACCOUNT, caller.account_id),
        scopes=sorted(caller.scopes),
    )


@router.get("/limits", operation_id="limits_get", summary="Show the limits")
async def limits(service: Service, _: Caller) -> LimitsOut:
    """What requests and files are held to; any key may ask."""
    return LimitsOut(
        requests=service.rate.per_key.amount,
        per_seconds=WINDOW_SECONDS,
        body_bytes=MIB,
        body_depth=DEPTH,
        page_items=DEFAULT_LIMIT,
        page_items_max=MAX_LIMIT,
        idempotency_seconds=int(KEPT.total_seconds()),
        file_bytes=service.intake.limits.file_bytes,
        data_source_file_bytes=service.intake.source_file_bytes,
    )
