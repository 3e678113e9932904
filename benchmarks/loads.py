"""Loads over SFTP into an empty account, then the same file again; of profiles then other values of all people."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import psycopg

from benchmarks import generate
from benchmarks.generate import Generated, Variant
from benchmarks.machine import Measured, circumstances
from benchmarks.memory import PeakPss
from benchmarks.raw_copy import raw_copy
from benchmarks.service import Service, Walk, as_truth, client, serving, warm_up, workshop

Work = Literal["profiles", "events"]

AGAIN: Final = "again"
"""The file `first` once more, under another name."""

VARIANTS: Final[dict[Work, tuple[Variant, ...]]] = {"profiles": ("first", "updates"), "events": ("first",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load(Measured):
    """One load. `seconds` pass from the CLOSE of the manifest to the webhook `ingestion.completed`.

    `ratio_raw_copy` is `raw_copy_seconds` (of the file without its bad rows) by `seconds`. `peak_pss_mb` is of the
    service and its data-plane processes. `wal_mb` is what PostgreSQL wrote to its log in the seconds. `stages` says
    where the time went, as a look every quarter of a second saw it.
    """

    seconds: float
    mb_per_s: float
    rows_per_s: int
    raw_copy_seconds: float
    ratio_raw_copy: float
    peak_pss_mb: int
    wal_mb: float
    rows_accepted: int
    rows_rejected: int
    truth_rejected: int
    rejected_as_truth: bool
    stages: dict[str, float]


def measure(work: Work, *, mb: float, runs: int, parent: Path | None) -> Iterator[Load]:
    """Generate the files once; load them, one after the other, into a new service in each run."""
    write = generate.profiles if work == "profiles" else generate.events
    with workshop(parent) as folder:
        files: dict[str, Generated] = {}
        for variant in VARIANTS[work]:
            files[variant] = write(folder / f"{variant}.csv", mb=mb, variant=variant)
            if variant == "first":
                files[AGAIN] = _again(files[variant], folder / f"{AGAIN}.csv")
        for run in range(1, runs + 1):
            with serving(folder) as service:
                warm_up(service.url, mb)
                for name, made in files.items():
                    yield load(service, work, made, name, run)


def _again(made: Generated, path: Path) -> Generated:
    """Give the same file another name, since a manifest's name is taken once."""
    path.hardlink_to(made.data)
    path.with_suffix(".manifest").write_text(json.dumps({**made.manifest, "fileName": path.name}))
    return replace(made, data=path)


def load(service: Service, work: Work, made: Generated, variant: str, run: int) -> Load:
    """Load one file, after a raw COPY of its good rows."""
    on_what = circumstances(service.url)
    raw_seconds = raw_copy(service.url, made.clean)
    walk, peak, wal = asyncio.run(_walk(service, made))
    counts, size = walk.ingestion["counts"], made.data.stat().st_size
    return Load(
        work=work,
        variant=variant,
        mb=round(size / 1e6, 1),
        run=run,
        seconds=round(walk.seconds, 3),
        mb_per_s=round(size / 1e6 / walk.seconds, 2),
        rows_per_s=round(made.rows / walk.seconds),
        raw_copy_seconds=round(raw_seconds, 4),
        ratio_raw_copy=round(raw_seconds / walk.seconds, 4),
        peak_pss_mb=round(peak),
        wal_mb=round(wal / 1e6, 1),
        rows_accepted=counts["accepted"],
        rows_rejected=counts["rejected"],
        truth_rejected=made.rejected,
        rejected_as_truth=as_truth(service.rejected(walk.ingestion["id"]), made),
        stages=walk.stages,
        **on_what,
    )


async def _walk(service: Service, made: Generated) -> tuple[Walk, float, int]:
    async with client(service) as connected:
        await connected.put(made.data)
        before = _wal_bytes(service)
        with PeakPss(service.pid) as peak:
            walk = await connected.walk(made.data.with_suffix(".manifest"))
        return walk, peak.mb, _wal_bytes(service) - before


def _wal_bytes(service: Service) -> int:
    """How much the server has written to its log since it exists."""
    with psycopg.connect(service.url) as connection:
        ((written,),) = connection.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchall()
    return int(written)
