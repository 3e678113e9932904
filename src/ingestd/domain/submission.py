"""The Submission: what every door hands to `ingest.intake.submit`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from ingestd.domain.ids import Prefix, read, show
from ingestd.domain.ingestion import Channel
from ingestd.domain.plan import Plan

_PREFIXES: Final = {"import_key": Prefix.IMPORT_KEY, "api_key": Prefix.API_KEY}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did something: `type` is `import_key`, `api_key`, `schedule`, `command` or `system`; `id` if there is one."""

    type: str
    id: UUID | None = None
    name: str | None = None

    def shown(self) -> dict[str, str | None]:
        """The actor as the API shows it."""
        prefix = _PREFIXES.get(self.type)
        return {
            "type": self.type,
            "id": show(prefix, self.id) if self.id and prefix else None,
            "name": self.name,
        }

    @classmethod
    def read(cls, shown: dict[str, Any]) -> Actor:
        """The actor that `shown` has shown."""
        prefix = _PREFIXES.get(shown["type"])
        return cls(shown["type"], read(prefix, shown["id"]) if shown["id"] and prefix else None, shown["name"])


COMMAND: Final = Actor("command", name="ingestd")
"""Whoever may run commands beside the service."""


@dataclass(frozen=True, slots=True)
class Submission:
    """One file to ingest: which door, whose, how, where from, and who is told.

    Plan and file are missing only where a manifest is refused, and only there `manifest_name` is given. A retry names
    the ingestion it is a `retry_of`, and the one whose rejected `rows_of` it reads in place of the file. Told are the
    addresses `recipients`, and beside the webhooks that want to know the ones in `webhook_ids` (S136).
    """

    channel: Channel
    account_id: UUID
    plan: Plan | None
    file_id: UUID | None
    uploaded_by: Actor
    manifest_id: UUID | None = None
    manifest_name: str | None = None
    data_source_id: UUID | None = None
    dry_run: bool = False
    segment_id: UUID | None = None
    recipients: tuple[str, ...] = ()
    webhook_ids: tuple[UUID, ...] = ()
    warnings: tuple[str, ...] = ()
    retry_of: UUID | None = None
    rows_of: UUID | None = None
