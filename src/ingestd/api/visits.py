"""Visits to the server of a connection: tested step by step, its keys scanned, its folders browsed (S19, S21).

None of these routes holds a transaction: they wait for somebody else's server.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Final

from fastapi import Query
from pydantic import BaseModel, Field

from ingestd.api.connections import ConnectionIn
from ingestd.api.context import NO_STORE, Caller, Scope, Service, needs
from ingestd.api.ids import ConnectionId
from ingestd.api.model import In
from ingestd.api.routes import Router
from ingestd.domain.connection import (
    MAX_PATH,
    HostKeyView,
    parse_host_key,
    parse_login,
    parse_path,
    parse_root,
    view_of_key,
)
from ingestd.domain.errors import NotFound, Unavailable
from ingestd.domain.moment import Moment
from ingestd.domain.plan import Format
from ingestd.domain.remote_file import MAX_NAME, RemoteFile, newest_first
from ingestd.fetch.remote import HostKeyChanged, Server, Step
from ingestd.fetch.visit import Walked, probe, scan
from ingestd.ingest.collect import Wanted, pick
from ingestd.ingest.connections import note_change, noted_change, server_of, visiting

router = Router(prefix="/v1/connections", tags=["Connections"])

PIN_ANEW: Final = "Nothing is fetched until the right key is pinned anew and the schedules are resumed."

FILES: Final = 200
MAX_FILES: Final = 1000

FolderPath = Annotated[str, Field(max_length=MAX_PATH, examples=["demo_path"])]


class StepStatus(StrEnum):
    """What became of a step."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


class StepOut(BaseModel):
    """A step of the way to a server's files; `code` and `detail` say why it failed. What comes after it is skipped."""

    step: Step
    status: StepStatus
    milliseconds: float | None
    code: str | None
    detail: str | None


class ConnectionTestOut(BaseModel):
    """Whether a connection works, and its steps."""

    ok: bool
    steps: list[StepOut]


class HostKeyScanOut(BaseModel):
    """What the server shows now, to whoever asks: compare the fingerprints with what its operator says they are."""

    host_keys: list[HostKeyView]
    pinned: Annotated[bool, Field(description="Whether all of them are pinned.")]


class RemoteFileOut(BaseModel):
    """A file on the server; `modified_at` is the server's time of its last change."""

    name: str
    size_bytes: int
    modified_at: Moment


class FolderOut(BaseModel):
    """A folder: its newest files, of `total`; entries with a name or of a kind not dealt with are `skipped`."""

    path: str
    folders: list[str]
    data: list[RemoteFileOut]
    total: int
    skipped: int


class ResolveIn(In):
    """Which file: the newest named `<name>__<any suffix>` and the format's ending in a folder, or that one file."""

    path: FolderPath = ""
    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME, examples=["loyalty"])]
    format: Format = Format.CSV


class ResolveOut(BaseModel):
    """The file that would be picked, null where none fits, and why."""

    file: RemoteFileOut | None
    why: str


@router.post(
    "/test",
    operation_id="connections_test_new",
    summary="Test a connection before it is kept",
    dependencies=[needs(Scope.CONNECTIONS_WRITE), NO_STORE],
)
async def probe_new(body: ConnectionIn, service: Service, _: Caller) -> ConnectionTestOut:
    """Go the whole way with what would be kept, and keep nothing."""
    secrets = {"password": body.password, "private_key": body.private_key}
    texts = {name: secret.get_secret_value() if secret else None for name, secret in secrets.items()}
    server = Server(
        kind=body.kind,
        host=body.host,
        port=body.port or body.kind.port,
        username=body.username,
        login=parse_login(body.kind, **texts),
        root=parse_root(body.root),
        host_keys=tuple(parse_host_key(line, body.kind) for line in body.host_keys),
    )
    return _tested(await probe(server, service.terms))


@router.post(
    "/{connection_id}/test",
    operation_id="connections_test",
    summary="Test a connection",
    dependencies=[needs(Scope.CONNECTIONS_WRITE), NO_STORE],
)
async def probe_one(connection_id: ConnectionId, service: Service, caller: Caller) -> ConnectionTestOut:
    """Resolve, connect, check host key or certificate, authenticate, list the root folder; 200 whatever comes of it.

    A key that has changed fails the test until keys are pinned anew, also where the server shows the pinned one again.
    """
    server = await server_of(service.intake, caller.account_id, connection_id)
    walked = await probe(server, service.terms)
    if isinstance(change := walked[-1].failure, HostKeyChanged):
        await note_change(service.intake, caller.account_id, connection_id, server, change.seen)
    noted = await noted_change(service.intake, caller.account_id, connection_id)
    return _tested(walked if noted is None else _stopped(walked, noted))


@router.post(
    "/{connection_id}/host-keys/scan",
    operation_id="connections_scan_host_keys",
    summary="Scan the keys of a server",
    dependencies=[needs(Scope.CONNECTIONS_WRITE), NO_STORE],
)
async def scan_host_keys(connection_id: ConnectionId, service: Service, caller: Caller) -> HostKeyScanOut:
    """Show the host keys, or the certificate, that the server shows; nothing is pinned by this, and no secret sent."""
    server = await server_of(service.intake, caller.account_id, connection_id)
    found = await scan(server, service.terms)
    return HostKeyScanOut(
        host_keys=[view_of_key(key) for key in found], pinned=bool(found) and set(found) <= set(server.host_keys)
    )


@router.get(
    "/{connection_id}/files",
    operation_id="connections_list_files",
    summary="Browse a server",
    dependencies=[needs(Scope.CONNECTIONS_READ)],
)
async def list_files(
    connection_id: ConnectionId,
    service: Service,
    caller: Caller,
    path: Annotated[str, Query(description="A folder, from the root folder on.", max_length=MAX_PATH)] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_FILES, description="Files to show, at most.")] = FILES,
) -> FolderOut:
    """The folders and the newest files of a folder below the root folder."""
    folder = parse_path(path)
    async with visiting(service.intake, service.terms, caller.account_id, connection_id) as remote:
        found = await remote.list(folder, lambda _: True)
    return FolderOut(
        path=folder,
        folders=sorted(found.folders),
        data=[_shown(file) for file in newest_first(found.files)[:limit]],
        total=len(found.files),
        skipped=found.skipped,
    )


@router.post(
    "/{connection_id}/resolve",
    operation_id="connections_resolve",
    summary="Show which file would be picked",
    dependencies=[needs(Scope.CONNECTIONS_READ), NO_STORE],
)
async def resolve(connection_id: ConnectionId, body: ResolveIn, service: Service, caller: Caller) -> ResolveOut:
    """Say which file a run would pick now, and why; nothing is fetched."""
    wanted = Wanted(caller.account_id, connection_id, parse_path(body.path), body.name, f".{body.format}")
    async with visiting(service.intake, service.terms, caller.account_id, connection_id) as remote:
        try:
            choice = await pick(remote, wanted)
        except NotFound as missing:
            return ResolveOut(file=None, why=missing.detail)
    return ResolveOut(file=_shown(choice.file), why=choice.why)


def _stopped(walked: list[Walked], noted: HostKeyChanged) -> list[Walked]:
    """The way as far as a run would go it, which does not trust a server whose key has changed."""
    steps = [each.step for each in walked]
    if Step.HOST_KEY not in steps:
        return walked
    at = steps.index(Step.HOST_KEY)
    detail = f"Before, it showed another key: {noted.seen.algorithm} {noted.seen.fingerprint}. {PIN_ANEW}"
    failure = walked[at].failure or Unavailable(detail, code=noted.code)
    return [*walked[:at], replace(walked[at], failure=failure)]


def _tested(walked: list[Walked]) -> ConnectionTestOut:
    begun = {each.step: each for each in walked}
    steps = [_step(step, begun.get(step)) for step in Step]
    return ConnectionTestOut(ok=all(each.status is not StepStatus.FAILED for each in steps), steps=steps)


def _step(step: Step, walked: Walked | None) -> StepOut:
    if walked is None:
        return StepOut(step=step, status=StepStatus.SKIPPED, milliseconds=None, code=None, detail=None)
    failure = walked.failure
    return StepOut(
        step=step,
        status=StepStatus.FAILED if failure else StepStatus.OK,
        milliseconds=walked.milliseconds,
        code=failure.code if failure else None,
        detail=failure.detail if failure else None,
    )


def _shown(file: RemoteFile) -> RemoteFileOut:
    return RemoteFileOut(name=file.name, size_bytes=file.size, modified_at=file.modified_at)
