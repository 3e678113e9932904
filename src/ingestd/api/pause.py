"""Waiting between two looks, without a transaction, and no longer than the service lives."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    """Wait; shorter where the service goes down."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopping.wait()
