"""The demo's segment: a partner's FTP server, a schedule, two refreshes, and one person who moved in between."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aioftp
import httpx
from rich.console import Console
from rich.table import Table

from ingestd.cli.receiver import Receiver

USER, PASSWORD = "partner", "not-a-secret"
FOLDER: Final = "outgoing"
PEOPLE: Final = 3000
MOVED: Final = "user-7"
SOON: Final = timedelta(seconds=2)
HOUR: Final = 3600


async def show_segment(client: httpx.AsyncClient, receiver: Receiver, folder: Path, console: Console) -> None:
    """Refresh a segment twice from an FTP server on loopback, and show what that did."""
    folder.joinpath(FOLDER).mkdir(parents=True)
    async with _ftp_server(folder) as port:
        segment = await _make(client, port)
        console.print(f"\nA segment that refreshes itself from ftp://127.0.0.1:{port}/{FOLDER}/loyalty__*.csv")
        _put(folder, "loyalty__monday.csv", moved_to="Low", hours_ago=2)
        schedule = await _schedule(client, segment)
        console.print(f"  {schedule['description']}", markup=False)
        runs = [await _ended(client, receiver, await _made_by_the_clock(client, segment))]
        first = await _partitions(client, segment)
        _put(folder, "loyalty__tuesday.csv", moved_to="High", hours_ago=1)
        asked = await client.post(f"/v1/segments/{segment}/runs")
        runs.append(await _ended(client, receiver, asked.raise_for_status().json()["id"]))
        second = await _partitions(client, segment)
    console.print(_log(runs))
    console.print(_compared(first, second))
    await _show_who_moved(client, segment, runs[0], console)


@asynccontextmanager
async def _ftp_server(folder: Path) -> AsyncIterator[int]:
    """Somebody else's server, which lets nobody write; gives its port."""
    logging.getLogger("aioftp.server").setLevel(logging.CRITICAL)  # it takes a client that has gone for an error
    reading = aioftp.Permission("/", writable=False)
    server = aioftp.Server([aioftp.User(USER, PASSWORD, base_path=folder, permissions=[reading])])
    await server.start("127.0.0.1", 0)
    try:
        yield server.server_port
    finally:
        await server.close()


def _put(folder: Path, name: str, *, moved_to: str, hours_ago: int) -> None:
    """Lay a file with every person's tier on the server, last changed so many hours ago."""
    tiers = {f"user-{number}": ("High", "Medium", "Low")[number % 3] for number in range(PEOPLE)} | {MOVED: moved_to}
    path = folder / FOLDER / name
    path.write_text("User ID,Tier\n" + "".join(f"{person},{tier}\n" for person, tier in tiers.items()))
    at = time.time() - hours_ago * HOUR
    os.utime(path, (at, at))


async def _make(client: httpx.AsyncClient, port: int) -> str:
    """Configure the connection and save the segment; gives the segment's id."""
    login = {"username": USER, "password": PASSWORD}
    server = {"name": "partner", "kind": "ftp", "host": "127.0.0.1", "port": port}
    (await client.post("/v1/connections", json=server | login)).raise_for_status()
    body = {"name": "loyalty", "description": "Who is how loyal", "type": "SCD", "method": "upload"}
    made = await client.post("/v1/segments", json=body | {"upload_type": "scheduled"})
    return str(made.raise_for_status().json()["id"])


async def _schedule(client: httpx.AsyncClient, segment: str) -> dict[str, Any]:
    """Give the segment a daily schedule that is due in a moment, and activate it."""
    due = datetime.now(UTC).replace(microsecond=0) + SOON
    (await client.patch("/v1/account", json={"sync_time": due.time().isoformat()})).raise_for_status()
    [connection] = (await client.get("/v1/connections")).raise_for_status().json()["data"]
    body = {
        "connection": connection["id"],
        "path": FOLDER,
        "frequency": "daily",
        "valid_from": str(due.date()),
        "valid_to": str(due.date() + timedelta(days=365)),
    }
    (await client.put(f"/v1/segments/{segment}/schedule", json=body)).raise_for_status()
    (await client.post(f"/v1/segments/{segment}/activate")).raise_for_status()
    shown: dict[str, Any] = (await client.get(f"/v1/segments/{segment}/schedule")).raise_for_status().json()
    return shown


async def _made_by_the_clock(client: httpx.AsyncClient, segment: str) -> str:
    """Wait until the clock has made a run; gives its id."""
    while True:
        found = (await client.get("/v1/runs", params={"segment_id": segment})).raise_for_status().json()["data"]
        if found:
            return str(found[0]["id"])
        await asyncio.sleep(0.1)


async def _ended(client: httpx.AsyncClient, receiver: Receiver, run: str) -> dict[str, Any]:
    """Wait for the webhook that tells of a run's success; give up where it has failed."""
    told = asyncio.create_task(receiver.until("run.succeeded", run))
    while not told.done():
        shown = (await client.get(f"/v1/runs/{run}")).raise_for_status().json()
        if shown["outcome"] == "failed":
            raise SystemExit(f"demo failed: {shown['error']}")
        await asyncio.wait([told], timeout=0.1)
    return await told


async def _partitions(client: httpx.AsyncClient, segment: str) -> dict[str, int]:
    found = (await client.get(f"/v1/segments/{segment}/partitions")).raise_for_status().json()["data"]
    return {each["name"]: each["members"] for each in found}


def _log(runs: list[dict[str, Any]]) -> Table:
    table = Table("due", "file", "result", title="The execution log")
    for heading in ("rows", "seconds"):
        table.add_column(heading, justify="right")
    for run in runs:
        rows = f"{run['counts']['accepted']:,}"
        due = "by the clock" if run["slot"] else "on request"
        table.add_row(due, run["file"]["name"], run["result"], rows, f"{run['duration_seconds']:.2f}")
    return table


def _compared(first: dict[str, int], second: dict[str, int]) -> Table:
    table = Table("partition", title="Members")
    for heading in ("after the first refresh", "after the second"):
        table.add_column(heading, justify="right")
    for name, members in second.items():
        table.add_row(name, f"{first.get(name, 0):,}", f"{members:,}")
    return table


async def _show_who_moved(client: httpx.AsyncClient, segment: str, first: dict[str, Any], console: Console) -> None:
    """Print what changed since the first refresh: one person's partition."""
    since = {"from": first["finished_at"]}
    found = (await client.get(f"/v1/segments/{segment}/changes", params=since)).raise_for_status().json()["data"]
    for each in found:
        console.print(f"{each['value']} {each['change']} from {each['was']['name']} to {each['now']['name']}")
