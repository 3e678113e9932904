"""An upload for a data source: from its last byte to `ingestion.completed`, two of eight columns personal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from benchmarks.machine import Measured, circumstances
from benchmarks.service import Client, Service, Walk, client, serving, warm_up, workshop

ROW_BYTES: Final = 99
BAD_EVERY: Final = 100
"""Of so many rows one has a number that is none."""

VARIANTS: Final = {"first": "append", "replace": "replace"}
"""The files, and the mode of each."""

ATTRIBUTES: Final[tuple[dict[str, Any], ...]] = (
    {"name": "crmid", "identifier": True},
    {"name": "mail", "format": "EMAIL", "pii": True},
    {"name": "hm", "format": "PHONE", "pii": True},
    {"name": "name"},
    {"name": "city"},
    {"name": "tier"},
    {"name": "spent", "format": "FLOAT"},
    {"name": "since", "format": "DATE"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload(Measured):
    """One file. `seconds` pass from the answer to its last byte to the webhook `ingestion.completed`."""

    seconds: float
    mb_per_s: float
    rows_per_s: int
    rows_accepted: int
    rows_rejected: int
    truth_rejected: int
    stages: dict[str, float]


def measure(*, mb: float, runs: int, parent: Path | None) -> Iterator[Upload]:
    """Upload a file into an empty account, then one that replaces it with other values; each run in a new service."""
    with workshop(parent) as folder:
        rows = max(1, round(mb * 1e6 / ROW_BYTES / BAD_EVERY)) * BAD_EVERY
        files = {variant: _generate(folder / f"{variant}.tsv", rows, seed) for seed, variant in enumerate(VARIANTS)}
        for run in range(1, runs + 1):
            with serving(folder) as service:
                warm_up(service.url, mb)
                on_what = circumstances(service.url)
                for variant, walk in asyncio.run(_upload(service, files)).items():
                    counts, size = walk.ingestion["counts"], files[variant].stat().st_size
                    yield Upload(
                        work="upload",
                        variant=variant,
                        mb=round(size / 1e6, 1),
                        run=run,
                        seconds=round(walk.seconds, 3),
                        mb_per_s=round(size / 1e6 / walk.seconds, 2),
                        rows_per_s=round(rows / walk.seconds),
                        rows_accepted=counts["accepted"],
                        rows_rejected=counts["rejected"],
                        truth_rejected=rows // BAD_EVERY,
                        stages=walk.stages,
                        **on_what,
                    )


async def _upload(service: Service, files: dict[str, Path]) -> dict[str, Walk]:
    async with client(service) as connected:
        source = await make_source(connected, ATTRIBUTES)
        return {variant: await ingest(connected, source, path, VARIANTS[variant]) for variant, path in files.items()}


async def make_source(connected: Client, attributes: Sequence[dict[str, Any]]) -> str:
    """Make a data source whose columns are new attributes; gives its id."""
    http = connected.http
    source: str = (await http.post("/v1/data-sources", json={"name": "measured"})).raise_for_status().json()["id"]
    columns = [{"column": each["name"], "new_attribute": each} for each in attributes]
    (await http.put(f"/v1/data-sources/{source}/mapping", json={"columns": columns})).raise_for_status()
    return source


async def ingest(connected: Client, source: str, path: Path, mode: str) -> Walk:
    """Put a file for a data source, and follow its ingestion to its end."""
    put = await connected.http.put(f"/v1/files/{path.name}", content=_pieces(path), timeout=600)
    body = {"file_id": put.raise_for_status().json()["id"], "data_source_id": source, "mode": mode}

    async def submit() -> str:
        made = await connected.http.post("/v1/ingestions", json=body)
        ingestion: str = made.raise_for_status().json()["id"]
        return ingestion

    return await connected.follow(submit)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, 1 << 20):
            yield piece


def _generate(path: Path, rows: int, seed: int) -> Path:
    """Write a file of `rows` people, the same ones whatever the seed, which gives their other values."""
    random = np.random.default_rng(seed)
    number = pl.int_range(rows, eager=True)
    spent = pl.Series(random.integers(0, 100_000, rows)) / 100
    bad = number % BAD_EVERY == 0
    frame = pl.DataFrame(
        {
            "crmid": "C-" + number.cast(pl.String).str.zfill(9),
            "mail": "person." + number.cast(pl.String) + "@example.org",
            "hm": "+9199" + (number + 70_000_000).cast(pl.String),
            "name": "Person Number " + number.cast(pl.String),
            "city": pl.Series(random.choice(["Ulm", "Bonn", "Jena", "Kiel"], rows)),
            "tier": pl.Series(random.choice(["gold", "silver", "tin"], rows)),
            "spent": spent.cast(pl.String).zip_with(~bad, pl.Series(["much"])),
            "since": pl.Series(random.integers(10, 28, rows)).cast(pl.String).str.replace("^", "2026-01-"),
        }
    )
    frame.write_csv(path, separator="\t")
    return path
