"""JSON Schemas of what is written by hand, open to everyone."""

from __future__ import annotations

from typing import Any, Final

from fastapi import Response
from fastapi.responses import JSONResponse

from ingestd.api.routes import Router
from ingestd.domain.manifest_schema import MANIFEST_SCHEMA

router = Router(prefix="/schemas", tags=["Manifests"])

_KIND: Final = "application/schema+json"
_ANSWER: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {_KIND: {"schema": {"type": "object"}}}}}


@router.get(
    "/manifest.json",
    operation_id="manifests_schema",
    summary="The JSON Schema of manifests",
    response_class=Response,
    responses=_ANSWER,
)
async def manifest() -> JSONResponse:
    """The form of a manifest as JSON Schema 2020-12, for editors and scripts."""
    return JSONResponse(MANIFEST_SCHEMA, media_type=_KIND)
