"""The Submission: what every door hands to `ingest.intake.submit`."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from ingestd.domain.ingestion import Channel
from ingestd.domain.plan import Plan


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did something: `type` is `import_key`, `api_key`, `schedule` or `system`; `id` where they have one."""

    type: str
    id: UUID | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """One file to ingest: which door, whose, how, where from, and who is told."""

    channel: Channel
    account_id: UUID
    plan: Plan
    file_id: UUID
    uploaded_by: Actor
    manifest_id: UUID | None = None
    recipients: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
