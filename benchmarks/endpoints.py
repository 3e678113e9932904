"""Webhook endpoints on loopback in a process of their own: most take events, one never answers, one is slow."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Final

SLOW_SECONDS: Final = 5.0
FAILING: Final = 0.05
"""The share of events that a sound endpoint answers with 500 when it sees them first."""

SILENT, SLOW = 0, 1
"""Which of the endpoints never answers, and which is slow, where there are such."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event that came to an endpoint, when by the clock, and what was answered."""

    endpoint: int
    event: str
    at: float
    status: int


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The endpoints' ports, and a way to ask for what has come."""

    ports: list[int]
    _pipe: Connection

    def arrivals(self) -> list[Arrival]:
        """All that came since this was last asked."""
        self._pipe.send(None)
        found: list[Arrival] = self._pipe.recv()
        return found


@contextmanager
def endpoints(count: int, *, bad: bool) -> Iterator[Endpoints]:
    """Run so many endpoints; with `bad`, the first never answers and the second takes its time."""
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_run, args=(theirs, count, bad), daemon=True)
    process.start()
    try:
        yield Endpoints(ours.recv(), ours)
    finally:
        process.terminate()
        process.join()


def _run(pipe: Connection, count: int, bad: bool) -> None:  # noqa: FBT001 -- a process's arguments
    asyncio.run(_serve(pipe, count, bad=bad))


async def _serve(pipe: Connection, count: int, *, bad: bool) -> None:
    came: list[Arrival] = []
    seen: set[str] = set()
    servers = [
        await asyncio.start_server(partial(_answer, came, seen, number, bad), "127.0.0.1", 0, backlog=1000)
        for number in range(count)
    ]
    pipe.send([server.sockets[0].getsockname()[1] for server in servers])
    while True:
        await asyncio.to_thread(pipe.recv)
        pipe.send(came)
        came.clear()


async def _answer(
    came: list[Arrival],
    seen: set[str],
    number: int,
    bad: bool,  # noqa: FBT001 -- bound by `partial`
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[1:-2]
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            await reader.readexactly(int(headers["content-length"]))
            event = headers.get("webhook-id", "")
            status = 500 if event not in seen and _fails(event) else 204
            seen.add(event)
            came.append(Arrival(number, event, time.time(), status))
            if bad and number == SILENT:
                await asyncio.sleep(3600)
            if bad and number == SLOW:
                await asyncio.sleep(SLOW_SECONDS)
            writer.write(b"HTTP/1.1 %d Because\r\nContent-Length: 0\r\n\r\n" % status)
    writer.close()


def _fails(event: str) -> bool:
    return bool(event) and hashlib.sha256(event.encode()).digest()[0] < FAILING * 256
