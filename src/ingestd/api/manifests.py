"""Manifests: written here as drafts and submitted, or put beside their data files over SFTP (S105 to S113, D18)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Query, Request, Response
from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.api import audit
from ingestd.api.context import NO_STORE, Caller, Principal, Reading, Scope, Service, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.idempotency import Replayed
from ingestd.api.ids import ManifestId
from ingestd.api.ingestions import accepted
from ingestd.api.model import In, Out
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.problems import Refused, placed
from ingestd.api.routes import Router, takes
from ingestd.api.strict import load
from ingestd.blobs.store import BlobInfo
from ingestd.domain import ids
from ingestd.domain.errors import Conflict, IngestdError, Problem
from ingestd.domain.file_name import safe_name
from ingestd.domain.ids import Prefix
from ingestd.domain.ingestion import Channel, IngestionView, ProblemView
from ingestd.domain.manifest import MAX_BYTES, SUFFIX, is_manifest
from ingestd.domain.manifest import Manifest as Parsed
from ingestd.domain.moment import Moment
from ingestd.domain.plan import ColumnRule, Target
from ingestd.ingest.manifests import Examined, examine, keep, text_of
from ingestd.ingest.pairing import Arrival, add_draft, rewrite_draft, submit_draft
from ingestd.store import ingestions, manifests
from ingestd.store.engine import utc_now
from ingestd.store.manifests import Manifest, ManifestState

router = Router(prefix="/v1/manifests", tags=["Manifests"])

_ANY_TEXT: Final[dict[str, Any]] = {
    "requestBody": {
        "description": "A manifest as its file holds it; nothing is one too, with a problem.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def _manifest_name(name: str) -> str:
    normal = safe_name(name)
    if normal is None or not is_manifest(normal):
        raise ValueError(
            f"must end in {SUFFIX}, and has up to 200 letters, digits, spaces and _ . ( ) - , beginning with a letter, "
            "a digit or _"
        )
    return normal


class ManifestIn(In):
    """A manifest: its name, used once and never again, and what it says."""

    name: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_manifest_name)] = Field(
        examples=["day1.manifest"]
    )
    content: Annotated[dict[str, Any], Field(description="As a manifest file has it: see /schemas/manifest.json.")]


class PlanOut(BaseModel):
    """What would be done with the data file: what its rows become, and the rules of its columns by header."""

    file_name: str
    target: Target
    columns: dict[str, ColumnRule]


class FileRef(BaseModel):
    """The upload that the manifest would take now."""

    id: str
    name: str
    size_bytes: int
    received_at: Moment


class ValidationOut(BaseModel):
    """Whether a manifest holds together, and what it says; `file` is null where no upload waits for it yet."""

    valid: bool
    problems: list[ProblemView]
    warnings: list[str]
    plan: PlanOut | None
    file: FileRef | None


class ManifestItem(Out):
    """A manifest in a list."""

    name: str
    state: ManifestState
    size_bytes: int
    sha256: str
    created_at: Moment


class ManifestOut(ManifestItem):
    """A manifest: what it says, what that means, and what is wrong with it.

    `content` and `plan` are null where it cannot be read, and once its text has expired, as files do. `ingestion` is
    what it became.
    """

    content: dict[str, Any] | None
    plan: PlanOut | None
    problems: list[ProblemView]
    warnings: list[str]
    ingestion: str | None


class ManifestPage(Page[ManifestItem]):
    """Manifests."""


async def _kept(body: ManifestIn, service: Service, caller: Caller) -> AsyncIterator[Arrival]:
    """The manifest of the request, sealed and durable before the transaction begins; gone again if it is refused.

    After any other failure it may be in use, since nobody knows what was committed; if it is not, the sweep finds it.
    """
    text = json.dumps(body.content, ensure_ascii=False).encode()
    blob = await keep(service.intake, caller.account_id, text)
    try:
        yield Arrival(Channel.UPLOAD, caller.account_id, body.name, text, blob, caller.actor)
    except (IngestdError, Refused, Replayed):
        await asyncio.to_thread(service.intake.blobs.delete, [blob.name])
        raise


@dataclass(frozen=True, slots=True)
class _Stored:
    """A manifest as it was read before the transaction began; null where its text has expired."""

    blob: str | None
    text: bytes | None


async def _stored(manifest_id: ManifestId, service: Service, caller: Caller) -> _Stored:
    async with service.intake.sessions() as session:
        blob = (await manifests.get(session, caller.account_id, manifest_id)).blob
    return _Stored(blob, None if blob is None else await text_of(service.intake, caller.account_id, blob))


Kept = Annotated[Arrival, Depends(_kept, scope="function")]
Stored = Annotated[_Stored, Depends(_stored)]


@router.post(
    "",
    status_code=201,
    operation_id="manifests_create",
    summary="Write a manifest",
    dependencies=[needs(Scope.INGESTIONS_WRITE), NO_STORE],
)
async def create(
    *,
    arrival: Kept,
    tx: Tx,
    service: Service,
    caller: Caller,
    response: Response,
    submit: Annotated[bool, Query(description="Submit it at once; where that is refused, nothing stays.")] = False,
) -> ManifestOut:
    """Keep a manifest as a draft, which reserves its name; or, with `submit`, pair it with its data file at once."""
    now = utc_now()
    manifest = await add_draft(tx, arrival, now=now)
    if submit:
        with placed("/body/content"):
            await submit_draft(tx, service.intake, manifest, arrival, now=now)
    shown = await _shown(tx, manifest, arrival.text)
    audit.note(tx, caller, "manifest.created", shown.id, after=_item(manifest))
    response.headers["Location"] = f"{router.prefix}/{shown.id}"
    return shown


@router.get("", operation_id="manifests_list", summary="List manifests", dependencies=[needs(Scope.INGESTIONS_READ)])
async def list_all(
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(manifests.SORTS, "-created_at"))],
    name: Annotated[str | None, Query(description="The one of this name.", max_length=200)] = None,
    state: Annotated[list[ManifestState] | None, Query(description="In one of these states.")] = None,
) -> ManifestPage:
    """The account's manifests whatever door they came through, newest first."""
    return asked.page(
        ManifestPage, await manifests.page(tx, caller.account_id, asked.cut, name=name, states=state), _item
    )


@router.post(
    "/validate",
    operation_id="manifests_validate",
    summary="Check a manifest",
    dependencies=[needs(Scope.INGESTIONS_READ), NO_STORE],
    openapi_extra=_ANY_TEXT,
)
@takes(limit=2 * MAX_BYTES, kinds=())
async def validate(request: Request, tx: Reading, caller: Caller) -> ValidationOut:
    """Say what would be made of a manifest, sent as its file holds it, with every problem and where it is."""
    found = await examine(tx, caller.account_id, await request.body())
    return ValidationOut(
        valid=not found.problems,
        problems=_problems(found.problems),
        warnings=list(found.parsed.warnings) if found.parsed else [],
        plan=_plan(found.parsed),
        file=found.file
        and FileRef(
            id=ids.show(Prefix.FILE, found.file.id),
            name=found.file.name,
            size_bytes=found.file.size_bytes,
            received_at=found.file.received_at,
        ),
    )


@router.get(
    "/{manifest_id:id}",
    operation_id="manifests_get",
    summary="Show a manifest",
    dependencies=[needs(Scope.INGESTIONS_READ), NO_STORE],
)
async def get_one(stored: Stored, manifest_id: ManifestId, tx: Reading, caller: Caller) -> ManifestOut:
    """One manifest, with the plan it stands for and its problems; those of a draft are what they are now."""
    manifest = await manifests.get(tx, caller.account_id, manifest_id)
    return await _shown(tx, manifest, stored.text)


@router.put(
    "/{manifest_id:id}",
    operation_id="manifests_change",
    summary="Change a draft",
    dependencies=[needs(Scope.INGESTIONS_WRITE), NO_STORE],
)
async def change(
    *,
    stored: Stored,
    arrival: Kept,
    manifest_id: ManifestId,
    tx: Tx,
    caller: Caller,
    match: IfMatch,
) -> ManifestOut:
    """Write a draft anew, under the same name or another; 409 for a manifest that was submitted."""
    manifest = await _draft(tx, caller, manifest_id, stored)
    match.check(await _shown(tx, manifest, stored.text))
    before = _item(manifest)
    await rewrite_draft(tx, manifest, arrival)
    audit.note(tx, caller, "manifest.changed", before.id, before=before, after=_item(manifest))
    return await _shown(tx, manifest, arrival.text)


@router.delete(
    "/{manifest_id:id}",
    status_code=204,
    operation_id="manifests_delete",
    summary="Delete a draft",
    dependencies=[needs(Scope.INGESTIONS_WRITE)],
)
async def delete(*, stored: Stored, manifest_id: ManifestId, tx: Tx, caller: Caller, match: IfMatch) -> None:
    """Delete a draft, whose name is free again; 409 for a manifest that was submitted: its name is used for ever."""
    manifest = await _draft(tx, caller, manifest_id, stored)
    match.check(await _shown(tx, manifest, stored.text))
    before = _item(manifest)
    await tx.delete(manifest)
    audit.note(tx, caller, "manifest.deleted", before.id, before=before)


@router.post(
    "/{manifest_id:id}/submit",
    status_code=202,
    operation_id="manifests_submit",
    summary="Submit a draft",
    dependencies=[needs(Scope.INGESTIONS_WRITE)],
)
async def submit(  # noqa: PLR0913 -- FastAPI's way to say what it uses
    *,
    stored: Stored,
    manifest_id: ManifestId,
    tx: Tx,
    service: Service,
    caller: Caller,
    response: Response,
    match: IfMatch,
) -> IngestionView:
    """Pair a draft with its data file and ingest that. Where it is refused it stays a draft."""
    manifest = await _draft(tx, caller, manifest_id, stored)
    match.check(await _shown(tx, manifest, stored.text))
    assert stored.blob is not None  # the texts of drafts do not expire
    assert stored.text is not None
    blob = BlobInfo(stored.blob, manifest.size_bytes, manifest.sha256)
    arrival = Arrival(Channel.UPLOAD, caller.account_id, manifest.name, stored.text, blob, caller.actor)
    ingestion = await submit_draft(tx, service.intake, manifest, arrival, now=utc_now())
    return await accepted(tx, caller, response, ingestion.id, "manifest.submitted")


async def _draft(tx: AsyncSession, caller: Principal, manifest_id: UUID, stored: _Stored) -> Manifest:
    """The draft, held by this transaction and still what was read of it, or Conflict."""
    manifest = await manifests.get(tx, caller.account_id, manifest_id, lock=True)
    if manifest.state != ManifestState.DRAFT:
        raise Conflict("The manifest was submitted: it stays as it is.", code="manifest_submitted")
    if manifest.blob != stored.blob:
        raise Conflict("The manifest was changed just now. Read it again.")
    return manifest


def _item(manifest: Manifest) -> ManifestItem:
    return ManifestItem(
        id=ids.show(Prefix.MANIFEST, manifest.id),
        name=manifest.name,
        state=ManifestState(manifest.state),
        size_bytes=manifest.size_bytes,
        sha256=manifest.sha256,
        created_at=manifest.created_at,
    )


async def _shown(tx: AsyncSession, manifest: Manifest, text: bytes | None) -> ManifestOut:
    found = Examined(None, (), None) if text is None else await examine(tx, manifest.account_id, text)
    draft = manifest.state == ManifestState.DRAFT
    ingestion = await ingestions.find_of_manifest(tx, manifest.id)
    return ManifestOut(
        **_item(manifest).model_dump(),
        content=None if text is None else _content(text),
        plan=_plan(found.parsed),
        problems=_problems(found.problems) if draft else manifest.problems,
        warnings=list(found.parsed.warnings) if found.parsed else [],
        ingestion=ingestion and ids.show(Prefix.INGESTION, ingestion),
    )


def _content(text: bytes) -> dict[str, Any] | None:
    try:
        found = load(text)
    except Refused:
        return None
    return found if isinstance(found, dict) else None


def _plan(parsed: Parsed | None) -> PlanOut | None:
    if parsed is None:
        return None
    return PlanOut(file_name=parsed.file_name, target=parsed.target, columns=dict(parsed.columns))


def _problems(problems: Sequence[Problem]) -> list[ProblemView]:
    return [ProblemView(pointer=each.pointer, code=each.code, detail=each.detail) for each in problems]
