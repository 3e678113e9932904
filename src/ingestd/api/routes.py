"""The route and the router of the API: what holds for every operation, done here once.

A resource makes its router with `Router(prefix=…, tags=[…])` and declares its routes as usual. Each route then

- asks who is calling before it reads anything else: a body costs more than to refuse a stranger;
- refuses a query parameter that it does not know, or knows once and is given twice;
- takes at most 1 MiB of JSON, nested at most 32 deep, as it arrives; `@takes(limit=…, kinds=…)` on the function says
  otherwise, and `limit=None` leaves the counting to a function that streams;
- refuses any other Content-Type, and any Content-Encoding;
- keeps the answer to an idempotent POST in the transaction of its effect (`idempotency`);
- gives its answer an ETag, and a 304 where the caller has it (`etags`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from ingestd.api import etags, idempotency
from ingestd.api.context import authenticate
from ingestd.api.problems import Refused
from ingestd.api.strict import StrictRequest
from ingestd.domain.errors import Invalid, Problem

MIB: Final = 1024 * 1024
_JSON: Final = ("application/json", "application/merge-patch+json")

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Body:
    """What a route takes: at most `limit` bytes (None: it counts itself), of these media types (empty: any)."""

    limit: int | None = MIB
    kinds: tuple[str, ...] = _JSON


def takes(*, limit: int | None, kinds: tuple[str, ...]) -> Callable[[Endpoint], Endpoint]:
    """Decorate a route's function that takes another body than 1 MiB of JSON."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.__dict__["takes"] = Body(limit, kinds)
        return endpoint

    return mark


class Route(APIRoute):
    """A route that keeps the conventions."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's handling of a request, between our checks and what we add to the answer."""
        handle = super().get_route_handler()
        body: Body = getattr(self.endpoint, "takes", Body())
        known, open_to_all = _queries(self.dependant), not _asks_who(self.dependant)

        async def checked(request: Request) -> Response:
            if not open_to_all:
                await authenticate(request, None, request.headers.get("account-id"))
            request = StrictRequest(request.scope, request.receive, limit=body.limit)
            _check_query(request, known)
            _check_body(request, body)
            try:
                response = await handle(request)
            except idempotency.Replayed as replayed:
                return replayed.response
            await idempotency.keep(request, response)
            return etags.conditional(request, response)

        return checked


class Router(APIRouter):
    """A router whose routes keep the conventions."""

    def __init__(self, **options: Any) -> None:
        # Any other answer, told of so, keeps FastAPI's own form of 422 out of the document.
        super().__init__(route_class=Route, responses={"default": {"description": "A problem."}}, **options)


def _queries(dependant: Dependant) -> dict[str, bool]:
    """The query parameters that a route knows, and whether each may be given more than once."""
    found = {field.alias: "list" in str(field.field_info.annotation) for field in dependant.query_params}
    for each in dependant.dependencies:
        found |= _queries(each)
    return found


def _asks_who(dependant: Dependant) -> bool:
    """Whether a route, by whatever it is given, wants to know who is calling."""
    return dependant.call is authenticate or any(map(_asks_who, dependant.dependencies))


def _check_query(request: Request, known: dict[str, bool]) -> None:
    problems = []
    for name in request.query_params:
        values = request.query_params.getlist(name)
        if name not in known:
            problems.append(Problem(f"/query/{name}", "parameter_unknown", "There is no such parameter."))
        elif len(values) > 1 and not known[name]:
            problems.append(Problem(f"/query/{name}", "given_twice", "The parameter may be given once."))
        elif any("\0" in value for value in values):
            problems.append(Problem(f"/query/{name}", "characters", "The parameter holds a NUL."))
    if problems:
        raise Invalid("The query does not fit.", problems=tuple(problems))


def _check_body(request: Request, body: Body) -> None:
    headers = request.headers
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused("unsupported_media_type", "Send the body as it is, without Content-Encoding.")
    empty = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not empty and body.kinds and kind not in body.kinds:
        raise Refused("unsupported_media_type", f"Send the body as {' or '.join(body.kinds)}.")
