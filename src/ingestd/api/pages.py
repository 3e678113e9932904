"""Lists: pages by signed cursor (T57).

A list's route names its orders, and hands the cut on to the store, which applies it with `cut.of(statement)`:

    class ThingPage(Page[ThingOut]): …

    @router.get("", dependencies=[needs(Scope.ACCOUNT_READ)], …)
    async def list_all(
        tx: Reading, caller: Caller, asked: Annotated[Asked, Depends(listing(things.SORTS, "-created_at"))]
    ) -> ThingPage:
        return asked.page(ThingPage, await things.page(tx, caller.account_id, asked.cut), shown)

Filters are flat query parameters of the route. A cursor fits the list, order and filters it was made for, and no other
account's.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, TypeVar
from urllib.parse import urlencode

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field

from ingestd.api.context import Caller, Service
from ingestd.api.problems import Refused
from ingestd.keyring import AccountKeys
from ingestd.store.page import Cut, Sorts

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200
_MAC_BYTES: Final = 16

Out = TypeVar("Out")
Row = TypeVar("Row")
P = TypeVar("P", bound="Page[Any]")


class Page(BaseModel, Generic[Out]):
    """Some of a list."""

    data: list[Out]
    next_cursor: str | None = Field(description="The cursor of the next page, or null where this is the last.")


@dataclass(frozen=True)
class Asked:
    """The page that was asked for."""

    cut: Cut
    _request: Request
    _response: Response
    _keys: AccountKeys
    _purpose: bytes

    def page(
        self,
        model: type[P],
        rows: Sequence[Row],
        shown: Callable[[Row], Any],
        *,
        keyed: Callable[[Row], Any] | None = None,
        **more: Any,
    ) -> P:
        """The page of the rows that the cut found.

        `keyed` gives of a row the entity that has the cut's columns; `more` are what the model has beside its rows.
        """
        cursor = None
        if len(rows) > self.cut.limit:
            last = rows[self.cut.limit - 1]
            cursor = self._sign(self.cut.position(keyed(last) if keyed else last))
            query = [(name, value) for name, value in self._request.query_params.multi_items() if name != "cursor"]
            target = f"{self._request.url.path}?{urlencode([*query, ('cursor', cursor)])}"
            self._response.headers["Link"] = f'<{target}>; rel="next"'
        return model(data=[shown(row) for row in rows[: self.cut.limit]], next_cursor=cursor, **more)

    def _sign(self, position: list[Any]) -> str:
        text = json.dumps(position, separators=(",", ":")).encode()
        mac = self._keys.mac("cursors", self._purpose + text)[:_MAC_BYTES]
        return base64.urlsafe_b64encode(mac + text).decode().rstrip("=")


def listing(sorts: Sorts, default: str, *, both_ways: bool = True) -> Callable[..., Any]:
    """The dependency that reads `limit`, `sort` and `cursor`; `sorts` are the orders, `-` before one turns it round."""
    names = [sign + name for name in sorts for sign in (("", "-") if both_ways else ("",))]
    order = Query(
        default,
        description="The order; `-` puts the last first.",
        pattern=f"^({'|'.join(names)})$",
        json_schema_extra={"enum": names},
    )

    async def asked(  # noqa: PLR0913 -- what FastAPI is to fill in
        *,
        request: Request,
        response: Response,
        service: Service,
        caller: Caller,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items on a page, at most.")] = DEFAULT_LIMIT,
        sort: str = order,
        cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.", max_length=2000)] = None,
    ) -> Asked:
        keys = await service.intake.keys(caller.account_id)
        purpose = _purpose(request, sort)
        columns = sorts[sort.removeprefix("-")]
        after = None if cursor is None else _read(cursor, keys, purpose)
        return Asked(Cut(columns, sort.startswith("-"), after, limit), request, response, keys, purpose)

    return asked


def _purpose(request: Request, sort: str) -> bytes:
    """What a cursor is good for: this list in this order with these filters."""
    items = request.query_params.multi_items()
    filters = sorted((name, value) for name, value in items if name not in {"cursor", "limit", "sort"})
    return json.dumps([request.url.path, sort, filters]).encode()


def _read(cursor: str, keys: AccountKeys, purpose: bytes) -> tuple[Any, ...]:
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Refused("cursor_invalid") from None
    mac, text = packed[:_MAC_BYTES], packed[_MAC_BYTES:]
    if not hmac.compare_digest(mac, keys.mac("cursors", purpose + text)[:_MAC_BYTES]):
        raise Refused("cursor_invalid")
    return tuple(json.loads(text))
