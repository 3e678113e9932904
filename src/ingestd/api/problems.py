"""Problem documents (RFC 9457): every error of the API becomes one here, with the status its code has in the catalogue.

A route raises the errors of `domain.errors`, whose `code` is a key of `catalogue.CATALOGUE`; what only HTTP knows
(401, 412, 415 …) is a `Refused`. `GET /problems` shows the catalogue.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ingestd.api.catalogue import CATALOGUE, Entry
from ingestd.api.ids import NO_ID
from ingestd.domain.errors import (
    Conflict,
    FileRefused,
    Forbidden,
    IngestdError,
    Invalid,
    NotFound,
    Unavailable,
)
from ingestd.store.engine import is_transient
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
"""For a code that the catalogue does not have, since no route leads to it."""

_CODES: Final = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}
"""The codes of what the framework refuses by itself."""

_NO_OBJECT: Final = {"dict_type", "model_type", "model_attributes_type"}
"""What the validation library calls a value that is no JSON object."""

_MEMBER: Final = re.compile(r"<[\w.]+: ('[^']*')>")
"""How it shows a word of an enumeration that stands alone."""


class ProblemItem(BaseModel):
    """One thing wrong with a request, and where: a JSON pointer that begins with body, query, path or header.

    Of a draft that is submitted, which is in no request, it leads into what the draft says.
    """

    pointer: str
    code: str
    detail: str


class ProblemDocument(BaseModel):
    """What went wrong, as RFC 9457 has it; `code` is stable, and `GET /problems` says more about it."""

    type: str = Field(examples=["urn:ingestd:problem:not_found"])
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path of the request.")
    code: str
    errors: list[ProblemItem]
    request_id: str = Field(description="The request's id, as in X-Request-Id and in the service's log.")


class Refused(HTTPException):
    """A request that HTTP's own rules refuse: its code is one of the catalogue, which knows the status."""

    def __init__(self, code: str, detail: str | None = None, *, headers: Mapping[str, str] | None = None) -> None:
        entry = CATALOGUE[code]
        super().__init__(entry.status, detail or entry.cause, headers=headers)
        self.code = code


@contextmanager
def placed(at: str, *, not_at: str = "") -> Iterator[None]:
    """Let the pointers of what is refused meanwhile begin where it stands in the request, `not_at` another place."""
    try:
        yield
    except Invalid as refusal:
        refusal.problems = tuple(
            replace(each, pointer=at + each.pointer.removeprefix(not_at)) for each in refusal.problems
        )
        raise


def install(api: FastAPI) -> None:
    """Answer every error of the API with a problem document."""
    api.add_exception_handler(IngestdError, _of_error)
    api.add_exception_handler(HTTPException, _of_status)
    api.add_exception_handler(RequestValidationError, _of_validation)
    api.add_exception_handler(ClientDisconnect, _of_absence)
    api.add_exception_handler(Exception, _of_fault)


def answer(
    request: Request,
    code: str,
    detail: str,
    *,
    status: int | None = None,
    errors: list[ProblemItem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The problem document of a code; `status` is for a code that the catalogue does not have."""
    kind = CATALOGUE.get(code) or Entry(status or 500, HTTPStatus(status or 500).phrase, detail, "")
    document = ProblemDocument(
        type=urn(code),
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance=request.url.path,
        code=code,
        errors=errors or [],
        request_id=request.state.request_id,
    )
    return JSONResponse(document.model_dump(), kind.status, headers=headers, media_type=MEDIA_TYPE)


def urn(code: str) -> str:
    """The type of a problem."""
    return f"urn:ingestd:problem:{code}"


async def _of_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, IngestdError)
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), None)
    if status is None:
        return await _of_fault(request, error)
    problems = error.problems if isinstance(error, Invalid) else ()
    items = [ProblemItem(pointer=p.pointer, code=p.code, detail=p.detail) for p in problems]
    return answer(request, error.code, error.detail, status=status, errors=items)


async def _of_status(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error, Refused):
        return answer(request, error.code, error.detail, headers=error.headers)
    status, headers, detail = error.status_code, dict(error.headers or {}), error.detail
    if status == 404:
        detail = "There is nothing at this path."
    if status == 405:
        headers["Allow"] = ", ".join(_methods(request))
        detail = f"This path takes {headers['Allow']}."
    return answer(request, _CODES.get(status, "bad_request"), detail, status=status, headers=headers)


def _methods(request: Request) -> list[str]:
    """The methods of all routes at the request's path: each route knows only its own."""
    found = {
        method
        for route in iter_route_contexts(request.app.routes)
        if route.path_regex.match(request.url.path)
        for method in route.methods or ()
    }
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


async def _of_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if any(each["type"] == NO_ID and each["loc"][0] == "path" for each in error.errors()):
        return answer(request, "not_found", "There is no such thing.")
    found = [_item(each, error.body) for each in error.errors()]
    items = list({(item.pointer, item.code): item for item in found}.values())  # a body that is read twice fails twice
    code = "bad_request" if any(item.code == "json_invalid" for item in items) else "invalid"
    return answer(request, code, f"{len(items)} problem(s) in the request.", errors=items)


def _item(found: dict[str, Any], body: Any) -> ProblemItem:
    """Where and what, never the value that was sent: it may be personal."""
    kind = found["type"]
    steps = _in_body(found["loc"], body, missing=kind == "missing")
    place = [str(step).replace("~", "~0").replace("/", "~1") for step in steps]
    detail = "must be a JSON object" if kind in _NO_OBJECT else found["msg"].removeprefix("Value error, ")
    detail = _MEMBER.sub(r"\1", detail)
    return ProblemItem(pointer="/" + "/".join(place), code=kind, detail=detail[:1].upper() + detail[1:])


def _in_body(place: tuple[Any, ...], body: Any, *, missing: bool) -> list[Any]:
    """The steps that lead through the body: between them stand names of models, which the caller does not know."""
    if place[0] != "body" or not isinstance(body, dict | list):
        return list(place)
    steps = ["body"]
    for number, step in enumerate(place[1:], 2):
        has = step in body if isinstance(body, dict) else isinstance(body, list) and step in range(len(body))
        if has:
            body = body[step]
        if has or (missing and number == len(place)):
            steps.append(step)
    return steps


async def _of_absence(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001 -- a handler's arguments
    return answer(request, "bad_request", "The caller hung up.")


async def _of_fault(request: Request, error: Exception) -> JSONResponse:
    route = getattr(request.scope.get("route"), "path", None)  # as it is declared: a real path may name a file
    if is_transient(error):
        _log.warning("database failed", route=route, exc_info=error)
        again = {"Retry-After": "1"}
        return answer(request, "unavailable", "The database does not answer. Send the request again.", headers=again)
    _log.error("request failed", route=route, exc_info=error)
    return answer(request, "internal", "The service failed to answer. Try again; the log has the reason.")
