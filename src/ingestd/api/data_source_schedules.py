"""The schedule of a data source: as segments have it (S49, D51)."""

from __future__ import annotations

from uuid import UUID

from fastapi import Response
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.api import runs
from ingestd.api.context import Caller, Principal, Reading, Scope, Service, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import DataSourceId
from ingestd.api.routes import Router
from ingestd.api.schedules import Owner, ScheduleOut, SourceScheduleIn, pause, remove, resume, save, shown
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.domain.run import RunView
from ingestd.domain.schedule import OwnerKind
from ingestd.store import accounts, data_sources, schedules

router = Router(prefix="/v1/data-sources/{data_source_id}", tags=["Schedules"])


async def _source(tx: AsyncSession, caller: Principal, data_source_id: UUID) -> Owner:
    """A data source as the owner of a schedule, or NotFound."""
    source = await data_sources.get(tx, caller.account_id, data_source_id)
    return Owner(OwnerKind.DATA_SOURCE, source.id, ids.show(Prefix.DATA_SOURCE, source.id), in_use=True)


async def _held(tx: AsyncSession, caller: Principal, data_source_id: UUID) -> Owner:
    """The same, its account held by this transaction."""
    await accounts.lock(tx, caller.account_id)
    return await _source(tx, caller, data_source_id)


@router.get(
    "/schedule",
    operation_id="data_sources_schedule",
    summary="Show a data source's schedule",
    dependencies=[needs(Scope.DATA_SOURCES_READ)],
)
async def get_one(data_source_id: DataSourceId, tx: Reading, caller: Caller) -> ScheduleOut:
    """When its file is fetched, and from where; 404 where it has no schedule."""
    await _source(tx, caller, data_source_id)
    return shown(await schedules.get(tx, caller.account_id, data_source_id), await accounts.get(tx, caller.account_id))


@router.put(
    "/schedule",
    operation_id="data_sources_put_schedule",
    summary="Give a data source a schedule",
    dependencies=[needs(Scope.DATA_SOURCES_WRITE)],
)
async def put_one(
    data_source_id: DataSourceId, body: SourceScheduleIn, tx: Tx, caller: Caller, match: IfMatch
) -> ScheduleOut:
    """Make or replace a data source's schedule; it counts from now on, and one that is paused stays so.

    Its files are called `<name of the data source>__<any suffix>.tsv`; they are ingested under the mapping that the
    data source has then, and added unless `mode` says `replace`.
    """
    return await save(tx, caller, await _held(tx, caller, data_source_id), body, match, mode=body.mode)


@router.delete(
    "/schedule",
    status_code=204,
    operation_id="data_sources_drop_schedule",
    summary="Take a data source's schedule away",
    dependencies=[needs(Scope.DATA_SOURCES_WRITE)],
)
async def delete_one(data_source_id: DataSourceId, tx: Tx, caller: Caller, match: IfMatch) -> None:
    """Fetch nothing for the data source any more; a run that has begun goes on, and its runs stay in the log."""
    await remove(tx, caller, await _held(tx, caller, data_source_id), match)


@router.post(
    "/schedule/pause",
    operation_id="data_sources_pause_schedule",
    summary="Pause a data source's schedule",
    dependencies=[needs(Scope.DATA_SOURCES_WRITE)],
)
async def pause_one(data_source_id: DataSourceId, tx: Tx, caller: Caller) -> ScheduleOut:
    """Make no runs until it is resumed; one can still be asked for. 409 where it is paused already."""
    return await pause(tx, caller, await _held(tx, caller, data_source_id))


@router.post(
    "/schedule/resume",
    operation_id="data_sources_resume_schedule",
    summary="Resume a data source's schedule",
    dependencies=[needs(Scope.DATA_SOURCES_WRITE)],
)
async def resume_one(data_source_id: DataSourceId, tx: Tx, caller: Caller) -> ScheduleOut:
    """Run again from now on; what was due meanwhile is not made up for. 409 where it is not paused."""
    return await resume(tx, caller, await _held(tx, caller, data_source_id))


@router.post(
    "/runs",
    status_code=202,
    operation_id="data_sources_run",
    summary="Run a data source's schedule now",
    dependencies=[needs(Scope.DATA_SOURCES_WRITE)],
)
async def run_now(
    data_source_id: DataSourceId, tx: Tx, service: Service, caller: Caller, response: Response
) -> RunView:
    """Fetch its file now, also while its schedule is paused; follow the run that this answers.

    404 without a schedule; 409 while a run of it goes on.
    """
    owner = await _held(tx, caller, data_source_id)
    return await runs.start(tx, service, caller, owner, response)
