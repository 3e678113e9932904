"""How soon the customer of an idle service hears that a small file is done."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import generate
from benchmarks.machine import Measured, circumstances
from benchmarks.service import Service, client, serving, workshop

ROWS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Small(Measured):
    """`seconds` pass from the CLOSE of the manifest of 100 rows to the webhook `ingestion.completed`."""

    seconds: float
    rows_accepted: int
    rows_rejected: int
    truth_rejected: int


def measure(*, runs: int, parent: Path | None) -> Iterator[Small]:
    """Push `runs` small files one after the other; the first meets a service that has just started."""
    with workshop(parent) as folder, serving(folder) as service:
        yield from asyncio.run(_push(service, folder, runs))


async def _push(service: Service, folder: Path, runs: int) -> list[Small]:
    measured = []
    on_what = circumstances(service.url)
    async with client(service) as connected:
        for run in range(1, runs + 1):
            mb = ROWS * generate.PROFILE_BYTES / 1e6
            made = generate.profiles(folder / f"small-{run}.csv", mb=mb, seed=run, bad_share=0.05)
            await connected.put(made.data)
            walk = await connected.walk(made.data.with_suffix(".manifest"))
            counts = walk.ingestion["counts"]
            measured.append(
                Small(
                    work="small",
                    variant="first" if run == 1 else "next",
                    mb=round(mb, 3),
                    run=run,
                    seconds=round(walk.seconds, 3),
                    rows_accepted=counts["accepted"],
                    rows_rejected=counts["rejected"],
                    truth_rejected=made.rejected,
                    **on_what,
                )
            )
    return measured
