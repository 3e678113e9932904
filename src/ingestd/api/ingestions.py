"""Ingestions: the activity log, one ingestion, and its error file (S70, S71, S128, S137)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, BinaryIO, Final
from urllib.parse import quote

from fastapi import Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from ingestd.api.context import Caller, Reading, Scope, Service, needs
from ingestd.api.ids import IngestionId
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.errors import NotFound
from ingestd.domain.ids import Prefix
from ingestd.domain.ingestion import IngestionView
from ingestd.store import ingestions

router = Router(prefix="/v1/ingestions", tags=["Ingestions"])

_CHUNK: Final = 256 * 1024


class IngestionPage(BaseModel):
    """Ingestions, newest first; `next_cursor` is the cursor of the next page, or null."""

    data: list[IngestionView]
    next_cursor: str | None


@router.get("", operation_id="ingestions_list", summary="List ingestions", dependencies=[needs(Scope.INGESTIONS_READ)])
async def list_all(
    tx: Reading,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> IngestionPage:
    """The account's ingestions, newest first."""
    before = ids.read(Prefix.INGESTION, cursor) if cursor else None
    rows = await ingestions.page(tx, caller.account_id, before=before, limit=limit)
    shown = [ingestions.view(row) for row in rows[:limit]]
    return IngestionPage(data=shown, next_cursor=shown[-1].id if len(rows) > limit else None)


@router.get(
    "/{ingestion_id}",
    operation_id="ingestions_get",
    summary="Show an ingestion",
    dependencies=[needs(Scope.INGESTIONS_READ)],
)
async def get_one(ingestion_id: IngestionId, tx: Reading, caller: Caller) -> IngestionView:
    """One ingestion as it stands."""
    row = await ingestions.get(tx, caller.account_id, ingestion_id)
    return ingestions.view(row)


@router.get(
    "/{ingestion_id}/error-file",
    operation_id="ingestions_error_file",
    summary="Download the error file",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {}}, "description": "The rejected rows and why, as CSV."}},
    dependencies=[needs(Scope.INGESTIONS_READ)],
)
async def error_file(
    ingestion_id: IngestionId,
    service: Service,
    caller: Caller,
) -> StreamingResponse:
    """The rejected rows: the file's own columns, then `Failure Description` (S128). 404 where no row was rejected."""
    async with service.intake.sessions() as session:
        row = await ingestions.get(session, caller.account_id, ingestion_id)
    if row.error_blob is None:
        raise NotFound("The ingestion has no error file: no row was rejected.")
    keys = await service.intake.keys(caller.account_id)
    stream = await asyncio.to_thread(service.intake.blobs.open, row.error_blob, keys)
    stem = (row.name or ids.show(Prefix.INGESTION, ingestion_id)).rsplit(".", 1)[0]
    return StreamingResponse(
        _chunks(stream),
        media_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(f'{stem}.errors.csv')}",
            "Content-Length": str(row.error_size_bytes),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        },
    )


async def _chunks(stream: BinaryIO) -> AsyncIterator[bytes]:
    try:
        while chunk := await asyncio.to_thread(stream.read, _CHUNK):
            yield chunk
    finally:
        await asyncio.to_thread(stream.close)
