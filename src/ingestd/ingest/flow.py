"""The walk of one ingestion: check, resolve, apply, report. Durable: it can be broken off anywhere and begun again.

Checking and resolving change nothing that anyone can see, so a crash just repeats them; what they found is then
written to the row, once. Each part is applied in one transaction with its ledger row (`ingest.units`), so a repeat does
nothing. The report flips the status, names the error file and writes the notices in one transaction (`ingest.ending`).
A process that has lost the ingestion to another changes nothing: its fence no longer fits.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row

from ingestd import telemetry
from ingestd.domain.errors import FileRefused
from ingestd.domain.ingestion import Counts, Stage, Status, outcome
from ingestd.domain.notice import NoticeType
from ingestd.domain.plan import Target, exceeds
from ingestd.ingest import applying, checking, filters
from ingestd.ingest.ending import complete, fail, hold
from ingestd.ingest.engine import Stopping
from ingestd.ingest.giving_up import again_and_again, give_up, passes, tried
from ingestd.ingest.pool import PoolClosed
from ingestd.ingest.refusal import error_of, nothing_applied
from ingestd.ingest.runtime import Runtime
from ingestd.ingest.tell import tell_ingestion
from ingestd.ingest.turns import take_turn
from ingestd.ingest.units import apply_all, found, rehearse
from ingestd.ingest.work import Checked, Job
from ingestd.keyring import AccountKeys
from ingestd.store import fencing, ingestions
from ingestd.store.engine import utc_now
from ingestd.store.fencing import FenceLost, Gone
from ingestd.store.filters import fall_behind, in_use

FEW: Final = 20_000
"""Of so many rows' people each is looked at for filter segments by themselves; of more, everybody is gone through."""

log = telemetry.logger(__name__)


def walk(runtime: Runtime, ingestion_id: UUID) -> None:
    """Take one ingestion to its end; raise Stopping where the process goes down before that."""
    with telemetry.context(ingestion=str(ingestion_id)):
        _walk(runtime, ingestion_id)


def _walk(runtime: Runtime, ingestion_id: UUID) -> None:
    crashed = False
    for _ in runtime.tries():
        try:
            _attempt(runtime, ingestion_id, crashed=crashed)
        except FenceLost:
            log.info("ingestion_taken_over")
        except Gone:
            log.info("ingestion_gone")
        except PoolClosed:
            raise Stopping from None
        except Exception as fault:
            crashed = not passes(fault)
            log.warning("ingestion_interrupted", crashed=crashed, exc_info=fault)
            continue
        return


def _attempt(runtime: Runtime, ingestion_id: UUID, *, crashed: bool) -> None:
    with runtime.sql.begin() as connection:
        row = fencing.claim(connection, ingestion_id, crashed=crashed)
        if row.status == Status.IN_PROGRESS and row.fence == 1:
            notice = NoticeType.INGESTION_PICKED_UP
            tried(connection, partial(tell_ingestion, connection, ingestion_id, notice, now=utc_now()))
    if row.status == Status.IN_PROGRESS and row.stage != Stage.HELD:
        if row.attempts >= 3 * runtime.settings.attempts:
            give_up(runtime, row)
            runtime.metrics.given_up.labels("ingestion").inc()
        else:
            _go_on(runtime, row)
    take_turn(runtime, "discard", lambda: runtime.pool.run(applying.discard, runtime.job(row)), or_else=lambda: None)


def _go_on(runtime: Runtime, row: Row[Any]) -> None:
    try:
        _take_to_its_end(runtime, runtime.job(row), row)
    except FenceLost:
        if not _is_cancelled(runtime, row.id):
            raise


def _is_cancelled(runtime: Runtime, ingestion_id: UUID) -> bool:
    with runtime.sql.connect() as connection:
        return bool(fencing.peek(connection, ingestion_id).status == Status.CANCELLED)


def _take_to_its_end(runtime: Runtime, job: Job, row: Row[Any]) -> None:
    """Do what is left to do; after too many crashes without checking, or without applying any more part (P6)."""
    checked = found(runtime, row)
    if (checked is None or row.dry_run) and row.attempts >= runtime.settings.attempts:
        fail(runtime, job, Counts(), again_and_again(job.plan))
        return
    try:
        with runtime.stage(job, Stage.CHECKING):
            checked = checked or _check(runtime, job)
    except FileRefused as refusal:
        fail(runtime, job, Counts(), error_of(refusal, job.plan))
        return
    if outcome(checked.counts) is Status.FAILED:
        fail(runtime, job, checked.counts, nothing_applied(checked.counts, job.plan), checked)
        return
    if job.dry_run:
        with runtime.stage(job, Stage.APPLYING):
            checked, rehearsal = rehearse(runtime, job, checked)
        complete(runtime, job, checked, rehearsal=rehearsal)
        return
    if exceeds(job.plan.hold_above, checked.leaving, checked.members):
        hold(runtime.sql, job.ingestion_id, job.fence, {"leaving": checked.leaving, "of": checked.members})
        return
    if job.plan.target is not Target.SEGMENT:
        with runtime.sql.begin() as connection:
            fall_behind(connection, job.account_id, job.ingestion_id)
    with runtime.stage(job, Stage.APPLYING):
        applied = apply_all(runtime, job, checked, attempts=row.attempts)
    if applied is not None:
        warnings = _recompute_filters(runtime, job, applied, attempts=row.attempts)
        complete(runtime, job, applied.with_warnings(warnings))


def _check(runtime: Runtime, job: Job) -> Checked:
    with runtime.sql.begin() as connection:
        fencing.change(connection, job.ingestion_id, job.fence, stage=Stage.CHECKING)
    checked = runtime.pool.run(checking.check, job)
    with runtime.sql.begin() as connection:
        fencing.change(
            connection,
            job.ingestion_id,
            job.fence,
            stage=Stage.APPLYING,
            checked=checked.model_dump(mode="json"),
            counts=checked.counts.model_dump(),
        )
        if checked.returned:
            ingestions.link_to_reported(connection, job.ingestion_id, checked.header)
    return checked


def _recompute_filters(runtime: Runtime, job: Job, applied: Checked, *, attempts: int) -> list[str]:
    """Recompute the filter segments that what the ingestion brought concerns, before it is completed (S75, D41).

    What is taken away by a replace, or comes together by a merge, can be any attribute. Gives a warning for each
    that could not be, after too many crashes (P6).
    """
    if job.plan.target is Target.SEGMENT:
        return []
    with runtime.sql.connect() as connection:
        if not in_use(connection, job.account_id):
            return []
    leniently = attempts >= runtime.settings.attempts
    of_profiles = job.plan.target is Target.PROFILES
    with runtime.stage(job, Stage.SEGMENTING):
        with runtime.sql.begin() as connection:
            fencing.change(connection, job.ingestion_id, job.fence, stage=Stage.SEGMENTING)
        few = not leniently and not job.replaces and sum(applied.parts.values()) <= FEW
        brought = filters.Brought(
            ingestion_id=job.ingestion_id,
            names=None if job.replaces or applied.merges else applied.names if of_profiles else (),
            people=runtime.pool.run(applying.people_of, job, applied) if few else None,
            made=not of_profiles or applied.counts.created > 0,
        )
        with runtime.sql.begin() as connection:
            warnings = filters.recompute(
                connection, AccountKeys.from_worker(job.keys), job.account_id, brought=brought, leniently=leniently
            )
            fencing.guard(connection, job.ingestion_id, job.fence)
    return warnings
