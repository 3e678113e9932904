"""Notices: what the world is told, and the milestones they are told at (S129 to S136)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Literal

from pydantic import BaseModel

from ingestd.domain.ingestion import ActorView, FileView, IngestionView
from ingestd.domain.moment import Moment
from ingestd.domain.recipient import Milestone
from ingestd.domain.segment import SegmentStatus

FEW: Final = 10

MAX_WEBHOOKS: Final = 100
"""Webhooks of an account: a notice is written for each that wants it, and a claim of deliveries asks them all (T14)."""


class NoticeType(StrEnum):
    """The type of a webhook event; the first seven follow an ingestion."""

    INGESTION_SCHEDULED = "ingestion.scheduled"
    INGESTION_PICKED_UP = "ingestion.picked_up"
    INGESTION_DELAYED = "ingestion.delayed"
    INGESTION_COMPLETED = "ingestion.completed"
    INGESTION_FAILED = "ingestion.failed"
    INGESTION_CANCELLED = "ingestion.cancelled"
    INGESTION_HELD = "ingestion.held"
    FILE_RECEIVED = "file.received"
    SEGMENT_CREATED = "segment.created"
    SEGMENT_ACTIVATED = "segment.activated"
    SEGMENT_DEACTIVATED = "segment.deactivated"
    SEGMENT_REFRESHED = "segment.refreshed"
    RUN_SUCCEEDED = "run.succeeded"
    RUN_FAILED = "run.failed"
    CONNECTION_HOST_KEY_CHANGED = "connection.host_key_changed"
    WEBHOOK_DISABLED = "webhook.disabled"
    WEBHOOK_TEST = "webhook.test"
    RECIPIENT_INVITED = "recipient.invited"


MILESTONES: Final = {
    NoticeType.INGESTION_SCHEDULED: Milestone.SCHEDULED,
    NoticeType.INGESTION_PICKED_UP: Milestone.PICKED_UP,
    NoticeType.INGESTION_DELAYED: Milestone.DELAYED,
    NoticeType.INGESTION_COMPLETED: Milestone.COMPLETED,
    NoticeType.INGESTION_FAILED: Milestone.FAILED,
    NoticeType.INGESTION_HELD: Milestone.ATTENTION,
    NoticeType.RUN_FAILED: Milestone.FAILED,
    NoticeType.CONNECTION_HOST_KEY_CHANGED: Milestone.ATTENTION,
    NoticeType.WEBHOOK_DISABLED: Milestone.ATTENTION,
}
"""What is mailed too; a recipient is told of the milestones that they have."""


class ReceivedFile(FileView):
    """A file that has come whole, and by whom."""

    uploaded_by: ActorView
    received_at: Moment


class DisabledWebhook(BaseModel):
    """A webhook to which nothing is sent any more: it was gone, or took nothing for five days."""

    id: str
    name: str
    disabled_reason: Literal["gone", "failing"]
    failing_since: Moment | None


class ToldSegment(BaseModel):
    """A segment in few words; the rest is to be had by its id."""

    id: str
    name: str
    status: SegmentStatus
    members: int
    refreshed_at: Moment | None


def few(warnings: Sequence[str]) -> tuple[str, ...]:
    """The first warnings of one kind, and how many more there are."""
    rest = len(warnings) - FEW
    return (*warnings[:FEW], *([f"There are {rest} more such warnings."] if rest > 0 else []))


def thin(view: IngestionView) -> IngestionView:
    """The ingestion as a notice carries it: of a manifest's problems the first few, so that it stays small (T103)."""
    if view.error is None or len(view.error.problems) <= FEW:
        return view
    return view.model_copy(update={"error": view.error.model_copy(update={"problems": view.error.problems[:FEW]})})
