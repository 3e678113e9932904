"""An upload in one request: a data source's file, and what is wanted of it, as a form (S51 to S70)."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, aclosing
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from ingestd.api import audit, form, idempotency
from ingestd.api.context import Caller, IdempotencyKey, Late, Principal, Scope, Service, needs
from ingestd.api.files import PASS_ON, new_name, shown, too_large
from ingestd.api.idempotency import Replayed
from ingestd.api.ids import DataSourceId
from ingestd.api.ingestions import UploadIn, accepted, submitted_upload
from ingestd.api.problems import Refused, placed
from ingestd.api.routes import MIB, Router, takes
from ingestd.api.strict import load
from ingestd.domain.errors import IngestdError, Invalid, Problem
from ingestd.domain.ingestion import IngestionView
from ingestd.ingest.incoming import Incoming
from ingestd.ingest.intake import Intake, add_file
from ingestd.ingest.uploads import header_in
from ingestd.store import accounts, data_sources
from ingestd.store.engine import utc_now

router = Router(prefix="/v1/data-sources/{data_source_id}", tags=["Data sources"])

FILE: Final = "file"
WISHES: Final = "upload"
CLOSE: Final = {"Connection": "close"}


def _schema() -> dict[str, Any]:
    """What is wanted, as a schema; its parts are those of `POST /v1/ingestions`."""
    found = UploadIn.model_json_schema(ref_template="#/components/schemas/{model}")
    found.pop("$defs")
    return found


_FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The file with its name, and how it is to be ingested; the two in any order.",
        "content": {
            form.MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "required": [FILE],
                    "additionalProperties": False,
                    "properties": {
                        FILE: {
                            "type": "string",
                            "format": "binary",
                            "description": "The TSV file; see GET /v1/limits.",
                        },
                        WISHES: _schema(),
                    },
                },
                "encoding": {WISHES: {"contentType": "application/json"}},
            }
        },
    }
}


@router.post(
    "/uploads",
    status_code=202,
    operation_id="data_sources_upload",
    summary="Upload and ingest a file",
    dependencies=[needs(Scope.INGESTIONS_WRITE)],
    openapi_extra=_FORM,
)
@takes(limit=None, kinds=(form.MEDIA_TYPE,))
async def upload(  # noqa: PLR0913 -- FastAPI's way to say what it uses
    data_source_id: DataSourceId,
    *,
    request: Request,
    tx: Late,
    service: Service,
    caller: Caller,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> IngestionView:
    """Upload a file and ingest it at once: `curl -F file=@people.tsv -F 'upload={"mode": "replace"}' …/uploads`.

    What `PUT /v1/files/{name}` and `POST /v1/ingestions` do in two requests. Nothing stays of it where it is refused. A
    mapping needs the scope `data_sources:write` too, a segment `segments:write`.
    """
    intake, account_id = service.intake, caller.account_id
    async with intake.sessions() as session:
        await data_sources.get(session, account_id, data_source_id)
    incoming = await intake.begin(account_id)
    try:
        name, wishes = await _receive(request, incoming, intake.source_file_bytes)
        body = _read(wishes)
        blob = await incoming.commit()
        try:
            header = await header_in(intake, account_id, blob.name, name=name, size=blob.size)
            if idempotency_key is not None:
                sent = b"\0".join((name.encode(), blob.sha256.encode(), wishes))
                await _enter(request, tx, intake, caller, sent)
            await accounts.lock(tx, account_id)
            file = await add_file(tx, incoming, blob, name=name, actor=caller.actor, now=utc_now())
            audit.note(tx, caller, "file.uploaded", shown(file).id, after=shown(file))
            wanted = body.upload(file.id, data_source_id)
            with _in_wishes():
                made = await submitted_upload(body, tx, service, caller, wanted, header)
            return await accepted(tx, caller, response, made.id, "ingestion.created")
        except (IngestdError, Refused, Replayed):
            intake.room.later(asyncio.to_thread(intake.blobs.delete, [blob.name]))
            raise
    finally:
        incoming.abort()


async def _enter(request: Request, tx: Late, intake: Intake, caller: Principal, sent: bytes) -> None:
    keys = await intake.keys(caller.account_id)
    whose = {"account_id": caller.account_id, "key_id": caller.key_id}
    await idempotency.enter(request, tx, **whose, keys=keys, content=sent)


async def _receive(request: Request, incoming: Incoming, limit: int) -> tuple[str, bytes]:
    """Hand the file's bytes on as they come; gives its name and the other field's text."""
    name, wishes = "", bytearray()
    fields: set[str] = set()
    ready, size = bytearray(), 0
    async with aclosing(form.read(request)) as arriving:
        async for field, file_name, data in arriving:
            if not data:
                _check_field(field, fields)
                fields.add(field)
                name = new_name(file_name or "", f"/body/{FILE}") if field == FILE else name
            elif field == WISHES:
                wishes += data
                if len(wishes) > MIB:
                    raise Refused("too_large", f"The field {WISHES} may have {MIB} bytes.", headers=CLOSE)
            else:
                size += len(data)
                if size > limit:
                    raise too_large(limit)
                ready += data
                if len(ready) >= PASS_ON:
                    await incoming.write(bytes(ready))
                    ready.clear()
    if FILE not in fields:
        raise _wrong(FILE, "missing", "There is no such field in the form.")
    await incoming.write(bytes(ready))
    return name, bytes(wishes)


def _check_field(field: str, fields: set[str]) -> None:
    """Refuse a field that the form does not have, or has already."""
    if field not in {FILE, WISHES}:
        raise _wrong(field, "field_unknown", f"The form has the fields {FILE} and {WISHES}.")
    if field in fields:
        raise _wrong(field, "given_twice", "The field may be given once.")


def _wrong(field: str, code: str, detail: str) -> Invalid:
    problem = Problem(f"/body/{field}", code, detail)
    return Invalid("The form does not fit.", problems=(problem,))


def _in_wishes() -> AbstractContextManager[None]:
    """Where a body of its own has what is wanted, the form has a field."""
    return placed(f"/body/{WISHES}", not_at="/body")


def _read(wishes: bytes) -> UploadIn:
    """What is wanted, from its JSON text; of an upload without it nothing but the file's rows."""
    sent = load(wishes) if wishes else {}
    try:
        body = UploadIn.model_validate(sent)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        placed_ones = [each | {"loc": ("body", WISHES, *each["loc"])} for each in found]
        raise RequestValidationError(placed_ones, body={WISHES: sent}) from None
    with _in_wishes():
        body.check()
    return body
