"""Notices: what the world is told, and the milestones they are told at (S129 to S136)."""

from __future__ import annotations

from enum import StrEnum


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
