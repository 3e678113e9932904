"""What a file made to hurt does to a running service: how it ends, how much memory it takes, who waits meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import generate
from benchmarks.generate import Generated
from benchmarks.latency import KNOWN_MB, Asked, identities, percentile
from benchmarks.machine import Measured, circumstances
from benchmarks.memory import PeakPss
from benchmarks.service import LOOK_SECONDS, Client, Service, client, serving, workshop

MIB: Final = 1024 * 1024
NARROW: Final = b"identity,x\n"
WIDE: Final = b"identity" + b"".join(b",c%d" % n for n in range(1999)) + b"\n"


@dataclass(frozen=True, slots=True)
class Kind:
    """A file of one line again and again, and what its manifest says of its columns."""

    header: bytes
    line: bytes
    columns: dict[str, dict[str, str]] = field(default_factory=dict)


KINDS: Final = {
    "nothing but separators": Kind(NARROW, b",\n"),
    "quotes that close on the next line": Kind(NARROW, b'"\n'),
    "quotes that never close": Kind(NARROW, b'a,"b\nc,d\n'),
    "fields too many": Kind(NARROW, b"a,b,c\n"),
    "no UTF-8": Kind(NARROW, b"a\xff,b\n"),
    "NUL bytes among good rows": Kind(NARROW, b"a\0,b\ngood,1\n"),
    "every cell wrong": Kind(
        WIDE, b"a" + b",x" * 1999 + b"\n", {f"c{n}": {"dataType": "INTEGER"} for n in range(1999)}
    ),
    "nothing in 2,000 columns": Kind(WIDE, b"a" + b"," * 1999 + b"\n"),
    "lines too long": Kind(NARROW, b"a," + b"x" * (MIB + 9) + b"\n"),
}
USUAL: Final = ("fields too many", "every cell wrong", "quotes that never close")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile(Measured):
    """How a file of the kind `variant` ended, `seconds` after the CLOSE of its manifest: `error` is a code, or null.

    `peak_pss_mb` is of the service and its data-plane processes together. The API was asked as `benchmarks.latency`
    has it, `requests` times.
    """

    seconds: float
    status: str
    error: str | None
    rows_read: int
    rows_accepted: int
    rows_rejected: int
    peak_pss_mb: int
    rate: float
    requests: int
    api_p50_ms: float
    api_p99_ms: float


def measure(*, kinds: Sequence[str], mb: float, rate: float, parent: Path | None) -> Iterator[Hostile]:
    """Push a file of each kind to a new service, a small good one having brought some people to look up."""
    with workshop(parent) as folder:
        known = generate.profiles(folder / "known.csv", mb=KNOWN_MB)
        for kind in kinds:
            data = folder / "hostile.csv"
            write(data, KINDS[kind], round(mb * 1e6))
            with serving(folder) as service:
                on_what = circumstances(service.url)
                found = asyncio.run(_push(service, known, data, rate))
            yield Hostile(work="hostile", variant=kind, mb=mb, run=1, rate=rate, **found, **on_what)


def write(data: Path, kind: Kind, size: int) -> int:
    """Write a file of about so many bytes, and its manifest beside it; gives how many lines follow the header."""
    times = size // len(kind.line)
    at_once = max(1, MIB // len(kind.line))
    with data.open("wb") as file:
        file.write(kind.header)
        for _ in range(times // at_once):
            file.write(kind.line * at_once)
        file.write(kind.line * (times % at_once))
    text = {"type": "profile", "fileName": data.name, "clientEmail": "a@example.org", "columns": kind.columns}
    data.with_suffix(".manifest").write_text(json.dumps(text))
    return times * kind.line.count(b"\n")


async def _push(service: Service, known: Generated, data: Path, rate: float) -> dict[str, Any]:
    async with client(service) as connected:
        await connected.put(known.data)
        await connected.walk(known.data.with_suffix(".manifest"))
        asked = Asked(connected, identities(known), rate)
        await connected.put(data)
        began = time.perf_counter()
        with PeakPss(service.pid) as peak:
            answers, ended = await asked.during(_end(connected, data.with_suffix(".manifest")))
        seconds = time.perf_counter() - began
    counts, error = ended["counts"], ended["error"]
    return {
        "seconds": round(seconds, 3),
        "status": ended["status"],
        "error": error and error["code"],
        "rows_read": counts["read"],
        "rows_accepted": counts["accepted"],
        "rows_rejected": counts["rejected"],
        "peak_pss_mb": round(peak.mb),
        "requests": len(answers),
        "api_p50_ms": percentile(answers, 50),
        "api_p99_ms": percentile(answers, 99),
    }


async def _end(connected: Client, manifest: Path) -> dict[str, Any]:
    """Put the manifest, and give the ingestion as it is shown when it has ended, however that is."""
    await connected.put(manifest)
    newest = (await connected.http.get("/v1/ingestions", params={"limit": 1})).raise_for_status().json()["data"][0]
    while newest["status"] not in {"completed", "failed"}:
        await asyncio.sleep(LOOK_SECONDS)
        newest = (await connected.http.get(f"/v1/ingestions/{newest['id']}")).raise_for_status().json()
    return dict(newest)
