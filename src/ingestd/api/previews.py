"""A look at a file before it is ingested: what it is, what its columns seem to hold, what they may be mapped to."""

from __future__ import annotations

import asyncio
from contextlib import closing
from uuid import UUID

from pydantic import BaseModel, Field

from ingestd.api.context import NO_STORE, Caller, Parts, Principal, Scope, Service, needs
from ingestd.api.files import TheFile
from ingestd.api.mappings import SuggestionOut, suggestions
from ingestd.api.routes import Router
from ingestd.domain.column import DataType
from ingestd.pipeline.preview import HEAD_BYTES, Delimiter, Encoding, Preview, preview
from ingestd.store import files

router = Router(prefix="/v1/files", tags=["Files"])


class PreviewColumn(BaseModel):
    """A column as it seems to be."""

    header: str
    problem: str | None = Field(description="Why a data source would refuse the name, or that it looks like a value.")
    format: DataType | None = Field(description="The narrowest that all cells looked at fit; null: all are blank.")
    blank: int
    distinct: int
    identifier: float = Field(ge=0, le=1, description="How well it would tell people apart.")


class PreviewOut(BaseModel):
    """What the first mebibyte of a file shows."""

    encoding: Encoding
    delimiter: Delimiter
    columns: list[PreviewColumn]
    rows_looked_at: int
    broken_rows: int
    rows: list[list[str | None]] = Field(description="The first 20, masked: letters as x, digits as 0.")
    suggested_mapping: list[SuggestionOut]


@router.post(
    "/{file}/preview",
    operation_id="files_preview",
    summary="Look at a file",
    dependencies=[needs(Scope.INGESTIONS_READ), NO_STORE],
)
async def look(file_id: TheFile, service: Service, caller: Caller) -> PreviewOut:
    """Look at a file's beginning: encoding, delimiter, header, formats, identifiers, and a mapping to begin with.

    Nothing is kept, and no value is shown, nor a header that looks like one to a key without `profiles:read_pii`. 422
    where the file is no text in lines.
    """
    seen = await _seen(service, caller, file_id)
    async with service.intake.sessions() as session:
        formats = {column.header: column.format for column in seen.columns if not column.masked}
        suggested = await suggestions(session, caller.account_id, formats)
    return PreviewOut(
        encoding=seen.encoding,
        delimiter=seen.delimiter,
        columns=[PreviewColumn.model_validate(column, from_attributes=True) for column in seen.columns],
        rows_looked_at=seen.rows_looked_at,
        broken_rows=seen.broken_rows,
        rows=seen.rows,
        suggested_mapping=suggested,
    )


async def _seen(service: Parts, caller: Principal, file_id: UUID) -> Preview:
    account_id, personal = caller.account_id, caller.may(Scope.PROFILES_READ_PII)
    keys = await service.intake.keys(account_id)
    async with service.intake.sessions() as session:
        file = await files.get_kept(session, account_id, file_id)

    def read() -> Preview:
        with closing(service.intake.blobs.open(file.blob, keys)) as stream:
            return preview(stream.read(HEAD_BYTES), service.intake.limits, personal=personal)

    return await asyncio.to_thread(read)
