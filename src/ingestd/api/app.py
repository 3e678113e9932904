"""The HTTP application, put together from its resources."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from ingestd import __version__
from ingestd.api import account, api_keys, import_keys, ingestions, problems, profiles, system, webhooks
from ingestd.api.context import Parts


def document() -> dict[str, Any]:
    """The OpenAPI document of the API, which needs no running service."""
    return _routes().openapi()


def create_api(parts: Parts) -> FastAPI:
    """The application over the given parts of the service."""
    api = _routes()
    api.state.parts = parts
    return api


def _routes() -> FastAPI:
    api = FastAPI(
        title="ingestd",
        version=__version__,
        summary="File ingestion for a customer data platform.",
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    problems.install(api)
    for resource in (system, account, api_keys, import_keys, ingestions, profiles, webhooks):
        api.include_router(resource.router)
    return api
