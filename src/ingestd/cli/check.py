"""`ingestd check`: what the service would make of a file; the same engine, without a server or a database."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

import typer
from pydantic import BaseModel
from rich import progress
from rich.console import Console
from rich.table import Table

from ingestd.cli.exits import Exit
from ingestd.domain import manifest as manifests
from ingestd.domain.errors import FileRefused, Invalid
from ingestd.domain.file_name import refuse_unfit, safe_name
from ingestd.domain.ingestion import Counts, ErrorView, Status, outcome
from ingestd.domain.layout import bind
from ingestd.domain.plan import Plan, Target
from ingestd.domain.rejection import ROW_REASONS
from ingestd.ingest.refusal import error_of, nothing_applied
from ingestd.pipeline.check import Check
from ingestd.pipeline.parts import PartWriter, bucket_count
from ingestd.pipeline.report import ErrorFile, RejectLog, reject_counts
from ingestd.pipeline.resolve import TWO_PEOPLE, resolve
from ingestd.pipeline.run import NOTHING_LATE, Progress, Sinks, check_file, warnings
from ingestd.pipeline.scan import open_scan
from ingestd.settings import Settings

INDEX_KEY: Final = "00" * 32
"""Any key will do: who is who within one file does not depend on it."""


class Verdict(BaseModel):
    """What would become of a file; status, counts, error and warnings are those that the ingestion would show.

    `reasons` counts the rejected rows by the code of their reason; a row with two reasons counts under both.
    """

    file: str
    manifest: str
    target: Target | None = None
    status: Status = Status.FAILED
    counts: Counts = Counts()
    reasons: dict[str, int] = {}
    error: ErrorView | None = None
    error_file: str | None = None
    warnings: list[str] = []

    @property
    def exit(self) -> Exit:
        """The exit code that says the same."""
        if self.status is Status.FAILED:
            return Exit.REFUSED
        return Exit.SOME_REJECTED if self.counts.rejected else Exit.ALL_ACCEPTED


@dataclass(frozen=True, slots=True)
class Found:
    """What reading a file from end to end found."""

    counts: Counts
    reasons: dict[str, int]
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Folder:
    """Parts kept as files (`pipeline.parts.Folder`)."""

    path: Path

    def create(self, name: str) -> BinaryIO:
        """Start a new stream."""
        return (self.path / name).open("wb")

    def open(self, name: str) -> BinaryIO:
        """Read a stream from its beginning."""
        return (self.path / name).open("rb")


def run(file: Path, manifest: Path, errors: Path | None, *, as_json: bool) -> Exit:
    """Print what would become of a file, and give the exit code that says the same."""
    if errors is not None:
        _refuse_target(errors, (file, manifest))
    with _telling(file.stat().st_size) as told:
        verdict = examine(file, manifest, errors, told)
    if as_json:
        typer.echo(verdict.model_dump_json(indent=2))
    else:
        _show(verdict)
    return verdict.exit


def examine(file: Path, manifest: Path, errors: Path | None, told: Progress) -> Verdict:
    """Check a file; where rows are rejected their error file is at `errors` afterwards, else nothing is."""
    if errors is not None:
        errors.unlink(missing_ok=True)
    settings = Settings()
    verdict = Verdict(file=file.name, manifest=manifest.name)
    try:
        with manifest.open("rb") as stream:
            parsed = manifests.parse(stream.read(manifests.MAX_BYTES + 1))
        verdict.target = parsed.target
        verdict.warnings = [*_misnamed(file, manifest, parsed.file_name), *parsed.warnings]
        refuse_unfit(file.name, file.stat().st_size, settings.limits)
        with _part_of(errors) as part:
            plan = parsed.plan(settings.limits, settings.restricted_events)
            buckets = bucket_count(file.stat().st_size, settings.worker.part_bytes)
            found = _walk(file, plan, cast("BinaryIO", part), told, buckets=buckets)
            if errors is not None and found.counts.rejected:
                part.flush()
                Path(part.name).replace(errors)
                verdict.error_file = str(errors)
    except (Invalid, FileRefused) as refusal:
        verdict.error = error_of(refusal)
        return verdict
    verdict.status, verdict.counts, verdict.reasons = outcome(found.counts), found.counts, found.reasons
    verdict.warnings += found.warnings
    if verdict.status is Status.FAILED:
        verdict.error = nothing_applied(found.counts)
    return verdict


def _walk(file: Path, plan: Plan, sink: BinaryIO, told: Progress, *, buckets: int) -> Found:
    """Read the file, and once more where rows turn out to tie two people, which only the whole file shows."""
    now = int(time.time())
    with tempfile.TemporaryDirectory(prefix="ingestd-check-") as name:
        folder = Folder(Path(name))
        writer = PartWriter(folder, folder, buckets=buckets, index_key=INDEX_KEY)
        found = _read(file, plan, now, Sink(sink, writer, told))
        rejected = resolve(writer.close(), folder, None, INDEX_KEY).rejected
    if rejected:
        sink.seek(0)
        sink.truncate()
        found = _read(file, plan, now, Sink(sink, None, told), late=dict.fromkeys(rejected, TWO_PEOPLE))
    return found


@dataclass(frozen=True, slots=True)
class Sink:
    """Where one reading goes."""

    errors: BinaryIO
    parts: PartWriter | None
    told: Progress


def _read(file: Path, plan: Plan, now: int, sink: Sink, *, late: Mapping[int, str] = NOTHING_LATE) -> Found:
    with file.open("rb") as stream, tempfile.TemporaryFile() as log:
        scan = open_scan(stream, delimiter=plan.format.delimiter, limits=plan.limits)
        layout = bind(plan, scan.header)
        checker = Check(layout, plan, now)
        rejects = RejectLog(cast("BinaryIO", log))
        report = ErrorFile(sink.errors, scan.header, cell_bytes=plan.limits.cell_bytes)
        counts = check_file(scan, checker, Sinks(sink.parts, report, rejects), sink.told, late=late)
        rejects.close()
        log.seek(0)
        return Found(counts, reject_counts(cast("BinaryIO", log)), warnings(layout, checker, counts))


@contextmanager
def _part_of(errors: Path | None) -> Iterator[tempfile._TemporaryFileWrapper[bytes]]:
    """A file beside `errors`, gone afterwards unless it has taken its place."""
    with tempfile.NamedTemporaryFile(dir=errors and errors.parent, prefix=".errors-", delete=False) as part:
        try:
            yield part
        finally:
            Path(part.name).unlink(missing_ok=True)


def _refuse_target(errors: Path, inputs: tuple[Path, ...]) -> None:
    if not errors.parent.is_dir():
        raise typer.BadParameter(f"There is no folder {errors.parent}.", param_hint="--errors")
    if any(errors.exists() and errors.samefile(each) for each in inputs):
        raise typer.BadParameter("That is one of the files to check.", param_hint="--errors")


def _misnamed(file: Path, manifest: Path, named: str) -> list[str]:
    """Names with which the two would not find each other once they are sent."""
    found = []
    if safe_name(named) != safe_name(file.name):
        found.append(f"The manifest names {named!r}, but the file is called {file.name!r}: it would not be found.")
    if not manifests.is_manifest(manifest.name):
        found.append(f"The manifest is called {manifest.name!r}; its name must end in {manifests.SUFFIX}.")
    return found


@contextmanager
def _telling(size: int) -> Iterator[Progress]:
    """A progress bar on a terminal's standard error; elsewhere nothing."""
    console = Console(stderr=True)
    with progress.Progress(console=console, disable=not sys.stderr.isatty(), transient=True) as shown:
        bar = shown.add_task("checking", total=max(size, 1))
        yield lambda _, bytes_read: shown.update(bar, completed=bytes_read)


def _show(verdict: Verdict) -> None:
    console = Console(highlight=False, soft_wrap=True)
    counts = verdict.counts
    if verdict.error is not None:
        console.print(f"{verdict.file} would fail: {verdict.error.message}", style="red", markup=False)
        console.print(f"  {verdict.error.detail}", markup=False)
        for problem in verdict.error.problems:
            if problem.pointer or problem.detail != verdict.error.detail:
                console.print(f"  {problem.pointer or '/'}: {problem.detail}", markup=False)
        console.print(f"  {verdict.error.remedy}", markup=False)
    if verdict.status is Status.COMPLETED or counts.read:
        console.print(
            f"{verdict.file}: {counts.read:,} rows read, {counts.accepted:,} accepted, {counts.rejected:,} rejected, "
            f"{counts.blank:,} blank",
            markup=False,
        )
    if verdict.reasons:
        console.print(_table(verdict.reasons))
        console.print(f"Error file: {verdict.error_file or 'not kept; --errors FILE keeps it'}", markup=False)
    for warning in verdict.warnings:
        console.print(f"Warning: {warning}", style="yellow", markup=False)


def _table(found: Mapping[str, int]) -> Table:
    table = Table("rows", "code", "reason", box=None)
    for code, rows in found.items():
        table.add_row(f"{rows:,}", code, ROW_REASONS[code].general)
    return table
