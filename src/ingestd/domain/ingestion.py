"""The life of an ingestion: statuses, stages and counts (S72 to S76, D30, D32)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict


class Channel(StrEnum):
    """The door an ingestion came through."""

    SFTP = "sftp"
    SCHEDULE = "schedule"
    UPLOAD = "upload"


class Status(StrEnum):
    """Where an ingestion stands, for the world (S72)."""

    SCHEDULED = "scheduled"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing can follow."""
        return self in TERMINAL


TERMINAL: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


class Stage(StrEnum):
    """What is being done to an ingestion right now."""

    QUEUED = "queued"
    CHECKING = "checking"
    RESOLVING = "resolving"
    HELD = "held"
    APPLYING = "applying"
    SEGMENTING = "segmenting"
    REPORTING = "reporting"
    DONE = "done"


class Counts(BaseModel):
    """What became of a file: rows up to `blank`, people or events from `created` on (D45).

    `read` = `accepted` + `rejected` + `blank`. `erased` rows count as accepted and were skipped because of an
    erasure (T115).
    """

    model_config = ConfigDict(frozen=True)

    read: int = 0
    accepted: int = 0
    rejected: int = 0
    blank: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    merged: int = 0
    erased: int = 0


def outcome(counts: Counts) -> Status:
    """The status of a file that was walked to its end: failed only if it had rows and none was applied (D30, S76)."""
    return Status.FAILED if counts.rejected and not counts.accepted else Status.COMPLETED
