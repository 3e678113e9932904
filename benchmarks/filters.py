"""A filter segment of many people: found when it is activated, and found anew by ingestions of its attribute.

Of a small file its own people are looked at alone, after a large one everybody is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.fill import fill_profiles
from benchmarks.machine import Measured, circumstances
from benchmarks.service import Client, Service, client, serving, workshop
from benchmarks.upload import ingest, make_source
from ingestd.domain import ids
from ingestd.domain.ids import Prefix

LOOK_SECONDS: Final = 0.02
NEW: Final = {"by a small file": 100, "by a large file": 25_000}
"""People whom each ingestion brings; all of them fit, the first ones are the same."""

USED: Final = {"use_in_segments": True}
ATTRIBUTES: Final[tuple[dict[str, Any], ...]] = (
    {"name": "crmid", "identifier": True},
    {"name": "city"} | USED,
    {"name": "name"} | USED,
)
CITIES: Final = 90
"""Of the 900 that `fill` deals out."""

CONDITION: Final[dict[str, Any]] = {
    "any": [
        {"attribute": "city", "op": "in", "value": [f"City {n}" for n in range(CITIES)]},
        {"attribute": "name", "op": "equals", "value": "Name 777"},
    ]
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter(Measured):
    """Members found once. `seconds` pass until the segment is `active`, or until the webhook `ingestion.completed`.

    The second is all of an ingestion; `stages` says how long it was `segmenting`.
    """

    profiles: int
    fill_seconds: float
    seconds: float
    members: int
    members_as_truth: bool
    stages: dict[str, float]


def measure(*, profiles: int, runs: int, parent: Path | None) -> Iterator[Filter]:
    """Fill a new service, activate a filter segment, then ingest people who fit; in each run."""
    with workshop(parent) as folder:
        files = {variant: folder / f"{count}.tsv" for variant, count in NEW.items()}
        for file, count in zip(files.values(), NEW.values(), strict=True):
            file.write_text("crmid\tcity\tname\n" + "".join(f"C-{n}\tCity 0\tName {n}\n" for n in range(count)))
        truth = sum(n % 900 < CITIES or n % 5000 == 777 for n in range(1, profiles + 1))
        for run in range(1, runs + 1):
            with serving(folder) as service:
                began = time.perf_counter()
                fill_profiles(service.url, ids.read(Prefix.ACCOUNT, service.account), profiles)
                filled, on_what = time.perf_counter() - began, circumstances(service.url)
                found = asyncio.run(_find(service, files))
                for variant, (seconds, members, stages) in found.items():
                    yield Filter(
                        work="filter",
                        variant=variant,
                        mb=0,
                        run=run,
                        profiles=profiles,
                        fill_seconds=round(filled, 1),
                        seconds=round(seconds, 3),
                        members=members,
                        members_as_truth=members == truth + NEW.get(variant, 0),
                        stages=stages,
                        **on_what,
                    )


async def _find(service: Service, files: dict[str, Path]) -> dict[str, tuple[float, int, dict[str, float]]]:
    async with client(service) as connected:
        source = await make_source(connected, ATTRIBUTES)
        body = {"name": "filter", "description": "Measured", "type": "SCD", "condition": CONDITION}
        made = (await connected.http.post("/v1/filters", json=body)).raise_for_status().json()
        path = f"/v1/segments/{made['id']}"
        began = time.perf_counter()
        (await connected.http.post(f"{path}/activate")).raise_for_status()
        first = await _active(connected, path)
        found: dict[str, tuple[float, int, dict[str, float]]] = {"activated": (time.perf_counter() - began, first, {})}
        for variant, file in files.items():
            walk = await ingest(connected, source, file, "append")
            found[variant] = (walk.seconds, await _active(connected, path), walk.stages)
    return found


async def _active(connected: Client, path: str) -> int:
    """How many members a segment has, once it is active."""
    while True:
        shown = (await connected.http.get(path)).raise_for_status().json()
        if shown["status"] == "active":
            members: int = shown["members"]
            return members
        await asyncio.sleep(LOOK_SECONDS)
