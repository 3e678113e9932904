"""Notices: what the world is told, and the milestones they are told at (S129 to S136)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from ingestd.domain.ingestion import IngestionView

FEW: Final = 10


class NoticeType(StrEnum):
    """The type of a webhook event; the first six follow an ingestion."""

    INGESTION_SCHEDULED = "ingestion.scheduled"
    INGESTION_PICKED_UP = "ingestion.picked_up"
    INGESTION_DELAYED = "ingestion.delayed"
    INGESTION_COMPLETED = "ingestion.completed"
    INGESTION_FAILED = "ingestion.failed"
    INGESTION_CANCELLED = "ingestion.cancelled"
    FILE_RECEIVED = "file.received"
    WEBHOOK_TEST = "webhook.test"


def few(warnings: Sequence[str]) -> tuple[str, ...]:
    """The first warnings of one kind, and how many more there are."""
    rest = len(warnings) - FEW
    return (*warnings[:FEW], *([f"There are {rest} more such warnings."] if rest > 0 else []))


def thin(view: IngestionView) -> IngestionView:
    """The ingestion as a notice carries it: of a manifest's problems the first few, so that it stays small (T103)."""
    if view.error is None or len(view.error.problems) <= FEW:
        return view
    return view.model_copy(update={"error": view.error.model_copy(update={"problems": view.error.problems[:FEW]})})
