"""The operator's own port: metrics, and the health of processes that serve no API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi import FastAPI, Response
from starlette.types import ASGIApp

from ingestd.api import problems, system
from ingestd.api.context import Parts
from ingestd.api.edge import Edge


def create_operations(parts: Parts, exposition: Callable[[], tuple[bytes, str]]) -> ASGIApp:
    """The application of that port; `exposition` gives the metrics and their media type, and may take a moment."""
    api = FastAPI(
        title="ingestd operations",
        telemetry={"tracing": False, "metrics": False, "logs": False},
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    api.state.parts = parts
    problems.install(api)

    @api.get("/metrics")
    async def metrics() -> Response:
        text, media_type = await asyncio.to_thread(exposition)
        return Response(text, media_type=media_type)

    api.include_router(system.router)
    return Edge(api)
