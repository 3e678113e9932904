"""How an ingestion ends, or is put aside: one transaction says it and tells it (P4)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from ingestd.domain.ingestion import Counts, ErrorView, Stage, Status, outcome, progress_after_reading
from ingestd.domain.notice import NoticeType
from ingestd.domain.plan import Mode
from ingestd.ingest.refusal import error
from ingestd.ingest.runtime import Runtime
from ingestd.ingest.tell import tell_ingestion
from ingestd.ingest.work import ERROR_FILE, Checked, Job
from ingestd.store import fencing, ingestions
from ingestd.store.engine import utc_now


def hold(sql: Engine, ingestion_id: UUID, fence: int, held: dict[str, int]) -> None:
    """Put an ingestion aside and say who would leave: nothing of it was applied, and it keeps no others waiting."""
    with sql.begin() as connection:
        fencing.change(connection, ingestion_id, fence, stage=Stage.HELD, held=held)
        tell_ingestion(connection, ingestion_id, NoticeType.INGESTION_HELD, now=utc_now())
        _supersede(connection, ingestion_id)


def complete(runtime: Runtime, job: Job, checked: Checked, **more: Any) -> None:
    """End an ingestion of which all that can be was applied; it has failed where that was not one row."""
    if outcome(checked.counts) is Status.FAILED:
        why = error("infrastructure", "Not one row could be stored.", job.plan)
        fail(runtime, job, checked.counts, why, checked)
    else:
        counts = checked.counts.model_dump()
        _finish(runtime, job, NoticeType.INGESTION_COMPLETED, checked, status=Status.COMPLETED, counts=counts, **more)


def fail(runtime: Runtime, job: Job, counts: Counts, why: ErrorView, checked: Checked | None = None) -> None:
    """End an ingestion of which nothing was applied."""
    changed = {"status": Status.FAILED, "counts": counts.model_dump(), "error": why.model_dump()}
    _finish(runtime, job, NoticeType.INGESTION_FAILED, checked, **changed)


def progress_of(job: Job, counts: Counts, percent: float) -> dict[str, Any]:
    """How far an ingestion is that has been read whole."""
    seconds = (utc_now() - job.started_at).total_seconds()
    return progress_after_reading(percent, counts, job.file_bytes, seconds).model_dump()


def _finish(runtime: Runtime, job: Job, notice: NoticeType, checked: Checked | None, **values: Any) -> None:
    """Say how it ended, in one transaction: status, counts, error file and notices (P4)."""
    now = utc_now()
    if checked is not None:
        values |= checked.model_dump(include=ERROR_FILE)
    progress = progress_of(job, Counts.model_validate(values["counts"]), 100)
    values |= {"stage": Stage.DONE, "finished_at": now, "progress": progress}
    with runtime.sql.begin() as connection:
        warnings = checked.warnings if checked else []
        fencing.finish(connection, job.ingestion_id, job.fence, warnings=warnings, **values)
        tell_ingestion(connection, job.ingestion_id, notice, now=now)
        if notice is NoticeType.INGESTION_COMPLETED and checked is not None and _gives_all(job, checked):
            _supersede(connection, job.ingestion_id)
    count(runtime, job.plan.target, values, checked.reasons if checked else {})


def count(runtime: Runtime, target: str, ended: dict[str, Any], reasons: dict[str, int]) -> None:
    """Count an ingestion that has ended, and its rows."""
    runtime.metrics.ingestions.labels(target, ended["status"]).inc()
    for outcome_of_rows in ("accepted", "rejected", "blank"):
        runtime.metrics.rows.labels(outcome_of_rows).inc(ended["counts"][outcome_of_rows])
    for code, rows in reasons.items():
        runtime.metrics.rejections.labels(code).inc(rows)


def _gives_all(job: Job, checked: Checked) -> bool:
    """Whether the file took the place of everything that was given before."""
    return job.plan.mode is Mode.REPLACE and not job.dry_run and not checked.returned


def _supersede(connection: Connection, ingestion_id: UUID) -> None:
    """End what waits to be confirmed for the same segment or data source and is older (docs/decisions/0010)."""
    now = utc_now()
    for held in ingestions.supersede_held(connection, ingestion_id, now=now):
        tell_ingestion(connection, held, NoticeType.INGESTION_CANCELLED, now=now)
