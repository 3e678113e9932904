"""Stored values as they are shown (D55)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ingestd.domain.personal import MASK, is_sealed


def value(stored: Any) -> Any:
    """A stored value as it is shown: a date in RFC 3339, a sealed value as the mask."""
    if isinstance(stored, dict) and stored.keys() == {"$D"}:
        return moment(stored["$D"]).replace(tzinfo=None).isoformat() + "Z"
    if is_sealed(stored):
        return MASK
    if isinstance(stored, list):
        return [value(each) for each in stored]
    return stored


def moment(epoch: int) -> datetime:
    """A time that is stored in epoch seconds."""
    return datetime.fromtimestamp(epoch, UTC)
