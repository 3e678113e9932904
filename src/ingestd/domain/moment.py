"""Moments in time as the API takes and shows them: RFC 3339, in UTC, never without a zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

_RFC_3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d")


def _written(moment: Any) -> Any:
    """Refuse what pydantic would take for a moment beside RFC 3339, such as a number."""
    if not isinstance(moment, datetime) and not (isinstance(moment, str) and _RFC_3339.match(moment)):
        raise ValueError("is not a moment as RFC 3339 writes it, such as 2026-01-31T12:00:00Z")
    return moment


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is beyond the years 1 to 9999") from None


Moment = Annotated[AwareDatetime, BeforeValidator(_written), AfterValidator(_in_utc)]
"""A moment; what comes in without a zone is refused, what goes out ends in Z."""
