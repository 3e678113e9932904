"""Scanning a file, and checking it, without a database: against Python's `csv` and a raw COPY of the same file."""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from benchmarks import generate
from benchmarks.generate import Generated, Variant
from benchmarks.machine import Measured, circumstances
from benchmarks.raw_copy import raw_copy
from benchmarks.service import as_truth, serving, workshop
from ingestd.domain.layout import bind
from ingestd.domain.manifest import parse
from ingestd.domain.plan import Format, Plan
from ingestd.ingest.pool import ALLOCATION
from ingestd.pipeline.check import Check
from ingestd.pipeline.report import ErrorFile, RejectLog
from ingestd.pipeline.run import Sinks, check_file
from ingestd.pipeline.scan import open_scan

KINDS: Final[tuple[Variant, ...]] = ("first", "plain", "quoted", "tabs", "wide")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned(Measured):
    """One file, read in a process that is set up as a data-plane process is.

    `csv_seconds` is Python's reader over the file as text, whose records are wrong where quotes are. `scan_seconds` is
    ours: records, cells, rejected lines. `seconds` is scan, check, error file and log of rejects, nothing sealed.
    `cpu_seconds` are of all threads in `seconds`. `peak_mb` is the most memory the process had.
    """

    seconds: float
    cpu_seconds: float
    scan_seconds: float
    csv_seconds: float
    raw_copy_seconds: float
    times_csv: float
    times_raw_copy: float
    peak_mb: int
    rows_rejected: int
    truth_rejected: int
    rejected_as_truth: bool


def measure(*, kind: Variant, mb: float, runs: int, parent: Path | None) -> Iterator[Scanned]:
    """Generate the file once; in each run a new process reads it, and the server of a service copies it."""
    with workshop(parent) as folder:
        made = generate.profiles(folder / "x.csv", mb=mb, variant=kind)
        size = made.data.stat().st_size
        with serving(folder) as service:
            for run in range(1, runs + 1):
                on_what = circumstances(service.url)
                raw_seconds = raw_copy(service.url, made.clean, delimiter=_format(kind).delimiter)
                found = _in_a_process(made, kind)
                rejects = made.data.with_suffix(".rejects")
                yield Scanned(
                    work="scan",
                    variant=kind,
                    mb=round(size / 1e6, 1),
                    run=run,
                    raw_copy_seconds=round(raw_seconds, 4),
                    times_csv=round(found["csv_seconds"] / found["scan_seconds"], 3),
                    times_raw_copy=round(raw_seconds / found["seconds"], 3),
                    truth_rejected=made.rejected,
                    rejected_as_truth=as_truth(pl.read_ipc_stream(rejects), made),
                    **found,
                    **on_what,
                )


def _format(kind: str) -> Format:
    return Format.TSV if kind == "tabs" else Format.CSV


def _in_a_process(made: Generated, kind: Variant) -> dict[str, Any]:
    cores = str(len(os.sched_getaffinity(0)))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scan", made.data, kind],
        env=os.environ | ALLOCATION | {"POLARS_MAX_THREADS": cores},
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _read(path: Path, kind: str) -> dict[str, Any]:
    """Read one file three ways; also leaves the log of rejects beside it."""
    manifest = parse(path.with_suffix(".manifest").read_bytes())
    plan = manifest.plan().model_copy(update={"format": _format(kind)})
    scan_seconds, _, _ = _timed(lambda: _scan(path, plan))
    seconds, cpu_seconds, rejected = _timed(lambda: _check(path, plan))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    csv_seconds, _, _ = _timed(lambda: _read_csv(path, plan.format.delimiter))
    return {
        "seconds": round(seconds, 4),
        "cpu_seconds": round(cpu_seconds, 3),
        "scan_seconds": round(scan_seconds, 4),
        "csv_seconds": round(csv_seconds, 4),
        "peak_mb": round(peak * 1024 / 1e6),
        "rows_rejected": rejected,
    }


def _timed(work: Callable[[], int]) -> tuple[float, float, int]:
    began, before = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - began, time.process_time() - before, result


def _scan(path: Path, plan: Plan) -> int:
    with path.open("rb") as stream:
        scan = open_scan(stream, delimiter=plan.format.delimiter, limits=plan.limits)
        return sum(batch.rows.height for batch in scan.batches())


def _check(path: Path, plan: Plan) -> int:
    with (
        path.open("rb") as stream,
        path.with_suffix(".errors").open("wb") as errors,
        path.with_suffix(".rejects").open("wb") as log,
    ):
        scan = open_scan(stream, delimiter=plan.format.delimiter, limits=plan.limits)
        rejects = RejectLog(log)
        sinks = Sinks(None, ErrorFile(errors, scan.header), rejects)
        counts = check_file(scan, Check(bind(plan, scan.header), plan, int(time.time())), sinks, lambda *_: None)
        rejects.close()
        return counts.rejected


def _read_csv(path: Path, delimiter: str) -> int:
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        return sum(1 for _ in csv.reader(file, delimiter=delimiter))


if __name__ == "__main__":
    print(json.dumps(_read(Path(sys.argv[1]), sys.argv[2])))
