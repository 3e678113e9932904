"""The life of an ingestion: statuses, stages and counts (S72 to S76, D30, D32)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict

from ingestd.domain.plan import Mode, Target


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
    HELD = "held"
    APPLYING = "applying"
    SEGMENTING = "segmenting"
    REPORTING = "reporting"
    DONE = "done"


BEFORE_APPLYING: Final = frozenset({Stage.QUEUED, Stage.CHECKING, Stage.HELD})
"""The stages in which nothing has been applied, so that an ingestion can still be cancelled."""


class Counts(BaseModel):
    """What became of a file: rows up to `blank`, people or events from `created` on (D45).

    `read` = `accepted` + `rejected` + `blank`. `erased` rows count as accepted and were skipped because of an
    erasure (T115). Of a segment's file `created` counts those who entered, `updated` who moved to another partition;
    `removed` left the segment, or were taken out of a data source by a replace (D16).
    """

    model_config = ConfigDict(frozen=True)

    read: int = 0
    accepted: int = 0
    rejected: int = 0
    blank: int = 0
    created: int = 0
    updated: int = 0
    removed: int = 0
    unchanged: int = 0
    merged: int = 0
    erased: int = 0


class FileView(BaseModel):
    """The file of an ingestion, as shown."""

    id: str
    name: str
    size_bytes: int
    sha256: str


class ManifestView(BaseModel):
    """The manifest of an ingestion, as shown."""

    id: str
    name: str


class DataSourceView(BaseModel):
    """The data source that a file was uploaded for, as shown."""

    id: str
    name: str


class HeldView(BaseModel):
    """Why an ingestion waits to be confirmed: so many of those who are in its data source or segment would leave."""

    leaving: int
    of: int


class SegmentView(BaseModel):
    """The segment that a file refreshes, as shown."""

    id: str
    name: str


class ActorView(BaseModel):
    """Who uploaded a file, as shown."""

    type: str
    id: str | None
    name: str | None


class ProblemView(BaseModel):
    """One problem of a manifest: where (a JSON pointer), a stable code, a sentence."""

    pointer: str
    code: str
    detail: str


class ErrorView(BaseModel):
    """Why an ingestion failed: the sentence of the documents, what exactly was wrong, and what to do (S119 to S123)."""

    code: str
    message: str
    detail: str
    remedy: str
    problems: list[ProblemView]


class Progress(BaseModel):
    """How far an ingestion is; rows and bytes are of the stage that reads the file."""

    percent: float
    bytes_read: int
    rows_read: int
    rows_per_second: int
    eta_seconds: int | None


class ErrorFileView(BaseModel):
    """The error file of an ingestion: its size in bytes and its number of rows."""

    size_bytes: int
    rows: int


class IngestionView(BaseModel):
    """An ingestion as the API and the webhooks show it; its id is the Request ID (S70). Never personal data.

    `manifest` is null where the name of a manifest had been used before, and `manifest_name` is that name.
    """

    id: str
    channel: Channel
    target: Target | None
    status: Status
    stage: Stage
    file: FileView | None
    manifest: ManifestView | None
    manifest_name: str | None
    data_source: DataSourceView | None
    segment: SegmentView | None
    mode: Mode
    dry_run: bool
    held: HeldView | None
    uploaded_by: ActorView
    progress: Progress
    counts: Counts
    error: ErrorView | None
    error_file: ErrorFileView | None
    warnings: list[str]
    retry_of: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


NO_PROGRESS: Final = Progress(percent=0, bytes_read=0, rows_read=0, rows_per_second=0, eta_seconds=None)


def progress_after_reading(percent: float, counts: Counts, size_bytes: int, seconds: float) -> Progress:
    """How far an ingestion is whose file was read to its end, so many seconds after it began."""
    return Progress(
        percent=percent,
        bytes_read=size_bytes if counts.read else 0,
        rows_read=counts.read,
        rows_per_second=round(counts.read / max(seconds, 0.001)),
        eta_seconds=0 if percent == 100 else None,
    )


def outcome(counts: Counts) -> Status:
    """The status of a file that was walked to its end: failed only if it had rows and none was applied (D30, S76)."""
    return Status.FAILED if counts.rejected and not counts.accepted else Status.COMPLETED
