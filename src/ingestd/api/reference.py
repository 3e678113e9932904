"""The reference page at `/docs`: Swagger UI over the document, with nothing that comes from another server."""

from __future__ import annotations

from importlib import resources
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response

router = APIRouter(include_in_schema=False)

_CARRIED: Final = resources.files("fastapi_offline") / "static"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI's code and styles, pictures that its styles carry, and requests to this service."""

_PAGE: Final = """\
<!doctype html>
<html lang="en">
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>ingestd: the HTTP API</title>
  <link rel="icon" href="data:,">
  <link rel="stylesheet" href="docs/swagger-ui.css">
  <div id="reference"></div>
  <script src="docs/swagger-ui-bundle.js"></script>
  <script src="docs/start.js"></script>
</html>
"""
_START: Final = """\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  docExpansion: "none",
  defaultModelsExpandDepth: 1,
  filter: true,
  persistAuthorization: false,
  validatorUrl: null,
});
"""


@router.get("/docs")
async def page() -> Response:
    """The page; a key given to it is forgotten with it."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/start.js")
async def start() -> Response:
    """What starts Swagger UI, as a file of its own: the page's policy permits no scripts in it."""
    return Response(_START, media_type="text/javascript")


@router.get("/docs/swagger-ui-bundle.js")
async def script() -> Response:
    """Swagger UI's code."""
    return FileResponse(str(_CARRIED / "swagger-ui-bundle.js"), media_type="text/javascript")


@router.get("/docs/swagger-ui.css")
async def styles() -> Response:
    """Swagger UI's styles."""
    return FileResponse(str(_CARRIED / "swagger-ui.css"), media_type="text/css")
