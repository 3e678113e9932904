"""The outermost layer of the API: what every request is checked for, and what every answer carries, errors too."""

from __future__ import annotations

import re
import time
from typing import Final

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingestd import telemetry
from ingestd.api import problems
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.store.engine import new_id

REQUEST_ID: Final = "X-Request-Id"
DELIVERY: Final = "ingestd-delivery"
"""The header of our own webhooks: a request that has it is one of ours come back (T13)."""

HEADER_BYTES: Final = 16 * 1024
_SANE: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SECURITY: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-cache",
}
"""Set where the route has set none of its own."""

_log = telemetry.logger(__name__)


class Edge:
    """Gives each request its id, answers HEAD like GET, and sets the headers that all answers have.

    `request.state` then has `request_id`, and `head`: whether the body will be thrown away. What `leave` is set to is
    called when the answer has ended.
    """

    def __init__(self, api: ASGIApp) -> None:
        self.api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.api(scope, receive, send)
            return
        headers, began, status = Headers(scope=scope), time.perf_counter(), 0
        given = headers.get(REQUEST_ID, "")
        request_id = given if _SANE.fullmatch(given) else ids.show(Prefix.REQUEST, new_id())
        state = {"request_id": request_id, "head": scope["method"] == "HEAD"}
        scope = {**scope, "state": state, "method": "GET" if state["head"] else scope["method"]}

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _dress(MutableHeaders(scope=message), scope)
            await send(message)

        with telemetry.context(request=request_id):
            try:
                refused = _refuse(Request(scope), headers)
                await (refused or self.api)(scope, receive, sending)
            except Exception as error:  # of what is answered 500, the log has the reason already
                if not status:
                    raise
                if status < 500:
                    _log.exception("answer broken off", exc_info=error)
            finally:
                scope["state"].get("leave", _nothing)()
            _log.info("request", method=scope["method"], route=_route(scope), status=status, ms=_ms(began))


def _nothing() -> None:
    """Of who is not known nothing was counted."""


def _refuse(request: Request, headers: Headers) -> ASGIApp | None:
    if DELIVERY in headers:
        return problems.answer(request, "loop_detected", "A webhook of this service leads to this service.")
    if sum(len(name) + len(value) for name, value in headers.raw) > HEADER_BYTES:
        return problems.answer(request, "headers_too_large", f"The headers may have {HEADER_BYTES} bytes.")
    return None


def _dress(headers: MutableHeaders, scope: Scope) -> None:
    state = scope["state"]
    headers[REQUEST_ID] = state["request_id"]
    for name, value in _SECURITY.items():
        headers.setdefault(name, value)
    for name, value in state.get("rate_headers", {}).items():
        headers[name] = value


def _route(scope: Scope) -> str | None:
    """The route's path as it is declared: a real one may name a file."""
    return getattr(scope.get("route"), "path", None)


def _ms(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 1)
