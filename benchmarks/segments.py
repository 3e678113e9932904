"""Segments: a first file, then one with 7 % of the members changed, of an SCD and of a Non-SCD segment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from benchmarks.generate import Generated
from benchmarks.machine import Measured, circumstances
from benchmarks.memory import PeakPss
from benchmarks.raw_copy import raw_copy
from benchmarks.service import Client, Service, Walk, as_truth, client, serving, warm_up, workshop

ROW_BYTES: Final = 22
LEVELS: Final = ("High", "Medium", "Low")
MOVED: Final = 0.04
LEFT: Final = 0.015
"""Of the members; as many as leave enter."""

BAD_EVERY: Final = 100
FAULTS: Final = (
    ("partition_invalid", ("user-{}", "")),
    ("identifier_blank", ("", "High")),
    ("identifier_characters", ("us\x07er-{}", "Low")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh(Measured):
    """One file. `seconds` pass from the POST that submits it to the webhook `ingestion.completed`.

    `times_raw_copy` is that by `raw_copy_seconds`, of the file without its bad rows. `members_as_truth` says that every
    partition has as many members as the generator put there, and that as many entered, moved and left.
    """

    seconds: float
    mb_per_s: float
    rows_per_s: int
    raw_copy_seconds: float
    times_raw_copy: float
    peak_pss_mb: int
    rows_accepted: int
    rows_rejected: int
    truth_rejected: int
    rejected_as_truth: bool
    members_as_truth: bool
    stages: dict[str, float]


@dataclass(frozen=True, slots=True)
class File:
    """A generated file, the members of each level, and what it changes."""

    made: Generated
    levels: dict[str, int]
    changes: dict[str, int]


def measure(*, mb: float, runs: int, parent: Path | None) -> Iterator[Refresh]:
    """Generate both files once; in each run, refresh a segment of each type in a new service with one and the other."""
    with workshop(parent) as folder:
        files = generate(folder, mb=mb)
        for run in range(1, runs + 1):
            with serving(folder) as service:
                warm_up(service.url, mb)
                for kind in ("SCD", "Non-SCD"):
                    segment = ""
                    for variant, file in files.items():
                        on_what = circumstances(service.url)
                        raw_seconds = raw_copy(service.url, file.made.clean)
                        segment, walk, peak, found = asyncio.run(_refresh(service, kind, segment, file))
                        counts, size = walk.ingestion["counts"], file.made.data.stat().st_size
                        changes = {name: counts[name] for name in file.changes}
                        yield Refresh(
                            work="segments",
                            variant=f"{kind} {variant}",
                            mb=round(size / 1e6, 1),
                            run=run,
                            seconds=round(walk.seconds, 3),
                            mb_per_s=round(size / 1e6 / walk.seconds, 2),
                            rows_per_s=round(file.made.rows / walk.seconds),
                            raw_copy_seconds=round(raw_seconds, 4),
                            times_raw_copy=round(walk.seconds / raw_seconds, 2),
                            peak_pss_mb=round(peak),
                            rows_accepted=counts["accepted"],
                            rows_rejected=counts["rejected"],
                            truth_rejected=file.made.rejected,
                            rejected_as_truth=as_truth(service.rejected(walk.ingestion["id"]), file.made),
                            members_as_truth=(found, changes) == (file.levels, file.changes),
                            stages=walk.stages,
                            **on_what,
                        )


async def _refresh(service: Service, kind: str, segment: str, file: File) -> tuple[str, Walk, float, dict[str, int]]:
    """Refresh a segment, a new one if none is named; gives it, the file's way, the memory, and the members by level."""
    async with client(service) as connected:
        http = connected.http
        if not segment:
            body = {"name": kind, "description": "Measured", "type": kind, "method": "upload", "upload_type": "manual"}
            segment = (await http.post("/v1/segments", json=body)).raise_for_status().json()["id"]
            (await http.post(f"/v1/segments/{segment}/activate")).raise_for_status()
        put = await http.put(f"/v1/files/{file.made.data.name}", content=_pieces(file.made.data), timeout=600)
        submission = {"file_id": put.raise_for_status().json()["id"], "segment_id": segment}
        with PeakPss(service.pid) as peak:
            walk = await _submit(connected, submission)
        found = (await http.get(f"/v1/segments/{segment}/partitions")).raise_for_status().json()["data"]
    return segment, walk, peak.mb, {each["value"]: each["members"] for each in found}


async def _submit(connected: Client, submission: dict[str, Any]) -> Walk:
    async def submit() -> str:
        answer = await connected.http.post("/v1/ingestions", json=submission)
        ingestion: str = answer.raise_for_status().json()["id"]
        return ingestion

    return await connected.follow(submit)


async def _pieces(path: Path) -> Any:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, 1 << 20):
            yield piece


def generate(folder: Path, *, mb: float, seed: int = 1) -> dict[str, File]:
    """Write both files: `first`, and `refresh` with 7 % of its members changed, in another order."""
    rng = np.random.default_rng(seed)
    count = int(mb * 1e6 / ROW_BYTES)
    people = np.arange(count)
    levels = rng.integers(len(LEVELS), size=count)
    left, moved = int(count * LEFT), int(count * MOVED)
    order = rng.permutation(count)
    kept = order[left:]
    then = levels.copy()
    then[kept[:moved]] = (then[kept[:moved]] + 1) % len(LEVELS)
    new = np.arange(count, count + left)
    later, level = np.concatenate([kept, new]), np.concatenate([then[kept], rng.integers(len(LEVELS), size=left)])
    shuffled = rng.permutation(count)
    entered = {"created": count, "updated": 0, "removed": 0, "unchanged": 0}
    changed = {"created": left, "updated": moved, "removed": left, "unchanged": count - left - moved}
    return {
        "first": _write(folder / "members-1.csv", people, levels, entered),
        "refresh": _write(folder / "members-2.csv", later[shuffled], level[shuffled], changed),
    }


def _write(path: Path, people: Any, levels: Any, changes: dict[str, int]) -> File:
    good = pl.DataFrame({"user_id": people, "level": levels}).select(
        pl.concat_str(pl.lit("user-"), pl.col("user_id").cast(pl.String).str.zfill(10)).alias("user_id"),
        pl.col("level").replace_strict(list(range(len(LEVELS))), LEVELS, return_dtype=pl.String),
    )
    clean, truth = path.with_suffix(".clean.csv"), path.with_suffix(".truth.csv")
    good.write_csv(clean)
    bad = [(record, *FAULTS[record // BAD_EVERY % len(FAULTS)]) for record in range(1, good.height, BAD_EVERY)]
    spoilt = pl.DataFrame(
        [(record - 0.5, cells[0].format(record), cells[1]) for record, _, cells in bad],
        schema={"at": pl.Float64, "user_id": pl.String, "level": pl.String},
        orient="row",
    )
    placed = good.select(at=pl.int_range(pl.len()).cast(pl.Float64), user_id="user_id", level="level")
    rows = pl.concat([placed, spoilt]).sort("at").with_row_index("record", offset=1)
    rows.select("user_id", "level").write_csv(path, quote_style="never")
    spoilt_at = rows.filter(pl.col("at") % 1 > 0)["record"].to_list()
    pl.DataFrame(
        {"record": spoilt_at, "line": [record + 1 for record in spoilt_at], "kind": [kind for _, kind, _ in bad]},
        schema={"record": pl.Int64, "line": pl.Int64, "kind": pl.String},
    ).write_csv(truth)
    made = Generated(path, clean, truth, {}, rows.height, len(bad), good.height)
    return File(made, dict(good["level"].value_counts().iter_rows()), changes)
