"""Uvicorn, run as a part of the service."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import uvicorn

from ingestd.app.protocol import Protocol
from ingestd.domain.errors import Unavailable

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
    part: str = "HTTP",
    stopping: asyncio.Event | None = None,
    protocol: type[Protocol] = Protocol,
    **options: Any,
) -> AsyncIterator[int]:
    """Serve an application on an address, or on a free port where it is 0; gives the port. `options` are uvicorn's.

    Unavailable, with the settings of the `part` to look at, where that address or a certificate cannot be used.
    `stopping` is set when the service goes down: uvicorn waits for streams that do not end by themselves.
    """
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
    try:
        config.load()  # reads the certificate; in the task its failure would be heard when the service stops
    except OSError as error:
        raise Unavailable(
            f"The certificate cannot be used ({error.strerror}). INGESTD_{part}__CERTIFICATE and "
            f"INGESTD_{part}__PRIVATE_KEY must be PEM files that we can read and that belong together.",
            code="certificate_unusable",
        ) from None
    try:
        listener = socket.create_server((host, port), reuse_port=False)
    except OSError as error:
        raise not_free(part, host, port, error) from None
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio sets it only where the protocol is named
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


def not_free(part: str, host: str, port: int, error: OSError) -> Unavailable:
    """What is said where an address cannot be listened on; `part` is that of the settings."""
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else "there is no such host"
    return Unavailable(
        f"{host}:{port} cannot be listened on ({reason}). If the service does not run already, set "
        f"INGESTD_{part}__PORT or INGESTD_{part}__HOST.",
        code="address_not_free",
    )
