"""Whether the service can work: each thing that it depends on, by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

from ingestd import telemetry
from ingestd.api.context import Check
from ingestd.blobs.store import BlobStore
from ingestd.store import schema
from ingestd.store.engine import Sessions, ping

PATIENCE: Final = 3.0
"""Seconds that a check may take."""

FRESH_SECONDS: Final = 1.0
"""How long an answer holds: anybody may ask as often as they like, and a check costs a connection and a file."""

log = telemetry.logger(__name__)


def of_ground(sessions: Sessions, blobs: BlobStore) -> dict[str, Check]:
    """The checks of what every role stands on."""

    async def database() -> bool:
        return await ping(sessions)

    async def migrations() -> bool:
        async with sessions() as session:
            return not await (await session.connection()).run_sync(schema.is_behind)

    async def blob_store() -> bool:
        await asyncio.to_thread(blobs.check)
        return True

    return {"database": database, "migrations": migrations, "blobs": blob_store}


def of_flag(holds: Callable[[], bool]) -> Check:
    """The check that asks nobody but this process."""

    async def answer() -> bool:
        return holds()

    return answer


def all_of(checks: Mapping[str, Check]) -> dict[str, Check]:
    """The same checks, none of which raises or hangs, or is made more than once in `FRESH_SECONDS`."""
    return {name: _fresh(_safe(name, check)) for name, check in checks.items()}


def _fresh(check: Check) -> Check:
    one, stale_at, last = asyncio.Lock(), 0.0, False

    async def answer() -> bool:
        nonlocal stale_at, last
        async with one:
            if time.monotonic() >= stale_at:
                last = await check()
                stale_at = time.monotonic() + FRESH_SECONDS
            return last

    return answer


def _safe(name: str, check: Check) -> Check:
    async def answer() -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                return await check()
        except Exception as fault:
            log.warning("check_failed", check=name, exc_info=fault)
            return False

    return answer
