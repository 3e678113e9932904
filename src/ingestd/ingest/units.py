"""The units of a file, what is applied in one transaction each: every one once, by whatever replica has a hand free.

Each is written with its entry in the ledger, so a repeat does nothing, and what is in the ledger is done.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from ingestd import telemetry
from ingestd.domain.errors import Unavailable
from ingestd.domain.identity import SLICES
from ingestd.domain.ingestion import Stage, Status
from ingestd.domain.plan import Target
from ingestd.ingest import applying
from ingestd.ingest.ending import hold, progress_of
from ingestd.ingest.engine import Stopping
from ingestd.ingest.giving_up import NOBODY_LEFT, UNNAMED, WRITTEN_OFF, passes
from ingestd.ingest.pool import PoolClosed
from ingestd.ingest.runtime import Runtime
from ingestd.ingest.work import FORM, LEAVE, SEGMENT, Checked, Job, interleaved
from ingestd.store import fencing, ledger
from ingestd.store.engine import raw
from ingestd.store.fencing import FenceLost, Gone
from ingestd.store.load.sources import SAMPLE
from ingestd.store.load.stored import vacuum

log = telemetry.logger(__name__)


def found(runtime: Runtime, row: Row[Any]) -> Checked | None:
    """What checking found; None where the file is to be checked: for the first time, or for this release's form.

    What another release has begun to apply is not: those of its parts that cannot be read are given up.
    """
    if row.checked is None:
        return None
    if row.checked.get("form") != FORM:
        with runtime.sql.connect() as connection:
            if not ledger.applied(connection, row.id):
                return None
    return Checked.model_validate(row.checked)


def apply_part(runtime: Runtime, ingestion_id: UUID, part: str) -> None:
    """Apply one part of an ingestion; a repeat does nothing, and a part that kills its process is given up (P6).

    A refresh of a segment that lets too many leave is held instead, until somebody confirms it. Raises Stopping where
    the process goes down before it is done.
    """
    deaths = 0
    for _ in runtime.tries():
        try:
            with runtime.sql.connect() as connection:
                row = fencing.peek(connection, ingestion_id)
            if row.status != Status.IN_PROGRESS:
                return
            checked = found(runtime, row)
            if checked is None:  # a job of another release, whose parts are made and queued anew
                return
            lost = max(deaths, row.attempts) >= runtime.settings.attempts
            job = runtime.job(row)
            held = runtime.pool.run(applying.apply_part, job, checked, part, lost=lost)
            if held is None:
                changed = _settle(runtime, ingestion_id, part)
                if changed.get("created") and job.plan.target is Target.PROFILES and checked.buckets > 1:
                    _vacuum(runtime, "profiles", [checked.slice_of(part)])
            else:
                hold(runtime.sql, ingestion_id, row.fence, held)
        except Gone:
            return
        except PoolClosed:
            raise Stopping from None
        except Exception as fault:
            deaths += not (isinstance(fault, FenceLost) or passes(fault))
            log.warning("part_interrupted", part=part, deaths=deaths, exc_info=fault)
        else:
            return


def apply_all(runtime: Runtime, job: Job, checked: Checked, *, attempts: int) -> Checked | None:
    """Apply every unit, or give None where the ingestion is held.

    The rows of those given up become rejected rows of the error file (P6).
    """
    units = checked.units()
    _apply_units(runtime, job, checked, checked.apart())
    if checked.apart() and job.plan.target is Target.PROFILES:
        _vacuum(runtime, "profile_aliases", range(SLICES))
    _apply_units(runtime, job, checked, list(units))
    with runtime.sql.begin() as connection:
        applied = ledger.applied(connection, job.ingestion_id)
        if not {*checked.apart(), *units} <= applied.keys():
            return None
    if any("lost" in applied[name] for name in checked.apart()):
        checked = checked.with_warnings([UNNAMED])
    lost = checked.lost(applied)
    if job.replaces and not checked.returned and checked.leaving:
        if lost:
            checked = checked.with_warnings([NOBODY_LEFT])
        else:
            apply_part(runtime, job.ingestion_id, LEAVE)
    if job.source is not None and job.segment_id is not None and len(lost) < len(checked.parts):
        with runtime.stage(job, Stage.SEGMENTING):
            _put_into_segment(runtime, job)
    with runtime.sql.begin() as connection:
        fencing.change(connection, job.ingestion_id, job.fence, stage=Stage.REPORTING)
        applied = ledger.applied(connection, job.ingestion_id)
    checked = checked.with_warnings(text for part, text in WRITTEN_OFF.items() if "lost" in applied.get(part, ()))
    if lost and attempts >= 2 * runtime.settings.attempts:
        checked = checked.without(lost)
    elif lost:
        checked = runtime.pool.run(applying.report_lost, job, checked, lost)
    return checked.with_applied(applied.values())


def rehearse(runtime: Runtime, job: Job, checked: Checked) -> tuple[Checked, dict[str, Any]]:
    """What the file would do, to the figure, and some of whom it would do it to; nothing is changed."""
    samples: dict[str, list[tuple[int, str]]] = {}
    done = [runtime.pool.run(applying.rehearse, job, checked, part) for part in checked.parts]
    for each in done:
        for what, some in each.samples.items():
            samples[what] = sorted([*samples.get(what, []), *some])[:SAMPLE]
    checked = checked.with_applied([*(each.counts for each in done), {"removed": checked.leaving}])
    return checked, {"people": samples, "removed": checked.leavers}


def _apply_units(runtime: Runtime, job: Job, checked: Checked, units: list[str]) -> None:
    units = interleaved(units)
    if len(units) > 1 and job.file_bytes >= 2 * runtime.place.part_bytes:
        runtime.jobs.fan_out(job.ingestion_id, checked.folder, units)
        _await_units(runtime, job, checked, units)
    else:  # to queue the parts of a file this small takes longer than other replicas would save
        with ThreadPoolExecutor(2 * runtime.settings.processes, "apply") as hands:  # while some settle, others begin
            parts = [hands.submit(copy_context().run, apply_part, runtime, job.ingestion_id, unit) for unit in units]
        for part in parts:
            part.result()


def _await_units(runtime: Runtime, job: Job, checked: Checked, units: list[str]) -> None:
    """Wait until all of them are in the ledger, whoever applies them."""
    done = 0
    while done < len(units):
        with runtime.sql.begin() as connection:
            found = len(ledger.applied(connection, job.ingestion_id).keys() & set(units))
            if found > done:
                progress = progress_of(job, checked.counts, 50 + 50 * found / len(units))
                fencing.change(connection, job.ingestion_id, job.fence, progress=progress)
        done = found
        if done < len(units):
            runtime.await_settled()


def _put_into_segment(runtime: Runtime, job: Job) -> None:
    """Put the people of a data source's file into the segment that was asked for (S65, S75)."""
    with runtime.sql.begin() as connection:
        fencing.change(connection, job.ingestion_id, job.fence, stage=Stage.SEGMENTING)
    apply_part(runtime, job.ingestion_id, SEGMENT)


def _settle(runtime: Runtime, ingestion_id: UUID, part: str) -> dict[str, int]:
    """Wait until a part is on the disk, before its job may count as done; Unavailable if the database lost it."""
    with runtime.sql.begin() as connection:
        changed = ledger.settle_part(connection, ingestion_id, part)
    if changed is None:
        raise Unavailable("The database ended before a part was on its disk.")
    runtime.tell_settled()
    return changed


def _vacuum(runtime: Runtime, table: str, numbers: Iterable[int]) -> None:
    """Mark what a large file has written as valid for everybody, while it is still in memory.

    It spares those who read it later some time: where it fails, nothing of the ingestion does.
    """
    try:
        with runtime.sql.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            vacuum(raw(connection), table, numbers)
    except Exception as fault:
        log.warning("not_vacuumed", table=table, exc_info=fault)
