"""Ingestions: the activity log, one ingestion, and what can be done to it (S70, S71, S137)."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Query, Request, Response
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.api import audit
from ingestd.api.context import Caller, Parts, Principal, Reading, Scope, Service, Tx, needs
from ingestd.api.exports import CSV, VARIES, exported, prefers_csv
from ingestd.api.ids import DataSourceId, FileId, IngestionId, SegmentId
from ingestd.api.mappings import Columns, written
from ingestd.api.model import Address, In
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.pause import pause
from ingestd.api.problems import placed
from ingestd.api.routes import Router
from ingestd.api.segments import SegmentName, note_made
from ingestd.domain.errors import Invalid, Problem
from ingestd.domain.ingestion import Channel, IngestionView, Status
from ingestd.domain.moment import Moment
from ingestd.domain.plan import Mode, Target
from ingestd.ingest import control
from ingestd.ingest.control import Rows
from ingestd.ingest.pairing import submit_file
from ingestd.ingest.segments import submit_segment
from ingestd.ingest.uploads import NewSegment, Upload, header_of, submit_upload
from ingestd.store import activity, ingestion_views, ingestions, segments
from ingestd.store.activity import Wanted
from ingestd.store.engine import utc_now
from ingestd.store.ingestions import Ingestion

router = Router(prefix="/v1/ingestions", tags=["Ingestions"])

LOOK_SECONDS: Final = 0.3
"""How often a long poll looks whether the ingestion has ended; each look is a short transaction of its own."""

LONGEST_WAIT: Final = 60


class SegmentOptionIn(In):
    """What becomes of the people of a data source's file: a new segment by `name`, or added to one by `id` (D15)."""

    name: SegmentName | None = None
    id: SegmentId | None = None


class UploadIn(In):
    """How a data source's file is ingested: under a new version of the mapping or the present one, and what it does.

    `replace` takes those out of the data source who are not in the file. `segment` is what its people are put into.
    """

    mode: Mode | None = Field(default=None, description="Unsaid, a data source's file is added.")
    mapping: Annotated[Columns | None, Field(description="Written as a new version; null: the present one.")] = None
    dry_run: Annotated[
        bool,
        Field(description="Say what the file would do, and do nothing: under the present mapping, so none is given."),
    ] = False
    segment: SegmentOptionIn | None = None
    notify: Annotated[tuple[Address, ...], Field(max_length=20, description="E-mail addresses that are told.")] = ()

    def check(self) -> None:
        """Raise Invalid for what no schema can say."""
        problems = self.problems()
        if problems:
            raise Invalid("What becomes of the file must be said once.", problems=tuple(problems))

    def problems(self) -> list[Problem]:
        """What `check` finds."""
        found = []
        if self.segment and (self.segment.name is None) == (self.segment.id is None):
            found.append(Problem("/body/segment", "one_of", "Give a name or an id."))
        if self.dry_run and self.mapping is not None:
            detail = "A dry run changes nothing: write the mapping first, or leave it out."
            found.append(Problem("/body/mapping", "not_here", detail))
        return found

    def upload(self, file_id: UUID, data_source_id: UUID) -> Upload:
        """The upload that is asked for."""
        option = self.segment
        return Upload(
            file_id=file_id,
            data_source_id=data_source_id,
            mode=self.mode or Mode.APPEND,
            dry_run=self.dry_run,
            notify=self.notify,
            segment=None if option is None else option.id if option.name is None else NewSegment(option.name),
        )


class IngestionIn(UploadIn):
    """A file that waits, and what it is for: a manifest, whose `fileName` is its name, a segment, or a data source.

    `mode` is for a segment or a data source: `replace` lets those leave who are not in the file; unsaid, a segment's
    file replaces and a data source's is added. `mapping`, `dry_run`, `segment` and `notify` are for a data source.
    """

    file_id: FileId
    manifest: Annotated[
        dict[str, Any] | None, Field(description="As a manifest file has it: see /schemas/manifest.json.")
    ] = None
    segment_id: SegmentId | None = None
    data_source_id: DataSourceId | None = None

    def problems(self) -> list[Problem]:
        """What `check` finds: it must be said once what the file is for, and nothing beside that."""
        problems = super().problems()
        if [self.manifest, self.segment_id, self.data_source_id].count(None) != 2:
            problems.append(Problem("/body/manifest", "one_of", "Give a manifest, a segment_id or a data_source_id."))
        if self.data_source_id is None:
            of_source = {name: getattr(self, name) for name in ("mapping", "dry_run", "segment", "notify")}
            given = [name for name, value in of_source.items() if value]
            problems += [Problem(f"/body/{name}", "not_here", "This is for a data source.") for name in given]
        if self.manifest is not None and self.mode is not None:
            problems.append(Problem("/body/mode", "not_here", "This is for a segment or a data source."))
        return problems


class RetryIn(In):
    """Which rows are tried again."""

    rows: Rows


class IngestionPage(Page[IngestionView]):
    """Ingestions."""


def wanted(  # noqa: PLR0913 -- the filters
    *,
    status: Annotated[list[Status] | None, Query(description="In one of these statuses.")] = None,
    channel: Annotated[list[Channel] | None, Query(description="Through one of these doors.")] = None,
    target: Annotated[list[Target] | None, Query(description="With one of these targets.")] = None,
    uploader: Annotated[
        str | None,
        Query(description="Uploaded by this key.", pattern="^i?key_[0-9a-z]{26}$", max_length=31),
    ] = None,
    segment_id: Annotated[SegmentId | None, Query(description="Of this segment.")] = None,
    data_source_id: Annotated[DataSourceId | None, Query(description="For this data source.")] = None,
    file_name: Annotated[str | None, Query(description="Of a file of this name.", max_length=200)] = None,
    created_from: Annotated[Moment | None, Query(description="Made at this moment or later.")] = None,
    created_to: Annotated[Moment | None, Query(description="Made before this moment.")] = None,
) -> Wanted:
    """The filters of the activity log."""
    return Wanted(
        statuses=status or (),
        channels=channel or (),
        targets=target or (),
        uploader=uploader,
        segment_id=segment_id,
        data_source_id=data_source_id,
        file_name=file_name,
        created_from=created_from,
        created_to=created_to,
    )


async def _varies(response: Response) -> None:
    response.headers.update(VARIES)


@router.get(
    "",
    operation_id="ingestions_list",
    summary="List ingestions",
    dependencies=[needs(Scope.INGESTIONS_READ), Depends(_varies)],
    response_model=IngestionPage,
    responses={200: {"content": {CSV: {"schema": {"type": "string"}}}}},
)
async def list_all(
    request: Request,
    service: Service,
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(activity.SORTS, "-created_at"))],
    which: Annotated[Wanted, Depends(wanted)],
) -> Any:
    """The account's ingestions, newest first: the activity log.

    With `Accept: text/csv` all of them that the filters let through, as CSV, as they are at one moment.
    """
    if prefers_csv(request):
        return exported(service, caller.account_id, which, head=request.state.head)
    rows = await activity.page(tx, caller.account_id, asked.cut, which)
    return asked.page(IngestionPage, rows, ingestion_views.view)


async def _header(body: IngestionIn, service: Service, caller: Caller) -> tuple[str, ...]:
    """The header of a data source's file, read before the transaction begins: none waits for a blob."""
    body.check()
    return () if body.data_source_id is None else await header_of(service.intake, caller.account_id, body.file_id)


@router.post(
    "",
    status_code=202,
    operation_id="ingestions_create",
    summary="Ingest a file",
    dependencies=[needs(Scope.INGESTIONS_WRITE)],
)
async def create(
    header: Annotated[tuple[str, ...], Depends(_header)],
    body: IngestionIn,
    *,
    tx: Tx,
    service: Service,
    caller: Caller,
    response: Response,
) -> IngestionView:
    """Ingest a file that waits, with a manifest given here, for a segment or for a data source.

    Nothing stays of it where it is refused. A mapping needs the scope `data_sources:write` too, a segment
    `segments:write`. Follow it with `GET …?wait=`, its events, or a webhook.
    """
    ingestion = await _submitted(body, header, tx, service, caller)
    return await accepted(tx, caller, response, ingestion.id, "ingestion.created")


async def _submitted(
    body: IngestionIn, header: tuple[str, ...], tx: AsyncSession, service: Parts, caller: Principal
) -> Ingestion:
    intake, account_id, actor, now = service.intake, caller.account_id, caller.actor, utc_now()
    if body.segment_id is not None:
        caller.demand(Scope.SEGMENTS_WRITE)
        mode = body.mode or Mode.REPLACE
        return await submit_segment(
            tx, intake, account_id, body.segment_id, body.file_id, mode=mode, actor=actor, now=now
        )
    if body.data_source_id is not None:
        upload = body.upload(body.file_id, body.data_source_id)
        return await submitted_upload(body, tx, service, caller, upload, header)
    manifest = json.dumps(body.manifest).encode()
    with placed("/body/manifest"):
        return await submit_file(tx, intake, account_id, body.file_id, manifest, actor=actor, now=now)


async def submitted_upload(
    body: UploadIn,
    tx: AsyncSession,
    service: Parts,
    caller: Principal,
    upload: Upload,
    header: tuple[str, ...],
) -> Ingestion:
    """Submit a data source's file, and note in the audit trail the mapping and the segment that come with it.

    Forbidden where the caller might not write the mapping, or the segment, by itself.
    """
    account_id = caller.account_id
    if body.segment is not None:
        caller.demand(Scope.SEGMENTS_WRITE)
    if body.mapping is not None:
        caller.demand(Scope.DATA_SOURCES_WRITE)
        columns = [each.wanted() for each in body.mapping]
        await written(tx, service, caller, upload.data_source_id, columns, at="/body/mapping")
    ingestion = await submit_upload(tx, service.intake, account_id, upload, header, actor=caller.actor, now=utc_now())
    if isinstance(upload.segment, NewSegment) and ingestion.segment_id is not None:
        note_made(tx, caller, await segments.get(tx, account_id, ingestion.segment_id))
    return ingestion


@router.get(
    "/{ingestion_id}",
    operation_id="ingestions_get",
    summary="Show an ingestion",
    dependencies=[needs(Scope.INGESTIONS_READ)],
)
async def get_one(
    ingestion_id: IngestionId,
    service: Service,
    caller: Caller,
    wait: Annotated[int, Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait for its end.")] = 0,
) -> IngestionView:
    """One ingestion as it stands; with `wait`, when it has ended or the time is over."""
    waited = 0.0
    while True:
        async with service.intake.sessions() as session:
            shown = ingestion_views.view(await ingestion_views.get(session, caller.account_id, ingestion_id))
        if shown.status.terminal or waited >= wait or service.stopping.is_set():
            return shown
        await pause(service.stopping, LOOK_SECONDS)
        waited += LOOK_SECONDS


@router.post(
    "/{ingestion_id}/cancel",
    operation_id="ingestions_cancel",
    summary="Cancel an ingestion",
    dependencies=[needs(Scope.INGESTIONS_WRITE)],
)
async def cancel(ingestion_id: IngestionId, tx: Tx, caller: Caller) -> IngestionView:
    """End an ingestion before anything of it is applied; 409 where rows are being applied or it has ended."""
    await control.cancel(tx, caller.account_id, ingestion_id, now=utc_now())
    shown = ingestion_views.view(await ingestion_views.get(tx, caller.account_id, ingestion_id))
    audit.note(tx, caller, "ingestion.cancelled", shown.id)
    return shown


@router.post(
    "/{ingestion_id}/confirm",
    status_code=202,
    operation_id="ingestions_confirm",
    summary="Confirm an ingestion that is held",
    dependencies=[needs(Scope.INGESTIONS_WRITE)],
)
async def confirm(
    ingestion_id: IngestionId, tx: Tx, service: Service, caller: Caller, response: Response
) -> IngestionView:
    """Let a refresh go on that was held because too many members would leave; 409 for any other.

    It is 409, too, while a newer file is on its way that takes the place of what this one brings. It is checked again,
    as the last of the account's order. That of a segment needs the scope `segments:write` too.
    """
    await _demand_segment(tx, caller, ingestion_id)
    await control.confirm(tx, service.intake, caller.account_id, ingestion_id, now=utc_now())
    return await accepted(tx, caller, response, ingestion_id, "ingestion.confirmed")


@router.post(
    "/{ingestion_id}/retry",
    status_code=202,
    operation_id="ingestions_retry",
    summary="Try an ingestion again",
    dependencies=[needs(Scope.INGESTIONS_WRITE)],
)
async def retry(
    ingestion_id: IngestionId, body: RetryIn, tx: Tx, service: Service, caller: Caller, response: Response
) -> IngestionView:
    """Ingest the same rows anew, as the last of the account's order: `all`, or only those that were `rejected`.

    Events that were applied are appended a second time by `all`. People who were erased since the file came stay away.
    Of a file whose people are put into a segment it needs the scope `segments:write` too.
    """
    await _demand_segment(tx, caller, ingestion_id)
    again = await control.retry(
        tx, service.intake, caller.account_id, ingestion_id, rows=body.rows, actor=caller.actor, now=utc_now()
    )
    return await accepted(tx, caller, response, again.id, "ingestion.retried")


async def _demand_segment(tx: AsyncSession, caller: Principal, ingestion_id: UUID) -> None:
    """Raise Forbidden where an ingestion writes a segment, and the caller may not."""
    if (await ingestions.get(tx, caller.account_id, ingestion_id)).segment_id is not None:
        caller.demand(Scope.SEGMENTS_WRITE)


async def accepted(
    tx: AsyncSession, caller: Principal, response: Response, ingestion_id: Any, action: str
) -> IngestionView:
    """The answer to a request that made an ingestion: where it is, and how it stands."""
    shown = ingestion_views.view(await ingestion_views.get(tx, caller.account_id, ingestion_id))
    audit.note(tx, caller, action, shown.id, after=shown)
    response.headers["Location"] = f"{router.prefix}/{shown.id}"
    return shown
