"""The rejected rows of an ingestion: listed, counted, and as the error file (S128)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import closing
from typing import Annotated, Any, BinaryIO, TypeVar
from uuid import UUID

from fastapi import Depends, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Row

from ingestd.api import audit
from ingestd.api.context import Caller, Parts, Principal, Scope, Service, needs
from ingestd.api.downloads import Download, download
from ingestd.api.exports import CSV
from ingestd.api.ids import IngestionId
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.personal import READ
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.errors import Forbidden, NotFound
from ingestd.domain.ids import Prefix
from ingestd.domain.ingestion import Status
from ingestd.domain.rejection import ROW_REASONS
from ingestd.ingest.work import error_file_expired
from ingestd.pipeline import report
from ingestd.store import attributes, ingestion_views, ingestions
from ingestd.store.engine import transaction
from ingestd.store.page import numbered

router = Router(prefix="/v1/ingestions", tags=["Ingestions"])

T = TypeVar("T")


class RejectOut(BaseModel):
    """One rejected row: its number after the header, its line in the file, and why, without what stood in it."""

    row: int
    line: int
    codes: list[str]
    description: str = Field(description="All reasons in words, as in the error file's last column.")


class RejectPage(Page[RejectOut]):
    """Rejected rows in the order of the file."""


class ReasonOut(BaseModel):
    """A reason, and how many rows were rejected for it."""

    code: str
    rows: int
    sentence: str
    rule: str


class ErrorSummaryOut(BaseModel):
    """How many rows were rejected, and for which reasons, most frequent first; a row can have several."""

    rejected: int
    reasons: list[ReasonOut]


@router.get(
    "/{ingestion_id}/errors",
    operation_id="ingestions_errors",
    summary="List rejected rows",
    dependencies=[needs(Scope.INGESTIONS_READ)],
)
async def list_all(
    ingestion_id: IngestionId,
    service: Service,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(numbered("row"), "row", both_ways=False))],
) -> RejectPage:
    """The rejected rows; none before the ingestion has ended. They expire with the error file: 410."""
    row = await _ingestion(service, caller.account_id, ingestion_id)
    after = asked.cut.after[0] if asked.cut.after else 0
    found: list[RejectOut] = await _of_log(service, row, lambda log: _rejects(log, after, asked.cut.limit + 1), [])
    return asked.page(RejectPage, found, lambda reject: reject)


@router.get(
    "/{ingestion_id}/error-summary",
    operation_id="ingestions_error_summary",
    summary="Count rejected rows by reason",
    dependencies=[needs(Scope.INGESTIONS_READ)],
)
async def summary(ingestion_id: IngestionId, service: Service, caller: Caller) -> ErrorSummaryOut:
    """Which reasons there were, and how often. This expires with the error file: 410."""
    row = await _ingestion(service, caller.account_id, ingestion_id)
    counts: dict[str, int] = await _of_log(service, row, report.reject_counts, {})
    return ErrorSummaryOut(
        rejected=row.counts["rejected"],
        reasons=[
            ReasonOut(code=code, rows=rows, sentence=ROW_REASONS[code].general, rule=ROW_REASONS[code].rule)
            for code, rows in counts.items()
        ],
    )


@router.get(
    "/{ingestion_id}/error-file",
    operation_id="ingestions_error_file",
    summary="Download the error file",
    response_class=Response,
    responses={
        200: {"content": {CSV: {"schema": {"type": "string"}}}, "description": "The rejected rows and why, as CSV."},
        206: {"content": {CSV: {"schema": {"type": "string"}}}, "description": "The range that was asked for."},
    },
    dependencies=[needs(Scope.INGESTIONS_READ)],
)
async def error_file(ingestion_id: IngestionId, request: Request, service: Service, caller: Caller) -> Response:
    """The rejected rows: the file's own columns, then `Failure Description` (S128). 404 where no row was rejected.

    Once it has expired the answer is 410. It holds the cells as they came, so where a column is of a personal attribute
    it needs `profiles:read_pii`, too, and the audit trail notes who had it; the list of rejected rows is without what
    stood in them. One `Range` can be asked for.
    """
    row = await _ingestion(service, caller.account_id, ingestion_id)
    if row.error_blob is None:
        why = "no row was rejected" if Status(row.status).terminal else "it has not ended"
        raise NotFound(f"The ingestion has no error file: {why}.")
    await _read_personal(service, caller, row)
    keys, blob = await service.intake.keys(caller.account_id), row.error_blob
    stem = (row.name or "file").rsplit(".", 1)[0]
    return await download(
        request,
        Download(
            name=f"{stem}.errors.csv",
            size=row.error_size_bytes,
            media_type=f"{CSV}; charset=utf-8",
            version=hashlib.sha256(blob.encode()).hexdigest()[:32],  # a blob never changes, and no name is used twice
            open=lambda start: service.intake.blobs.open(blob, keys, start=start),
        ),
    )


async def _read_personal(service: Parts, caller: Principal, row: Row[Any]) -> None:
    """Note that the error file was read where it has personal values, or refuse a caller who may not read them."""
    async with transaction(service.intake.sessions) as session:
        if not await ingestions.has_any_of(
            session, row.id, await attributes.personal_names(session, caller.account_id)
        ):
            return
        if not caller.may(Scope.PROFILES_READ_PII):
            detail = f"The error file has personal values: this needs the scope {Scope.PROFILES_READ_PII}, too."
            raise Forbidden(detail, code="scope_missing")
        audit.note(session, caller, READ, ids.show(Prefix.INGESTION, row.id))


async def some_rejects(service: Parts, row: Row[Any], limit: int) -> list[RejectOut]:
    """The first rejected rows of an ingestion, a row of `ingestion_views.shown`."""
    found: list[RejectOut] = await _of_log(service, row, lambda log: _rejects(log, 0, limit), [])
    return found


def _rejects(log: BinaryIO, after: int, limit: int) -> list[RejectOut]:
    rows = report.rejects(log, after=after, limit=limit).iter_rows(named=True)
    return [
        RejectOut(row=row["row_no"], line=row["line_no"], codes=row["codes"], description=row["failure"])
        for row in rows
    ]


async def _ingestion(service: Parts, account_id: UUID, ingestion_id: UUID) -> Row[Any]:
    """The ingestion, or NotFound where what was rejected of it is not kept any more."""
    async with service.intake.sessions() as session:
        row = await ingestion_views.get(session, account_id, ingestion_id)
    if error_file_expired(row):
        raise NotFound("The error file has expired.", code="error_file_expired")
    return row


async def _of_log(service: Parts, row: Row[Any], read: Callable[[BinaryIO], T], nothing: T) -> T:
    """What the log of an ingestion's rejects says, or nothing where there is none."""
    blob = row.rejects_blob
    if blob is None:
        return nothing
    keys = await service.intake.keys(row.account_id)

    def opened() -> T:
        with closing(service.intake.blobs.open(blob, keys)) as log:
            return read(log)

    return await asyncio.to_thread(opened)
