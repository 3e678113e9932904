"""How soon the API answers while a file is loaded, beside how soon it answers when idle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import polars as pl

from benchmarks import generate
from benchmarks.generate import Generated
from benchmarks.machine import Measured, circumstances
from benchmarks.service import Client, Service, client, serving, sftp_session, workshop

RATE: Final = 20.0
"""Requests a second unless told otherwise; half are `GET /v1/ingestions`, half `POST /v1/profiles/lookup`."""

KNOWN_MB: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency(Measured):
    """Milliseconds to an answer: idle, while the data file comes in over SFTP, and while it is loaded.

    Counted from when a request was due, whether or not earlier ones had been answered. `rate` requests were due a
    second, `requests` in the `seconds` of the load.
    """

    rate: float
    seconds: float
    requests: int
    api_p50_ms: float
    api_p99_ms: float
    api_p50_idle_ms: float
    api_p99_idle_ms: float
    api_p50_upload_ms: float
    api_p99_upload_ms: float


def measure(*, mb: float, rate: float, idle_seconds: float, runs: int, parent: Path | None) -> Iterator[Latency]:
    """Load a file of `mb` into a new service in each run, a small one having brought some people to look up."""
    with workshop(parent) as folder:
        known = generate.profiles(folder / "known.csv", mb=KNOWN_MB)
        made = generate.profiles(folder / "load.csv", mb=mb)
        for run in range(1, runs + 1):
            with serving(folder) as service:
                on_what = circumstances(service.url)
                asked = asyncio.run(_ask(service, known, made, rate=rate, idle_seconds=idle_seconds))
                yield Latency(work="latency", variant="first", run=run, rate=rate, **asked, **on_what)


async def _ask(
    service: Service, known: Generated, made: Generated, *, rate: float, idle_seconds: float
) -> dict[str, Any]:
    """Ask an idle service, then during the upload, then during the load; gives the figures."""
    async with client(service) as connected:
        await connected.put(known.data)
        await connected.walk(known.data.with_suffix(".manifest"))
        asked = Asked(connected, identities(known), rate)
        idle, _ = await asked.during(asyncio.sleep(idle_seconds))
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as customer:
            upload, _ = await asked.during(asyncio.get_running_loop().run_in_executor(customer, _put, service, made))
        load, walk = await asked.during(connected.walk(made.data.with_suffix(".manifest")))
    return {
        "mb": round(made.data.stat().st_size / 1e6, 1),
        "seconds": round(walk.seconds, 3),
        "requests": len(load),
        "api_p50_ms": percentile(load, 50),
        "api_p99_ms": percentile(load, 99),
        "api_p50_idle_ms": percentile(idle, 50),
        "api_p99_idle_ms": percentile(idle, 99),
        "api_p50_upload_ms": percentile(upload, 50),
        "api_p99_upload_ms": percentile(upload, 99),
    }


def _put(service: Service, made: Generated) -> None:
    """Put the data file: in a process of its own, so that whoever asks is not kept from it by encrypting."""

    async def put() -> None:
        async with sftp_session(service) as sftp:
            await sftp.put(str(made.data), f"/{made.data.name}")

    asyncio.run(put())


class Asked:
    """Asks the API `rate` times a second, in turn for the ingestions and for a person."""

    def __init__(self, connected: Client, identities: list[str], rate: float) -> None:
        self._http = connected.http
        self._identities = identities
        self._rate = rate
        self._turn = 0

    async def during(self, work: Any) -> tuple[list[float], Any]:
        """Ask until an awaitable is done; gives the seconds to each answer, and what the awaitable gave."""
        working = asyncio.ensure_future(work)
        began, asking = time.perf_counter(), list[asyncio.Task[float]]()
        while not working.done():
            due = began + len(asking) / self._rate
            await asyncio.wait([working], timeout=max(0, due - time.perf_counter()))
            asking.append(asyncio.create_task(self._ask(due)))
        return await asyncio.gather(*asking), await working

    async def _ask(self, due: float) -> float:
        self._turn += 1
        answer = await (self._list() if self._turn % 2 else self._look_up(self._turn // 2))
        seconds = time.perf_counter() - due
        answer.raise_for_status()
        return seconds

    async def _list(self) -> httpx.Response:
        return await self._http.get("/v1/ingestions")

    async def _look_up(self, turn: int) -> httpx.Response:
        identity = self._identities[turn % len(self._identities)]
        return await self._http.post(
            "/v1/profiles/lookup", json={"identifiers": [{"kind": "identity", "value": identity}]}
        )


def identities(made: Generated) -> list[str]:
    """Identities of people in a file."""
    return pl.read_csv(made.clean, columns=["identity"])["identity"].unique(maintain_order=True).to_list()


def percentile(seconds: list[float], share: float) -> float:
    """Of answer times in seconds, in milliseconds."""
    return round(1000 * float(np.percentile(seconds, share)), 1)
