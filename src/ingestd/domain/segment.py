"""Segments: named groups of people, in partitions, refreshed by files (S1 to S16, S20 to S25, S38 to S45)."""

from __future__ import annotations

import unicodedata
from enum import StrEnum
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from ingestd.domain.column import MAX_NAME_LENGTH, is_one_line
from ingestd.domain.errors import Conflict
from ingestd.domain.identity import IdentifierKind
from ingestd.domain.plan import Format, Limits, Mode, Plan, Target

SEPARATOR: Final = "__"
"""What stands between the name of a segment or a data source and any suffix in the name of its files (S20, D2)."""

CHANNELS: Final = ["push", "email", "sms"]
"""Where what is sent to people by a segment or an attribute can go, and nowhere else (S141, D52)."""

MEMBER_KINDS: Final = {
    "user_id": IdentifierKind.IDENTITY,
    "mobile": IdentifierKind.MOBILE,
    "email": IdentifierKind.EMAIL,
    "external_id": IdentifierKind.EXTERNAL_ID,
}
"""What the first column of a segment file can hold, by its header in lower case with `_` for a space (S23, D4)."""

MAX_PARTITIONS: Final = 1000
"""Partitions of one segment; a file with more values than that has something else in its second column."""

MAX_NUMBER: Final = 2**15 - 1
"""Partitions that a segment has and had before, each of which keeps its number while somebody is known to be in it."""


class SegmentType(StrEnum):
    """Whether a segment keeps who was in it when, or only who is in it (S4 to S6)."""

    SCD = "SCD"
    NON_SCD = "Non-SCD"


class Method(StrEnum):
    """What decides who is in a segment (S3)."""

    UPLOAD = "upload"
    FILTER = "filter"
    """A condition over attributes (D41)."""


class UploadType(StrEnum):
    """Who brings the files of a segment: its schedule, or whoever uploads one (S2, S3)."""

    SCHEDULED = "scheduled"
    MANUAL = "manual"


class SegmentStatus(StrEnum):
    """Where a segment stands (S9, D32).

    draft → in_progress → active ↔ inactive; an edit that needs new members leads back to in_progress (S44). Only an
    active one is there for services that use segments (S13, S15).
    """

    DRAFT = "draft"
    IN_PROGRESS = "in_progress"
    ACTIVE = "active"
    INACTIVE = "inactive"

    def activated(self, *, waits: bool) -> SegmentStatus:
        """After *Create*: in progress while it waits for its members to be uploaded, else active (S11, S16, S44)."""
        return SegmentStatus.IN_PROGRESS if waits else SegmentStatus.ACTIVE

    def deactivated(self) -> SegmentStatus:
        """Out of use, from any status but inactive (S12, S14)."""
        if self is SegmentStatus.INACTIVE:
            raise Conflict("The segment is inactive already.", code="segment_inactive")
        return SegmentStatus.INACTIVE

    def refreshed(self) -> SegmentStatus:
        """After a refresh: what waited for one is active now (S44)."""
        return SegmentStatus.ACTIVE if self is SegmentStatus.IN_PROGRESS else self

    @property
    def takes_files(self) -> bool:
        """Whether a file may refresh it now."""
        return self in {SegmentStatus.IN_PROGRESS, SegmentStatus.ACTIVE}


class PartitionEdit(BaseModel):
    """A change of one partition in a draft."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: UUID
    name: str | None = None
    disabled: bool | None = None


class Draft(BaseModel):
    """The edits of a segment that *Create* has not published yet; null: as it is (S11, S43)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    description: str | None = None
    upload_type: UploadType | None = None
    partitions: tuple[PartitionEdit, ...] = ()


def segment_name_problem(name: str) -> str | None:
    """Say what is wrong with a segment's name, or None: it must be told from the suffix in a file's name (D57)."""
    if unicodedata.normalize("NFC", name) != name:
        return "is not in the normal form NFC"
    if SEPARATOR in name or name.endswith("_"):
        return "holds __ or ends in _, which separates the name from the suffix in the names of its files"
    if "/" in name:
        return "holds a /, which no file's name can hold"
    return None


def member_kind(header: str) -> IdentifierKind | None:
    """The kind of identifier that the first column of a segment file holds, by its header (S23, D4)."""
    return MEMBER_KINDS.get(unicodedata.normalize("NFC", header).casefold().replace(" ", "_"))


def partition_problem(value: str) -> str | None:
    """Say what is wrong with a partition's value or name, or None."""
    if not value or value != value.strip():
        return "is blank, or begins or ends with a space"
    if len(value) > MAX_NAME_LENGTH:
        return f"is longer than {MAX_NAME_LENGTH} characters"
    return None if is_one_line(value) else "holds a control character"


def segment_plan(limits: Limits, *, hold_above: float) -> Plan:
    """How a file of a segment is read: it gives all members, and who is not in it leaves.

    A refresh that removes more than the share `hold_above` of the members waits to be confirmed.
    """
    return Plan(format=Format.CSV, target=Target.SEGMENT, mode=Mode.REPLACE, limits=limits, hold_above=hold_above)
