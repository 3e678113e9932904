"""What the tests of schedules and runs share: a segment in use with a schedule, and a clock that is moved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncssh
from tests.api.walk import SERVER

from ingestd.scheduler.ticks import tick

TODAY = datetime.now(UTC).date()

SEGMENT = {
    "name": "loyalty",
    "description": "Who is how loyal",
    "type": "SCD",
    "method": "upload",
    "upload_type": "scheduled",
}


def body(connection: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A daily schedule that begins today."""
    plain = {"frequency": "daily", "valid_from": str(TODAY), "valid_to": str(TODAY + timedelta(days=400))}
    return {"connection": connection["id"], "path": "demo_path"} | plain | changes


async def new_connection(tenant: Any, **changes: Any) -> dict[str, Any]:
    """A connection, by default to a server that is not there."""
    made = await tenant.http.post("/v1/connections", json={"name": "theirs"} | SERVER | changes)
    return made.raise_for_status().json()


async def new_segment(tenant: Any, **changes: Any) -> dict[str, Any]:
    """A segment that takes scheduled uploads, as a draft."""
    return (await tenant.http.post("/v1/segments", json=SEGMENT | changes)).raise_for_status().json()


async def put_schedule(tenant: Any, segment: dict[str, Any], schedule: dict[str, Any]) -> dict[str, Any]:
    """Give a segment a schedule."""
    saved = await tenant.http.put(f"/v1/segments/{segment['id']}/schedule", json=schedule)
    return saved.raise_for_status().json()


async def activate(tenant: Any, segment: dict[str, Any]) -> dict[str, Any]:
    """Put a segment into use."""
    return (await tenant.http.post(f"/v1/segments/{segment['id']}/activate")).raise_for_status().json()


@asynccontextmanager
async def scheduled(
    tenant: Any, connection: dict[str, Any], name: str = "loyalty", **changes: Any
) -> AsyncIterator[dict[str, Any]]:
    """A segment in use with a schedule, which is taken away in the end, so that no other test's clock finds it."""
    segment = await new_segment(tenant, name=name)
    await put_schedule(tenant, segment, body(connection, **changes))
    await activate(tenant, segment)
    try:
        yield segment
    finally:
        await tenant.http.delete(f"/v1/segments/{segment['id']}/schedule")


async def schedule_of(tenant: Any, segment: dict[str, Any]) -> dict[str, Any]:
    """A segment's schedule as it is shown."""
    return (await tenant.http.get(f"/v1/segments/{segment['id']}/schedule")).raise_for_status().json()


async def next_due(tenant: Any, segment: dict[str, Any]) -> datetime:
    """When a segment's schedule is due next."""
    return datetime.fromisoformat((await schedule_of(tenant, segment))["next_run_at"])


async def move_clock(tenant: Any, now: datetime) -> int:
    """Look at the clock as if it were another time; how many runs that starts, of whatever account."""
    return await tick(tenant.app.intake.sessions, tenant.app.intake.jobs, now)


async def runs_of(tenant: Any, segment: dict[str, Any], **filters: Any) -> list[dict[str, Any]]:
    """The runs of a segment, newest first."""
    page = await tenant.http.get("/v1/runs", params={"segment_id": segment["id"], "limit": 200} | filters)
    return page.raise_for_status().json()["data"]


async def ended(tenant: Any, run: dict[str, Any]) -> dict[str, Any]:
    """A run when it has ended; the test's time limit ends a wait in vain."""
    while True:
        shown = (await tenant.http.get(f"/v1/runs/{run['id']}")).raise_for_status().json()
        if shown["state"] == "ended":
            return shown
        await asyncio.sleep(0.02)


class Slow(asyncssh.SFTPServer):
    """An SFTP server that waits with every byte until it is let `go`; `asked` says that it has been asked for one."""

    go: asyncio.Event
    asked: asyncio.Event

    @classmethod
    def new(cls) -> type[Slow]:
        """One for a test of its own."""
        return type("Slow", (cls,), {"go": asyncio.Event(), "asked": asyncio.Event()})

    async def read(self, file_obj: object, offset: int, size: int) -> Any:
        self.asked.set()
        await self.go.wait()
        return super().read(file_obj, offset, size)
