"""Uvicorn, run as a part of the service."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import uvicorn

from ingestd.app.protocol import Protocol

STOP_SECONDS: Final = 5
"""How long answers that are on their way may take when the service stops; then they are cut off."""


class _HttpServer(uvicorn.Server):
    """Uvicorn, which leaves the signals to the service."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@asynccontextmanager
async def serving(
    api: Any,
    host: str,
    port: int,
    *,
    stopping: asyncio.Event | None = None,
    protocol: type[Protocol] = Protocol,
    **options: Any,
) -> AsyncIterator[int]:
    """Serve an application on an address, or on a free port where it is 0; gives the port. `options` are uvicorn's.

    `stopping` is set when the service goes down: uvicorn waits for streams that do not end by themselves.
    """
    listener = socket.create_server((host, port), reuse_port=False)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio sets it only where the protocol is named
    config = uvicorn.Config(
        api,
        http=protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=STOP_SECONDS,
        **options,
    )
    server = _HttpServer(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not running.done():  # noqa: ASYNC110 -- uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield int(listener.getsockname()[1])
    finally:
        if stopping is not None:
            stopping.set()
        server.should_exit = True
        await running
