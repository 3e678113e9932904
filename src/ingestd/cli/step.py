"""The steps in which the master key is rotated."""

from __future__ import annotations

from enum import StrEnum


class Step(StrEnum):
    """A step of a rotation."""

    ADD = "add"
    SEAL = "seal"
    DROP = "drop"
