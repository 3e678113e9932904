"""Files that tie people who are stored to others who are: each pair becomes one person.

The account is new beside another that PostgreSQL has statistics of, as the next customer of a service in use is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from benchmarks.fill import fill_profiles
from benchmarks.machine import Measured, circumstances
from benchmarks.service import Service, client, serving, workshop

SOMEBODY_ELSE: Final = UUID(int=1)

FILES: Final = {
    "one": ("identity,city", "one-{0},Rome"),
    "other": ("fbId,city", "other-{0},Oslo"),
    "updates": ("identity,city", "one-{0},Bern"),
    "ties": ("identity,fbId,plan", "one-{0},other-{0},gold"),
    "again": ("identity,fbId,plan", "one-{0},other-{0},gold"),
}
"""Header and rows of each file, in the order in which they come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged(Measured):
    """One file of a row for each of `people`. `seconds` are those of a load; `merged` profiles became another's."""

    people: int
    seconds: float
    rows_accepted: int
    merged: int
    stages: dict[str, float]


def measure(*, people: int, runs: int, parent: Path | None) -> Iterator[Merged]:
    """Load the files one after the other into a new service in each run."""
    with workshop(parent) as folder:
        for name, (header, row) in FILES.items():
            path = folder / f"{name}.csv"
            path.write_text("\n".join([header, *(row.format(number) for number in range(people)), ""]))
            manifest = {"fileName": path.name, "type": "profile", "clientEmail": "a@example.org", "columns": {}}
            path.with_suffix(".manifest").write_text(json.dumps(manifest))
        for run in range(1, runs + 1):
            with serving(folder) as service:
                fill_profiles(service.url, SOMEBODY_ELSE, people)
                yield from asyncio.run(_push(service, folder, people, run))


async def _push(service: Service, folder: Path, people: int, run: int) -> list[Merged]:
    measured = []
    async with client(service) as connected:
        for name in FILES:
            on_what = circumstances(service.url)
            path = folder / f"{name}.csv"
            await connected.put(path)
            walk = await connected.walk(path.with_suffix(".manifest"))
            measured.append(
                Merged(
                    work="merges",
                    variant=name,
                    mb=round(path.stat().st_size / 1e6, 1),
                    run=run,
                    people=people,
                    seconds=round(walk.seconds, 3),
                    rows_accepted=walk.ingestion["counts"]["accepted"],
                    merged=walk.ingestion["counts"]["merged"],
                    stages=walk.stages,
                    **on_what,
                )
            )
    return measured
