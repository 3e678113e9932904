"""Loads of profiles: first into an empty account, then all of them again with other values."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import generate
from benchmarks.generate import Generated, Variant
from benchmarks.machine import Measured, circumstances
from benchmarks.memory import PeakPss
from benchmarks.raw_copy import raw_copy
from benchmarks.service import Service, Walk, as_truth, client, serving, workshop

VARIANTS: Final[tuple[Variant, ...]] = ("first", "updates")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load(Measured):
    """One load. `seconds` pass from the CLOSE of the manifest to the webhook `ingestion.completed`.

    `ratio_raw_copy` is `raw_copy_seconds` (of the file without its bad rows) by `seconds`. `peak_pss_mb` is of the
    service and its data-plane processes. `stages` says where the time went, as a look every tenth of a second saw it.
    """

    seconds: float
    mb_per_s: float
    rows_per_s: int
    raw_copy_seconds: float
    ratio_raw_copy: float
    peak_pss_mb: int
    rows_accepted: int
    rows_rejected: int
    truth_rejected: int
    rejected_as_truth: bool
    stages: dict[str, float]


def measure(*, mb: float, runs: int, parent: Path | None) -> Iterator[Load]:
    """Generate both files once; load them, one after the other, into a new service in each run."""
    with workshop(parent) as folder:
        files = {variant: generate.profiles(folder / f"{variant}.csv", mb=mb, variant=variant) for variant in VARIANTS}
        for run in range(1, runs + 1):
            with serving(folder) as service:
                for variant, made in files.items():
                    yield _load(service, made, variant, run)


def _load(service: Service, made: Generated, variant: str, run: int) -> Load:
    on_what = circumstances(service.url)
    raw_seconds = raw_copy(service.url, made.clean)
    walk, peak = asyncio.run(_walk(service, made))
    counts, size = walk.ingestion["counts"], made.data.stat().st_size
    return Load(
        work="profiles",
        variant=variant,
        mb=round(size / 1e6, 1),
        run=run,
        seconds=round(walk.seconds, 3),
        mb_per_s=round(size / 1e6 / walk.seconds, 2),
        rows_per_s=round(made.rows / walk.seconds),
        raw_copy_seconds=round(raw_seconds, 4),
        ratio_raw_copy=round(raw_seconds / walk.seconds, 4),
        peak_pss_mb=round(peak),
        rows_accepted=counts["accepted"],
        rows_rejected=counts["rejected"],
        truth_rejected=made.rejected,
        rejected_as_truth=as_truth(service.rejected(walk.ingestion["id"]), made),
        stages=walk.stages,
        **on_what,
    )


async def _walk(service: Service, made: Generated) -> tuple[Walk, float]:
    async with client(service) as connected:
        await connected.put(made.data)
        with PeakPss(service.pid) as peak:
            walk = await connected.walk(made.data.with_suffix(".manifest"))
    return walk, peak.mb
