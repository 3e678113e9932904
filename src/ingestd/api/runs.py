"""Runs: the execution log of schedules, and a run at once (S46, S47)."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Response

from ingestd.api import audit
from ingestd.api.context import Caller, Reading, Scope, Service, Tx, needs
from ingestd.api.ids import RunId, SegmentId
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.api.schedules import of_segment
from ingestd.domain.errors import Conflict
from ingestd.domain.moment import Moment
from ingestd.domain.run import Outcome, Result, RunView
from ingestd.ingest.runs import request
from ingestd.store import accounts, runs, schedules
from ingestd.store.engine import utc_now
from ingestd.store.runs import Wanted

router = Router(prefix="/v1", tags=["Runs"])


class RunPage(Page[RunView]):
    """Runs."""


def wanted(
    *,
    segment: Annotated[SegmentId | None, Query(description="Of this segment.")] = None,
    outcome: Annotated[Outcome | None, Query(description="Green or red.")] = None,
    result: Annotated[list[Result] | None, Query(description="With one of these results.")] = None,
    created_from: Annotated[Moment | None, Query(description="Made at this moment or later.")] = None,
    created_to: Annotated[Moment | None, Query(description="Made before this moment.")] = None,
) -> Wanted:
    """The filters of the execution log."""
    return Wanted(
        owner_id=segment,
        outcome=outcome,
        results=result or (),
        created_from=created_from,
        created_to=created_to,
    )


@router.get("/runs", operation_id="runs_list", summary="List runs", dependencies=[needs(Scope.INGESTIONS_READ)])
async def list_all(
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(runs.SORTS, "-created_at"))],
    which: Annotated[Wanted, Depends(wanted)],
) -> RunPage:
    """The account's runs, newest first: the execution log, successful or not (S46)."""
    return asked.page(RunPage, await runs.page(tx, caller.account_id, asked.cut, which), runs.view)


@router.get(
    "/runs/{run_id}", operation_id="runs_get", summary="Show a run", dependencies=[needs(Scope.INGESTIONS_READ)]
)
async def get_one(run_id: RunId, tx: Reading, caller: Caller) -> RunView:
    """One run: which file was picked, and why; what came of it; the ingestion that it became."""
    return runs.view(await runs.get(tx, caller.account_id, run_id))


@router.post(
    "/segments/{segment_id}/runs",
    status_code=202,
    operation_id="segments_run",
    summary="Run a segment's schedule now",
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def run_now(segment_id: SegmentId, tx: Tx, service: Service, caller: Caller, response: Response) -> RunView:
    """Fetch the segment's file now, also while its schedule is paused; follow the run that this answers.

    404 without a schedule; 409 where the segment is not in use, or while a run of it goes on.
    """
    await accounts.lock(tx, caller.account_id)
    owner = await of_segment(tx, caller, segment_id)
    schedule = await schedules.get(tx, caller.account_id, owner.id, lock=True)
    if not owner.in_use:
        raise Conflict("The segment is not in use, or takes manual uploads.", code="segment_not_in_use")
    run = await request(tx, service.intake.engine, schedule, caller.actor, now=utc_now())
    made = runs.view(await runs.get(tx, caller.account_id, run.id))
    audit.note(tx, caller, "run.requested", made.id, after=made)
    response.headers["Location"] = f"{router.prefix}/runs/{made.id}"
    return made
