"""How commands end, beside 0 (done), 1 (it could not be done; stderr says why) and 2 (called wrongly)."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What became of a file."""

    ALL_ACCEPTED = 0
    SOME_REJECTED = 3
    REFUSED = 4
