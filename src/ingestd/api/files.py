"""Files: what an account has uploaded and no manifest has taken yet, whatever door brought it (D18)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import Depends, Path, Query, Request, Response

from ingestd.api import audit
from ingestd.api.context import Caller, Reading, Scope, Service, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import FileId
from ingestd.api.model import Out
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.problems import Refused
from ingestd.api.routes import Router, takes
from ingestd.domain import ids
from ingestd.domain.errors import Conflict, Invalid, Problem
from ingestd.domain.file_name import safe_name
from ingestd.domain.ids import Prefix
from ingestd.domain.ingestion import ActorView
from ingestd.domain.manifest import SUFFIX, is_manifest
from ingestd.domain.moment import Moment
from ingestd.domain.plan import MIB
from ingestd.ingest.incoming import Incoming
from ingestd.ingest.intake import add_file
from ingestd.store import files
from ingestd.store.engine import transaction, utc_now
from ingestd.store.files import File, FileState

router = Router(prefix="/v1/files", tags=["Files"])

PASS_ON: Final = MIB
"""Bytes that are collected before they are handed on to be sealed and stored."""

SILENCE: Final = 60.0
"""Seconds that may pass without a byte of an upload (T54)."""

FIRST: Final = 60.0
SLOWEST: Final = 1024
LONGEST: Final = 12 * 3600.0
"""Bytes a second of an upload on average, after its first seconds, and how many seconds it may take; as over SFTP."""

_ANY_BYTES: Final[dict[str, Any]] = {
    "requestBody": {
        "description": "The file's bytes as they are; none are an empty file.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


TheFile = Annotated[FileId, Path(alias="file", description="The id of the file.")]
"""Where PUT has a name: the two are one template, and one resource to `Allow`."""


class FileOut(Out):
    """A file received whole; `state` is `available` until a manifest takes it, or a newer upload of its name."""

    name: str
    size_bytes: int
    sha256: str
    state: FileState
    uploaded_by: ActorView
    received_at: Moment


class FilePage(Page[FileOut]):
    """Files."""


def shown(file: File) -> FileOut:
    """A file as the API shows it."""
    return FileOut(
        id=ids.show(Prefix.FILE, file.id),
        name=file.name,
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        state=FileState(file.state),
        uploaded_by=ActorView.model_validate(file.uploaded_by),
        received_at=file.received_at,
    )


@router.put(
    "/{file}",
    status_code=201,
    operation_id="files_put",
    summary="Upload a file",
    dependencies=[needs(Scope.INGESTIONS_WRITE)],
    openapi_extra=_ANY_BYTES,
)
@takes(limit=None, kinds=())
async def put(
    name: Annotated[str, Path(alias="file", description="The name of the file.", examples=["profiles.csv"])],
    request: Request,
    service: Service,
    caller: Caller,
    response: Response,
) -> FileOut:
    """Stream a file in: `curl -T profiles.csv …/v1/files/`. Answered 201, it is on disk (P1).

    Each upload is a version of its own; a manifest that names the file takes the newest. One that is cut off leaves
    nothing.
    """
    normal = new_name(name)
    _check_whole(request)
    limit = service.intake.limits.file_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large(limit)
    incoming = await service.intake.begin(caller.account_id)
    try:
        await _receive(request, incoming, limit)
        blob = await incoming.commit()
        async with transaction(service.intake.sessions) as session:
            file = await add_file(session, incoming, blob, name=normal, actor=caller.actor, now=utc_now())
            made = shown(file)
            audit.note(session, caller, "file.uploaded", made.id, after=made)
    finally:
        incoming.abort()
    response.headers["Location"] = f"{router.prefix}/{made.id}"
    return made


@router.get("", operation_id="files_list", summary="List files", dependencies=[needs(Scope.INGESTIONS_READ)])
async def list_all(
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(files.SORTS, "-received_at"))],
    name: Annotated[str | None, Query(description="Uploads of this name.", max_length=200)] = None,
    state: Annotated[list[FileState] | None, Query(description="In one of these states.")] = None,
) -> FilePage:
    """The account's files, newest first."""
    found = await files.page(tx, caller.account_id, asked.cut, name=name, states=state)
    return asked.page(FilePage, found, shown)


@router.get("/{file}", operation_id="files_get", summary="Show a file", dependencies=[needs(Scope.INGESTIONS_READ)])
async def get_one(file_id: TheFile, tx: Reading, caller: Caller) -> FileOut:
    """One file, whatever became of it. Its bytes are never given back (T28)."""
    return shown(await files.get(tx, caller.account_id, file_id))


async def _forgotten(service: Service) -> AsyncIterator[list[str]]:
    """Takes the blobs that nothing names once the transaction has committed, and has them removed then."""
    blobs: list[str] = []
    yield blobs
    service.intake.forget(blobs)


@router.delete(
    "/{file}",
    status_code=204,
    operation_id="files_delete",
    summary="Delete a file",
    dependencies=[needs(Scope.INGESTIONS_WRITE)],
)
async def delete(
    *,
    forgotten: Annotated[list[str], Depends(_forgotten, scope="function")],
    file_id: TheFile,
    tx: Tx,
    caller: Caller,
    match: IfMatch,
) -> None:
    """Delete a file that no manifest has taken; 409 for any other."""
    file = await files.get(tx, caller.account_id, file_id, lock=True)
    before = shown(file)
    match.check(before)
    if file.state != FileState.AVAILABLE:
        raise Conflict(f"Only an available file can be deleted; this one is {file.state}.", code="file_taken")
    await files.remove_one(tx, file)
    forgotten.append(file.blob)
    audit.note(tx, caller, "file.deleted", before.id, before=before)


def new_name(name: str, at: str = "/path/file") -> str:
    """The name of a new file in its normal form, or Invalid."""
    normal = safe_name(name)
    if normal is None:
        detail = "Up to 200 letters, digits, spaces and _ . ( ) - , beginning with a letter, a digit or _."
    elif is_manifest(normal):
        detail = f"A name that ends in {SUFFIX} is a manifest's: POST /v1/manifests."
    else:
        return normal
    problem = Problem(at, "name", detail)
    raise Invalid("This is no name for a file.", code="file_name_invalid", problems=(problem,))


def _check_whole(request: Request) -> None:
    """Refuse what is not the bytes of a whole file: a part of one, or a form around it."""
    if "content-range" in request.headers:
        raise Refused("bad_request", "Send the whole file, without Content-Range: an upload cannot be taken up again.")
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise Refused("unsupported_media_type", "Send the bytes of the file as they are, not in a form: curl -T.")


async def _receive(request: Request, incoming: Incoming, limit: int) -> None:
    """Hand the body on, a piece at a time."""
    ready, size = bytearray(), 0
    async with aclosing(pieces(request)) as arriving:
        async for piece in arriving:
            size += len(piece)
            if size > limit:
                raise too_large(limit)
            ready += piece
            if len(ready) >= PASS_ON:
                await incoming.write(bytes(ready))
                ready.clear()
    await incoming.write(bytes(ready))


async def pieces(request: Request) -> AsyncGenerator[bytes]:
    """The body as it arrives; 408 where nothing does, or too little, or for too long (T54)."""
    stream, began, size = request.stream(), time.monotonic(), 0
    while True:
        try:
            async with asyncio.timeout(SILENCE):
                piece = await anext(stream, None)
        except TimeoutError:
            raise _too_slow() from None
        if piece is None:
            return
        size += len(piece)
        took = time.monotonic() - began
        if took > LONGEST or (took > FIRST and size < took * SLOWEST):
            raise _too_slow()
        yield piece


def _too_slow() -> Refused:
    return Refused("request_timeout", headers={"Connection": "close"})


def too_large(limit: int) -> Refused:
    """The refusal of a file with more than so many bytes."""
    return Refused("too_large", f"A file may have {limit} bytes.", headers={"Connection": "close"})
