"""Before anything goes, its answers say so: Deprecation (RFC 9745) and Sunset (RFC 8594).

@router.get("/old", deprecated=True, dependencies=[needs(…), deprecated(since=date(…), sunset=date(…))], …)
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from email.utils import format_datetime
from typing import Any

from fastapi import Depends, Response


def deprecated(*, since: date, sunset: date, successor: str | None = None) -> Any:
    """The dependency, for a route's decorator, that tells since when it is deprecated and when it ends.

    `successor` is the path to use instead.
    """
    headers = {
        "Deprecation": f"@{int(_midnight(since).timestamp())}",
        "Sunset": format_datetime(_midnight(sunset), usegmt=True),
    }
    if successor is not None:
        headers["Link"] = f'<{successor}>; rel="successor-version"'

    async def tell(response: Response) -> None:
        response.headers.update(headers)

    return Depends(tell)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
