"""What fails again and again is given up, so that what comes after it is served; and what is said of it (P6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Row

from ingestd import telemetry
from ingestd.domain.errors import Unavailable
from ingestd.domain.ingestion import Counts, ErrorView, Stage, Status, progress_after_reading
from ingestd.domain.notice import NoticeType
from ingestd.domain.plan import Plan
from ingestd.domain.run import RESULT_OF
from ingestd.ingest.ending import count
from ingestd.ingest.refusal import error
from ingestd.ingest.runtime import Runtime
from ingestd.ingest.tell import tell_ingestion
from ingestd.ingest.work import ERROR_FILE, LEAVE, SEGMENT, Checked
from ingestd.store import fencing, ledger, runs, segments
from ingestd.store.engine import is_transient, utc_now

GIVEN_UP: Final = "The service failed again and again once rows of the file were stored: what follows that is missing."

NOBODY_LEFT: Final = "Nobody was taken out of the data source, since not every row of the file could be stored."

UNNAMED: Final = "Some people are not found by all their identifiers, which could not be stored: send the file again."

WRITTEN_OFF: Final = {
    LEAVE: "Nobody was taken out of the data source, since that failed again and again: send the file again.",
    SEGMENT: "Nobody was put into the segment, since that failed again and again: send the file again.",
}
"""What is said of a part that was given up and has no rows of its own."""

log = telemetry.logger(__name__)


def again_and_again(plan: Plan) -> ErrorView:
    """The error of a file at which the service fails whatever it does."""
    return error("infrastructure", "The service failed at this file again and again.", plan)


def passes(fault: Exception) -> bool:
    """Whether a failure is one of the world, which passes; what failed otherwise is tried a few times only."""
    return isinstance(fault, Unavailable) or is_transient(fault)


def tried(connection: Connection, act: Callable[[], object]) -> bool:
    """Do what an ingestion can do without, or leave it undone where it fails; gives whether it was done."""
    try:
        with connection.begin_nested():
            act()
    except Exception as fault:
        if passes(fault):
            raise
        log.exception("ingestion_not_told")
        return False
    return True


def give_up(runtime: Runtime, row: Row[Any]) -> None:
    """End an ingestion that this process owns and that fails where nothing should: what was applied stays.

    Nothing is done beside that, since it may be what fails; so the notices are left out where they cannot be written.
    The run that brought the file ends and a segment made for it goes nevertheless: else they wait for ever.
    """
    now = utc_now()
    with runtime.sql.begin() as connection:
        checked = _left(row, ledger.applied(connection, row.id))
        counts = checked.counts if checked else Counts()
        seconds = (now - row.started_at).total_seconds()
        values: dict[str, Any] = {
            "status": Status.COMPLETED if checked else Status.FAILED,
            "stage": Stage.DONE,
            "finished_at": now,
            "counts": counts.model_dump(),
            "progress": progress_after_reading(100, counts, row.size_bytes, seconds).model_dump(),
        }
        if checked is None:
            values["error"] = again_and_again(Plan.model_validate(row.plan)).model_dump()
        else:
            values |= checked.model_dump(include=ERROR_FILE)
        warnings = checked.warnings if checked else []
        fencing.finish(connection, row.id, row.fence, warnings=warnings, **values)
        notice = NoticeType.INGESTION_COMPLETED if checked else NoticeType.INGESTION_FAILED
        if not tried(connection, partial(tell_ingestion, connection, row.id, notice, now=now)):
            result = RESULT_OF[values["status"]]
            end_run = partial(runs.end_of_ingestion, error=values.get("error"), now=now)
            tried(connection, partial(end_run, connection, row.id, result))
            if row.data_source_id is not None and row.segment_id is not None:
                tried(connection, partial(segments.take_back, connection, row.segment_id, now=now))
    count(runtime, row.target, values, checked.reasons if checked else {})
    log.error("ingestion_given_up", attempts=row.attempts, status=values["status"])


def _left(row: Row[Any], applied: Mapping[str, Mapping[str, int]]) -> Checked | None:
    """What is left of a file of which not all was applied; None where nothing was."""
    if row.checked is None:
        return None
    checked = Checked.model_validate(row.checked)
    lost = [
        part
        for unit, parts in checked.units().items()
        if unit not in applied or "lost" in applied[unit]
        for part in parts
    ]
    left = (checked.without(lost) if lost else checked).with_applied(applied.values()).with_warnings([GIVEN_UP])
    return left if left.counts.accepted else None
