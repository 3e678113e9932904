"""Runs: what became of each time that a file was to be fetched, the execution log (S46, S47, D32)."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Final

from pydantic import BaseModel

from ingestd.domain.ingestion import Counts, ErrorView, Status
from ingestd.domain.moment import Moment
from ingestd.domain.rejection import NO_DATA_FILE


class RunState(StrEnum):
    """Where a run stands; `held` waits for somebody to confirm what it would remove."""

    QUEUED = "queued"
    FETCHING = "fetching"
    INGESTING = "ingesting"
    HELD = "held"
    ENDED = "ended"


class Result(StrEnum):
    """How a run ended, in a word."""

    INGESTED = "ingested"
    UNCHANGED = "unchanged"
    NO_FILE = "no_file"
    FAILED = "failed"
    CANCELLED = "cancelled"
    MISSED = "missed"

    @property
    def outcome(self) -> Outcome:
        """Whether that is a success: green or red (S47)."""
        return Outcome.SUCCEEDED if self in SUCCESSES else Outcome.FAILED


class Outcome(StrEnum):
    """The green and the red of the execution log (D32)."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"


SUCCESSES: Final = frozenset({Result.INGESTED, Result.UNCHANGED})

RESULT_OF: Final = {
    Status.COMPLETED: Result.INGESTED,
    Status.FAILED: Result.FAILED,
    Status.CANCELLED: Result.CANCELLED,
}
"""How a run ends whose ingestion ends."""


NO_FILE: Final = "no_file"
"""The code of a failure to find a file."""

FINAL: Final = frozenset(
    {
        "certificate_untrusted",
        "file_too_large",
        "host_key_changed",
        "host_key_unknown",
        "listing_limit",
        "login_refused",
        "path_not_found",
        "permission_denied",
    }
)
"""The codes of failures that another attempt would not mend; a login that is refused again and again may be locked."""

_TOO_LARGE: Final = ("The file is larger than such a file may be", "Split the file, or have the limit raised.")

RUN_REASONS: Final = {
    "fetch_failed": (
        "The file could not be fetched",
        "Test the connection: it says step by step what does not work. Then run the schedule at once, or wait.",
    ),
    NO_FILE: (
        NO_DATA_FILE,
        "Put a file whose name fits into the folder of the schedule; ask the connection which file would be picked.",
    ),
    "host_key_changed": (
        "The server showed another key than the one it is known by",
        "Ask who runs the server. If the new key is right, pin it at the connection and resume the schedule.",
    ),
    "segment_inactive": (
        "There is nothing to refresh any more",
        "Activate it again, or take its schedule away.",
    ),
    "mapping_missing": (
        "The data source has no mapping yet",
        "Write one; then run the schedule at once, or wait.",
    ),
    "file_too_large": _TOO_LARGE,
    "too_large": _TOO_LARGE,
    "quota_exceeded": (
        "The account has no room for the file",
        "Remove files that wait for a manifest, or have the quota raised; then run the schedule at once, or wait.",
    ),
    "run_missed": (
        "The run was missed",
        "Nothing is to be done: the run of the newest slot takes what there is.",
    ),
}
"""Why a run failed without an ingestion: the sentence and the remedy for a code; the first stands for all others."""


class FetchedView(BaseModel):
    """The file that a run took, as it lay on the other server."""

    name: str
    size_bytes: int
    modified_at: Moment


class RunIngestionView(BaseModel):
    """What a run's file became."""

    id: str
    status: Status


class RunView(BaseModel):
    """A run as the API and the webhooks show it; never personal data.

    `slot` is the day it was due by its schedule, null where somebody asked for it. `why` says which file was picked,
    and why. `data_as_of` is when that file was last changed (D53).
    """

    id: str
    segment: str | None
    data_source: str | None
    slot: date | None
    due_at: Moment
    state: RunState
    outcome: Outcome | None
    result: Result | None
    file: FetchedView | None
    why: str | None
    data_as_of: Moment | None
    ingestion: RunIngestionView | None
    counts: Counts | None
    error: ErrorView | None
    attempts: int
    duration_seconds: float | None
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
