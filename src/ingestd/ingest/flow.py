"""The walk of one ingestion: check, resolve, apply, report. Durable: it can be broken off anywhere and begun again.

Checking and resolving change nothing that anyone can see, so a crash just repeats them; what they found is then
written to the row, once. Each part is applied in one transaction with its ledger row, so a repeat does nothing. The
report flips the status, names the error file and writes the notices in one transaction. A process that has lost the
ingestion to another changes nothing: its fence no longer fits.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine, Row

from ingestd import telemetry, tracing
from ingestd.domain.errors import FileRefused, Unavailable
from ingestd.domain.identity import SLICES
from ingestd.domain.ingestion import Counts, ErrorView, Stage, Status, outcome, progress_after_reading
from ingestd.domain.notice import NoticeType
from ingestd.domain.plan import Format, Mode, Plan, Target, exceeds
from ingestd.ingest import applying, checking, filters, sealing
from ingestd.ingest.engine import Engine as Jobs
from ingestd.ingest.engine import Stopping
from ingestd.ingest.giving_up import NOBODY_LEFT, UNNAMED, WRITTEN_OFF, again_and_again, give_up, passes
from ingestd.ingest.pool import Pool, PoolClosed
from ingestd.ingest.refusal import error, error_of, nothing_applied
from ingestd.ingest.tell import tell_ingestion
from ingestd.ingest.work import ERROR_FILE, LEAVE, SEGMENT, Checked, Job, Place, in_turns
from ingestd.keyring import AccountKeys, Keyring, SealedKeys
from ingestd.metrics import Metrics
from ingestd.settings import WorkerSettings
from ingestd.store import ingestions, ledger
from ingestd.store.engine import raw, utc_now
from ingestd.store.ingestions import FenceLost
from ingestd.store.load.sources import SAMPLE, Source
from ingestd.store.load.stored import vacuum

log = telemetry.logger(__name__)

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 30.0
"""Seconds between two tries while the database, a disk or a worker fails; doubled each time, with jitter."""

LOOK_SECONDS: Final = 0.5
"""Seconds between two looks at which parts other replicas have applied; our own say so."""


@dataclass(kw_only=True)
class Flow:
    """What walking needs: the database, the data-plane processes, and the job engine for parts."""

    sql: Engine
    pool: Pool
    place: Place
    keyring: Keyring
    jobs: Jobs
    settings: WorkerSettings
    metrics: Metrics
    _stopping: threading.Event = field(default_factory=threading.Event)
    _settled: threading.Event = field(default_factory=threading.Event)

    def walk(self, ingestion_id: UUID) -> None:
        """Take one ingestion to its end; raise Stopping where the process goes down before that."""
        crashed = False
        for pause in self._pauses():
            try:
                with telemetry.context(ingestion=str(ingestion_id)):
                    self._attempt(ingestion_id, crashed=crashed)
            except FenceLost:
                log.info("ingestion_taken_over")
            except PoolClosed:
                raise Stopping from None
            except Exception as fault:
                crashed = not passes(fault)
                log.warning("ingestion_interrupted", crashed=crashed, exc_info=fault)
                if self._stopping.wait(pause):
                    raise Stopping from None
                continue
            return

    def seal(self, account_id: UUID) -> None:
        """Seal what is stored of an account's personal attributes; raise Stopping where the process goes down first."""
        self._take_turn(
            "seal",
            partial(sealing.seal_account, self.sql, self.pool, self.place, self.keyring, account_id),
            or_else=partial(sealing.give_up, self.sql, account_id),
        )

    def filter(self, segment_id: UUID) -> None:
        """Compute the members of a filter segment that was activated; raise Stopping as `seal` does."""
        self._take_turn(
            "filter",
            partial(filters.recompute_one, self.sql, self.keyring, segment_id),
            or_else=partial(filters.give_up, self.sql, segment_id),
        )

    def _take_turn(self, turn: str, act: Callable[[], None], *, or_else: Callable[[], None]) -> None:
        """Do what can be repeated until it has been done once; `or_else` after too many failures that do not pass (P6).

        The account's ingestions wait for its turns, so none is taken for ever.
        """
        failures = 0
        for pause in self._pauses():
            try:
                if failures < self.settings.attempts:
                    act()
                    return
                or_else()
                self.metrics.given_up.labels(turn).inc()
                log.error("turn_given_up", turn=turn)
            except PoolClosed:
                raise Stopping from None
            except Exception as fault:
                failures += not passes(fault)
                log.warning("turn_interrupted", turn=turn, failures=failures, exc_info=fault)
                if self._stopping.wait(pause):
                    raise Stopping from None
            else:
                return

    def apply_part(self, ingestion_id: UUID, part: str) -> None:
        """Apply one part of an ingestion; a repeat does nothing, and a part that kills its process is given up (P6).

        A refresh of a segment that lets too many leave is held instead, until somebody confirms it.
        """
        deaths = 0
        for pause in self._pauses():
            try:
                with self.sql.connect() as connection:
                    row = ingestions.peek(connection, ingestion_id)
                if row.status != Status.IN_PROGRESS:
                    return
                checked = Checked.model_validate(row.checked)
                lost = max(deaths, row.attempts) >= self.settings.attempts
                job = self._job(row)
                if self.pool.run(applying.apply_part, job, checked, part, lost=lost):
                    changed = self._settle(ingestion_id, part)
                    if changed.get("created") and job.plan.target is Target.PROFILES and checked.buckets > 1:
                        self._vacuum("profiles", [checked.slice_of(part)])
                else:
                    self._hold(ingestion_id, row.fence)
            except PoolClosed:
                raise Stopping from None
            except Exception as fault:
                deaths += not (isinstance(fault, FenceLost) or passes(fault))
                log.warning("part_interrupted", part=part, deaths=deaths, exc_info=fault)
            else:
                return
            if self._stopping.wait(pause):
                raise Stopping

    def _hold(self, ingestion_id: UUID, fence: int, held: dict[str, int] | None = None) -> None:
        """Put an ingestion aside: nothing of it was applied, and it does not keep the account's others waiting."""
        with self.sql.begin() as connection:
            ingestions.change(connection, ingestion_id, fence, stage=Stage.HELD, held=held)
            tell_ingestion(connection, ingestion_id, NoticeType.INGESTION_HELD, now=utc_now())
            _supersede(connection, ingestion_id)

    def _settle(self, ingestion_id: UUID, part: str) -> dict[str, int]:
        """Wait until a part is on the disk, before its job may count as done; Unavailable if the database lost it."""
        with self.sql.begin() as connection:
            changed = ledger.settle_part(connection, ingestion_id, part)
        if changed is None:
            raise Unavailable("The database ended before a part was on its disk.")
        self._settled.set()
        return changed

    def _vacuum(self, table: str, numbers: Iterable[int]) -> None:
        """Mark what a large file has written as valid for everybody, while it is still in memory."""
        with self.sql.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            vacuum(raw(connection), table, numbers)

    def stop(self) -> None:
        """Let no walk wait any longer: each raises Stopping."""
        self._stopping.set()
        self._settled.set()
        self.pool.close()

    def _pauses(self) -> Iterator[float]:
        pause = FIRST_PAUSE
        while True:
            yield pause * random.uniform(0.5, 1)  # noqa: S311 -- no secret
            pause = min(2 * pause, LONGEST_PAUSE)

    def _attempt(self, ingestion_id: UUID, *, crashed: bool) -> None:
        with self.sql.begin() as connection:
            row = ingestions.claim(connection, ingestion_id, crashed=crashed)
            if row.status == Status.IN_PROGRESS and row.fence == 1:
                tell_ingestion(connection, ingestion_id, NoticeType.INGESTION_PICKED_UP, now=utc_now())
        if row.status == Status.IN_PROGRESS and row.stage != Stage.HELD:
            if row.attempts >= 3 * self.settings.attempts:
                give_up(self.sql, row)
                self.metrics.given_up.labels("ingestion").inc()
            else:
                self._go_on(row)
        self._take_turn("discard", lambda: self.pool.run(applying.discard, self._job(row)), or_else=lambda: None)

    def _go_on(self, row: Row[Any]) -> None:
        try:
            self._take_to_its_end(self._job(row), row)
        except FenceLost:
            if not self._is_cancelled(row.id):
                raise

    def _is_cancelled(self, ingestion_id: UUID) -> bool:
        with self.sql.connect() as connection:
            return bool(ingestions.peek(connection, ingestion_id).status == Status.CANCELLED)

    def _take_to_its_end(self, job: Job, row: Row[Any]) -> None:
        """Do what is left to do; after too many crashes without checking, or without applying any more part (P6)."""
        if (row.checked is None or row.dry_run) and row.attempts >= self.settings.attempts:
            self._fail(job, Counts(), again_and_again(job.plan))
            return
        try:
            with self._stage(job, Stage.CHECKING):
                checked = Checked.model_validate(row.checked) if row.checked else self._check(job)
        except FileRefused as refusal:
            self._fail(job, Counts(), error_of(refusal, job.plan))
            return
        if outcome(checked.counts) is Status.FAILED:
            self._fail(job, checked.counts, nothing_applied(checked.counts, job.plan), checked)
            return
        if job.dry_run:
            self._rehearse(job, checked)
            return
        if exceeds(job.plan.hold_above, checked.leaving, checked.members):
            self._hold(job.ingestion_id, job.fence, {"leaving": checked.leaving, "of": checked.members})
            return
        with self._stage(job, Stage.APPLYING):
            applied = self._apply(job, checked, attempts=row.attempts)
        if applied is not None:
            warnings = self._filter(job, applied, attempts=row.attempts)
            self._complete(job, applied.with_warnings(warnings))

    def _filter(self, job: Job, applied: Checked, *, attempts: int) -> list[str]:
        """Recompute the filter segments that use what the ingestion brought, before it is completed (S75, D41).

        What is taken away by a replace, or comes together by a merge, can be any attribute. Gives a warning for each
        that could not be, after too many crashes (P6).
        """
        if job.plan.target is not Target.PROFILES:
            return []
        touched = None if job.replaces or applied.merges else applied.names
        with self._stage(job, Stage.SEGMENTING):
            with self.sql.begin() as connection:
                ingestions.change(connection, job.ingestion_id, job.fence, stage=Stage.SEGMENTING)
            with self.sql.begin() as connection:
                warnings = filters.recompute(
                    connection,
                    AccountKeys.from_worker(job.keys),
                    job.account_id,
                    touched=touched,
                    ingestion_id=job.ingestion_id,
                    leniently=attempts >= self.settings.attempts,
                )
                ingestions.guard(connection, job.ingestion_id, job.fence)
        return warnings

    def _job(self, row: Row[Any]) -> Job:
        keys = self.keyring.open(row.account_id, SealedKeys(row.data_keys, row.index_key))
        plan = Plan.model_validate(row.plan)
        return Job(
            place=self.place,
            keys=keys.to_worker(),
            ingestion_id=row.id,
            account_id=row.account_id,
            seq=row.seq,
            fence=row.fence,
            plan=plan,
            source=Source(row.data_source_id, row.data_source_name, plan.mode) if row.data_source_id else None,
            delimiter=Format.CSV.delimiter if row.rows_of else plan.format.delimiter,  # an error file is CSV
            dry_run=row.dry_run,
            file_blob=row.blob,
            file_bytes=row.size_bytes,
            segment_id=row.segment_id,
            received_at=row.received_at,
            started_at=row.started_at,
        )

    def _check(self, job: Job) -> Checked:
        with self.sql.begin() as connection:
            ingestions.change(connection, job.ingestion_id, job.fence, stage=Stage.CHECKING)
        checked = self.pool.run(checking.check, job)
        with self.sql.begin() as connection:
            ingestions.change(
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

    def _apply(self, job: Job, checked: Checked, *, attempts: int) -> Checked | None:
        """Apply every unit, or give None where the ingestion is held.

        The rows of those given up become rejected rows of the error file (P6).
        """
        units = checked.units()
        self._apply_units(job, checked, checked.apart())
        if checked.apart() and job.plan.target is Target.PROFILES:
            self._vacuum("profile_aliases", range(SLICES))
        self._apply_units(job, checked, list(units))
        if checked.merges is not None:
            self.apply_part(job.ingestion_id, checked.merges)
        with self.sql.begin() as connection:
            applied = ledger.applied(connection, job.ingestion_id)
            if not {*checked.apart(), *units} <= applied.keys():
                return None
        if any("lost" in applied[name] for name in checked.apart()):
            checked = checked.with_warnings([UNNAMED])
        lost = [part for unit, parts in units.items() if "lost" in applied[unit] for part in parts]
        if job.replaces and not checked.returned and checked.leaving:
            if lost:
                checked = checked.with_warnings([NOBODY_LEFT])
            else:
                self.apply_part(job.ingestion_id, LEAVE)
        if job.source is not None and job.segment_id is not None:
            with self._stage(job, Stage.SEGMENTING):
                self._put_into_segment(job)
        with self.sql.begin() as connection:
            ingestions.change(connection, job.ingestion_id, job.fence, stage=Stage.REPORTING)
            applied = ledger.applied(connection, job.ingestion_id)
        checked = checked.with_warnings(text for part, text in WRITTEN_OFF.items() if "lost" in applied.get(part, ()))
        if lost and attempts >= 2 * self.settings.attempts:
            checked = checked.without(lost)
        elif lost:
            checked = self.pool.run(applying.report_lost, job, checked, lost)
        return checked.with_applied(applied.values())

    def _apply_units(self, job: Job, checked: Checked, units: list[str]) -> None:
        units = in_turns(units)
        if len(units) > 1 and job.file_bytes >= 2 * self.place.part_bytes:
            self.jobs.fan_out(job.ingestion_id, units)
            self._await_units(job, checked, units)
        else:  # to queue the parts of a file this small takes longer than other replicas would save
            with ThreadPoolExecutor(2 * self.settings.processes, "apply") as hands:  # while some settle, others begin
                parts = [hands.submit(copy_context().run, self.apply_part, job.ingestion_id, unit) for unit in units]
            for part in parts:
                part.result()

    def _put_into_segment(self, job: Job) -> None:
        """Put the people of a data source's file into the segment that was asked for (S65, S75)."""
        with self.sql.begin() as connection:
            ingestions.change(connection, job.ingestion_id, job.fence, stage=Stage.SEGMENTING)
        self.apply_part(job.ingestion_id, SEGMENT)

    def _rehearse(self, job: Job, checked: Checked) -> None:
        """Say what the file would do, to the figure, and change nothing but the ingestion's own row."""
        samples: dict[str, list[tuple[int, str]]] = {}
        with self._stage(job, Stage.APPLYING):
            parts = [*checked.parts, *([checked.merges] if checked.merges else [])]
            done = [self.pool.run(applying.rehearse, job, checked, part) for part in parts]
        for each in done:
            for what, some in each.samples.items():
                samples[what] = sorted([*samples.get(what, []), *some])[:SAMPLE]
        checked = checked.with_applied([*(each.counts for each in done), {"removed": checked.leaving}])
        rehearsal = {"people": samples, "removed": checked.leavers}
        self._complete(job, checked, rehearsal=rehearsal)

    def _await_units(self, job: Job, checked: Checked, units: list[str]) -> None:
        """Wait until all of them are in the ledger, whoever applies them."""
        done = 0
        while done < len(units):
            with self.sql.begin() as connection:
                found = len(ledger.applied(connection, job.ingestion_id).keys() & set(units))
                if found > done:
                    progress = _progress(job, checked.counts, 50 + 50 * found / len(units))
                    ingestions.change(connection, job.ingestion_id, job.fence, progress=progress)
            done = found
            if done < len(units):
                self._settled.wait(LOOK_SECONDS)
                self._settled.clear()
                if self._stopping.is_set():
                    raise Stopping

    def _complete(self, job: Job, checked: Checked, **more: Any) -> None:
        if outcome(checked.counts) is Status.FAILED:
            self._fail(job, checked.counts, error("infrastructure", "Not one row could be stored.", job.plan), checked)
        else:
            counts = checked.counts.model_dump()
            self._finish(job, NoticeType.INGESTION_COMPLETED, checked, status=Status.COMPLETED, counts=counts, **more)

    def _fail(self, job: Job, counts: Counts, why: ErrorView, checked: Checked | None = None) -> None:
        changed = {"status": Status.FAILED, "counts": counts.model_dump(), "error": why.model_dump()}
        self._finish(job, NoticeType.INGESTION_FAILED, checked, **changed)

    def _finish(self, job: Job, notice: NoticeType, checked: Checked | None, **values: Any) -> None:
        """Say how it ended, in one transaction: status, counts, error file and notices (P4)."""
        now = utc_now()
        if checked is not None:
            values |= checked.model_dump(include=ERROR_FILE)
        progress = _progress(job, Counts.model_validate(values["counts"]), 100)
        values |= {"stage": Stage.DONE, "finished_at": now, "progress": progress}
        with self.sql.begin() as connection:
            warnings = checked.warnings if checked else []
            ingestions.finish(connection, job.ingestion_id, job.fence, warnings=warnings, **values)
            tell_ingestion(connection, job.ingestion_id, notice, now=now)
            if notice is NoticeType.INGESTION_COMPLETED and checked is not None and _gives_all(job, checked):
                _supersede(connection, job.ingestion_id)
        self._count(job, values, checked.reasons if checked else {})

    @contextmanager
    def _stage(self, job: Job, stage: Stage) -> Iterator[None]:
        """Measure and trace a stage."""
        with self.metrics.stage_seconds.labels(stage).time(), tracing.span(stage, ingestion=str(job.ingestion_id)):
            yield

    def _count(self, job: Job, ended: dict[str, Any], reasons: dict[str, int]) -> None:
        self.metrics.ingestions.labels(job.plan.target, ended["status"]).inc()
        for outcome_of_rows in ("accepted", "rejected", "blank"):
            self.metrics.rows.labels(outcome_of_rows).inc(ended["counts"][outcome_of_rows])
        for code, rows in reasons.items():
            self.metrics.rejections.labels(code).inc(rows)


def _gives_all(job: Job, checked: Checked) -> bool:
    """Whether the file took the place of everything that was given before."""
    return job.plan.mode is Mode.REPLACE and not job.dry_run and not checked.returned


def _supersede(connection: Connection, ingestion_id: UUID) -> None:
    """End what waits to be confirmed for the same segment or data source and is older (docs/decisions/0010)."""
    now = utc_now()
    for held in ingestions.supersede_held(connection, ingestion_id, now=now):
        tell_ingestion(connection, held, NoticeType.INGESTION_CANCELLED, now=now)


def _progress(job: Job, counts: Counts, percent: float) -> dict[str, Any]:
    seconds = (utc_now() - job.started_at).total_seconds()
    return progress_after_reading(percent, counts, job.file_bytes, seconds).model_dump()
