"""Problem documents (RFC 9457): the one place that knows which HTTP status an error has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ingestd.domain.errors import (
    Conflict,
    FileRefused,
    Forbidden,
    IngestdError,
    Invalid,
    NotFound,
    Unavailable,
)
from ingestd.telemetry import logger

_log = logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

_STATUS: Final[Mapping[type[IngestdError], int]] = {
    NotFound: 404,
    Conflict: 409,
    Invalid: 422,
    FileRefused: 422,
    Forbidden: 403,
    Unavailable: 503,
}

_TITLES: Final = {
    400: "Bad request",
    401: "Authentication needed",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    422: "Invalid request",
    429: "Too many requests",
    500: "Internal error",
    503: "Unavailable",
}

_CODES: Final = {
    400: "bad_request",
    401: "unauthenticated",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
}


class ProblemItem(BaseModel):
    """One thing wrong with a request, and where (a JSON pointer)."""

    pointer: str
    code: str
    detail: str


class ProblemDocument(BaseModel):
    """What every error answers (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[ProblemItem]


class Unauthenticated(HTTPException):
    """The request carries no key that is in force."""

    def __init__(self) -> None:
        super().__init__(
            401,
            "Send a valid API key: Authorization: Bearer isk_….",
            headers={"WWW-Authenticate": "Bearer"},
        )


def install(api: FastAPI) -> None:
    """Answer every error of the API with a problem document."""
    api.add_exception_handler(IngestdError, _of_error)
    api.add_exception_handler(HTTPException, _of_status)
    api.add_exception_handler(RequestValidationError, _of_validation)
    api.add_exception_handler(Exception, _of_fault)


def _answer(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    errors: list[ProblemItem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    document = ProblemDocument(
        type=f"urn:ingestd:problem:{code}",
        title=_TITLES.get(status, "Error"),
        status=status,
        detail=detail,
        instance=request.url.path,
        code=code,
        errors=errors or [],
    )
    return JSONResponse(document.model_dump(), status, headers=headers, media_type=MEDIA_TYPE)


async def _of_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, IngestdError)
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), None)
    if status is None:
        return await _of_fault(request, error)
    problems = error.problems if isinstance(error, Invalid) else ()
    items = [ProblemItem(pointer=p.pointer, code=p.code, detail=p.detail) for p in problems]
    return _answer(request, status, error.code, error.detail, errors=items)


async def _of_status(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "http_error")
    detail = error.detail if isinstance(error.detail, str) and error.detail else _TITLES.get(error.status_code, "Error")
    return _answer(request, error.status_code, code, detail, headers=error.headers)


async def _of_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    items = [_item(found) for found in error.errors()]
    unparseable = any(item.code == "json_invalid" for item in items)
    status, code = (400, "bad_request") if unparseable else (422, "invalid")
    return _answer(request, status, code, f"{len(items)} problem(s) in the request.", errors=items)


def _item(found: dict[str, Any]) -> ProblemItem:
    """Where and what, never the value that was sent: it may be personal."""
    place = [str(step).replace("~", "~0").replace("/", "~1") for step in found["loc"]]
    return ProblemItem(pointer="/" + "/".join(place), code=found["type"], detail=found["msg"])


async def _of_fault(request: Request, error: Exception) -> JSONResponse:
    _log.error("request failed", path=request.url.path, exc_info=error)
    return _answer(request, 500, "internal", "The service failed to answer. Try again; the log has the reason.")
