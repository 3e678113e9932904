"""The HTTP application, put together from its resources."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from fastapi import FastAPI
from fastapi.responses import Response
from fastapi.telemetry import TelemetryConfig
from starlette.requests import Request
from starlette.types import ASGIApp

from ingestd import __version__
from ingestd.api import (
    account,
    api_keys,
    attributes,
    audit,
    choices,
    connections,
    data_source_schedules,
    data_sources,
    deliveries,
    dry_runs,
    events,
    files,
    filters,
    import_keys,
    ingestion_events,
    ingestions,
    macros,
    manifests,
    mappings,
    me,
    members,
    messages,
    partitions,
    previews,
    problems,
    profiles,
    recipients,
    reference,
    rejects,
    runs,
    schedules,
    schemas,
    segment_drafts,
    segment_history,
    segment_schedules,
    segments,
    source_people,
    system,
    uploads,
    visits,
    webhook_events,
    webhooks,
)
from ingestd.api.context import Parts
from ingestd.api.document import LICENSE, SERVERS, TAGS, describe
from ingestd.api.edge import Edge

_RESOURCES = (
    *(system, reference, me, account, api_keys, import_keys, recipients, messages, files, manifests, schemas),
    *(previews, attributes, macros, data_sources, mappings, source_people, connections, visits, schedules),
    *(segment_schedules, data_source_schedules, uploads),
    *(runs, ingestions, ingestion_events, rejects, dry_runs, profiles, events, filters, segments, segment_drafts),
    *(partitions, members, segment_history, webhooks, webhook_events, deliveries, choices, audit),
)

_TELEMETRY: Final[TelemetryConfig] = {
    "logs": False,
    "metrics": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""What FastAPI records of its own accord: a span for each request, and neither messages of exceptions nor values."""


def document() -> dict[str, Any]:
    """The OpenAPI document of the API, which needs no running service."""
    return routes().openapi()


def create_api(parts: Parts) -> ASGIApp:
    """The application over the given parts of the service."""
    api = routes()
    api.state.parts = parts
    return Edge(api)


def routes() -> FastAPI:
    """The application without the parts of a service and without its edge."""
    api = FastAPI(
        title="ingestd",
        version=__version__,
        summary="File ingestion for a customer data platform.",
        servers=SERVERS,
        license_info=LICENSE,
        openapi_tags=TAGS,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        telemetry=_TELEMETRY,
        redirect_slashes=False,  # a redirect would name the host that the caller claims (T58)
    )
    problems.install(api)
    for resource in _RESOURCES:
        api.router.routes += resource.router.routes  # to include a router would make all its routes a second time
    describe(api)
    _serve_document(api)
    return api


def _serve_document(api: FastAPI) -> None:
    """Give the OpenAPI document, made when it is first asked for: that takes a second, in which others are answered."""
    one, made = asyncio.Lock(), list[bytes]()

    def make() -> bytes:
        text = json.dumps(api.openapi(), ensure_ascii=False, separators=(",", ":"))
        api.openapi_schema = None  # the text is enough
        return text.encode()

    async def openapi(_: Request) -> Response:
        async with one:
            if not made:
                made.append(await asyncio.to_thread(make))
        return Response(made[0], media_type="application/json")

    api.add_route("/openapi.json", openapi, include_in_schema=False)
