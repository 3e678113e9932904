"""Runs: the execution log of schedules, and a run at once (S46, S47)."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Response

from ingestd.api import audit
from ingestd.api.context import Caller, Parts, Principal, Reading, Scope, Tx, needs
from ingestd.api.ids import DataSourceId, RunId, SegmentId
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.api.schedules import Owner
from ingestd.domain.errors import Conflict
from ingestd.domain.moment import Moment
from ingestd.domain.run import Outcome, Result, RunView
from ingestd.ingest.runs import request
from ingestd.store import runs, schedules
from ingestd.store.engine import utc_now
from ingestd.store.runs import Wanted

router = Router(prefix="/v1/runs", tags=["Runs"])


class RunPage(Page[RunView]):
    """Runs."""


def wanted(
    *,
    segment_id: Annotated[SegmentId | None, Query(description="Of this segment.")] = None,
    data_source_id: Annotated[DataSourceId | None, Query(description="For this data source.")] = None,
    outcome: Annotated[Outcome | None, Query(description="Green or red.")] = None,
    result: Annotated[list[Result] | None, Query(description="With one of these results.")] = None,
    created_from: Annotated[Moment | None, Query(description="Made at this moment or later.")] = None,
    created_to: Annotated[Moment | None, Query(description="Made before this moment.")] = None,
) -> Wanted:
    """The filters of the execution log."""
    return Wanted(
        owners=[owner for owner in (segment_id, data_source_id) if owner is not None],
        outcome=outcome,
        results=result or (),
        created_from=created_from,
        created_to=created_to,
    )


@router.get("", operation_id="runs_list", summary="List runs", dependencies=[needs(Scope.INGESTIONS_READ)])
async def list_all(
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(runs.SORTS, "-created_at"))],
    which: Annotated[Wanted, Depends(wanted)],
) -> RunPage:
    """The account's runs, newest first: the execution log, successful or not (S46)."""
    return asked.page(RunPage, await runs.page(tx, caller.account_id, asked.cut, which), runs.view)


@router.get("/{run_id}", operation_id="runs_get", summary="Show a run", dependencies=[needs(Scope.INGESTIONS_READ)])
async def get_one(run_id: RunId, tx: Reading, caller: Caller) -> RunView:
    """One run: which file was picked, and why; what came of it; the ingestion that it became."""
    return runs.view(await runs.get(tx, caller.account_id, run_id))


async def start(tx: Tx, service: Parts, caller: Principal, owner: Owner, response: Response) -> RunView:
    """Run the schedule of something whose account the caller holds, at once, also while it is paused."""
    schedule = await schedules.get(tx, caller.account_id, owner.id, lock=True)
    if not owner.in_use:
        raise Conflict(f"{owner.shown_id} is not in use, or takes manual uploads.", code="not_scheduled")
    run = await request(tx, service.intake.jobs, schedule, caller.actor, now=utc_now())
    made = runs.view(await runs.get(tx, caller.account_id, run.id))
    audit.note(tx, caller, "run.requested", made.id, after=made)
    response.headers["Location"] = f"{router.prefix}/{made.id}"
    return made
