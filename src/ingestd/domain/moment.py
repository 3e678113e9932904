"""Moments in time as the API takes and shows them: RFC 3339, in UTC, never without a zone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A moment; what comes in without a zone is refused, what goes out ends in Z."""
