"""The Plan: all that checking and applying need to know about a file before they see it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict

from ingestd.domain.column import DataType

MIB: Final = 1024 * 1024

RESTRICTED_EVENTS: Final = (
    "App Launched", "App Installed", "App Uninstalled", "Session Started", "Session Concluded", "UTM Visited",
    "Notification Sent", "Notification Viewed", "Notification Clicked", "Push Impressions", "Reply Sent",
    "Channel Unsubscribed", "Geocluster Entered", "Geocluster Exited", "Profile Updated",
)  # fmt: skip
"""The default list of system events that a file may not write (D36)."""


class Format(StrEnum):
    """How the bytes of a file are cut into cells (D10)."""

    CSV = "csv"
    TSV = "tsv"

    @property
    def delimiter(self) -> str:
        """The one character between two cells."""
        return "," if self is Format.CSV else "\t"


class Target(StrEnum):
    """What the rows of a file become."""

    PROFILES = "profiles"
    EVENTS = "events"
    SEGMENT = "segment"


class Mode(StrEnum):
    """Whether a file adds to what is there or takes its place (S66)."""

    APPEND = "append"
    REPLACE = "replace"


class Limits(BaseModel):
    """What a file may hold, in bytes unless the name says otherwise (D10, D44, D47)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file_bytes: int = 5 * 1024 * MIB
    header_bytes: int = MIB
    columns: int = 2000
    line_bytes: int = MIB
    cell_bytes: int = 64 * 1024
    open_quote_lines: int = 100
    open_quote_bytes: int = 64 * 1024
    first_line_bytes: int = 16 * MIB


class ColumnRule(BaseModel):
    """What a manifest or a mapping says about one column: the target's name (default: the header) and the type.

    `kind` is that of the identifier which a mapped column holds: `IdentifierKind`, or an attribute's own (D54).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    type: DataType = DataType.STRING
    kind: int | None = None


class Plan(BaseModel):
    """How to read, check and apply one file; frozen on the ingestion when it is submitted.

    `columns` maps a header (NFC) to its rule; a header without one keeps its own name (S114). In a `mapped` file, a
    data source's, only the columns that have a rule are read, and header and cells are held to S53 and S54. A refresh
    that would remove more than the share `hold_above` of a segment's or data source's members is held; null once it was
    confirmed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format
    target: Target
    mode: Mode = Mode.APPEND
    columns: dict[str, ColumnRule] = {}
    mapped: bool = False
    limits: Limits = Limits()
    restricted_events: tuple[str, ...] = RESTRICTED_EVENTS
    hold_above: float | None = None


def exceeds(hold_above: float | None, leaving: int, members: int) -> bool:
    """Whether so many of the members would leave that somebody has to confirm it first (D16)."""
    return hold_above is not None and leaving > hold_above * members
