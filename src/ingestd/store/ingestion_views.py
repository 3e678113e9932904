"""Ingestions as clients and webhook receivers see them: rows with the names of what they belong to."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.domain import ids
from ingestd.domain.errors import NotFound
from ingestd.domain.ids import Prefix
from ingestd.domain.ingestion import IngestionView, Stage
from ingestd.store.data_sources import DataSource
from ingestd.store.files import File
from ingestd.store.ingestions import Ingestion
from ingestd.store.manifests import Manifest
from ingestd.store.segments import Segment

_SHOWN = tuple(
    column for column in Ingestion.__table__.c if column.key not in {"plan", "checked", "rehearsal", "manifest_name"}
)
"""All but what may be large and is never shown, and a name that may stand elsewhere."""

_SHOWN_AS_THEY_ARE = (
    "channel", "target", "status", "stage", "mode", "dry_run", "uploaded_by", "progress", "counts", "error", "warnings",
    "created_at", "started_at", "finished_at",
)  # fmt: skip


async def get(session: AsyncSession, account_id: UUID, ingestion_id: UUID) -> Row[Any]:
    """An ingestion of the account as `shown` gives it, or NotFound."""
    found = await session.execute(shown(Ingestion.account_id == account_id, Ingestion.id == ingestion_id))
    row: Row[Any] | None = found.one_or_none()
    if row is None:
        raise NotFound("There is no such ingestion.")
    return row


def shown(*where: ColumnElement[bool]) -> Select[Any]:
    """The statement that gives ingestions with all that `view` shows; for either kind of connection."""
    return (
        select(
            *_SHOWN,
            File.name,
            File.size_bytes,
            File.sha256,
            func.coalesce(Manifest.name, Ingestion.manifest_name).label("manifest_name"),
            DataSource.name.label("data_source_name"),
            Segment.name.label("segment_name"),
        )
        .outerjoin(File, File.id == Ingestion.file_id)
        .outerjoin(Manifest, Manifest.id == Ingestion.manifest_id)
        .outerjoin(DataSource, DataSource.id == Ingestion.data_source_id)
        .outerjoin(Segment, Segment.id == Ingestion.segment_id)
        .where(*where)
    )


def view(row: Row[Any]) -> IngestionView:
    """An ingestion as clients and webhook receivers see it, from a row of `shown`."""
    found = row._mapping  # noqa: SLF001 -- SQLAlchemy's public name for it
    file = found["file_id"] and {
        "id": ids.show(Prefix.FILE, found["file_id"]),
        "name": found["name"],
        "size_bytes": found["size_bytes"],
        "sha256": found["sha256"],
    }
    manifest = found["manifest_id"] and {
        "id": ids.show(Prefix.MANIFEST, found["manifest_id"]),
        "name": found["manifest_name"],
    }
    data_source = found["data_source_id"] and {
        "id": ids.show(Prefix.DATA_SOURCE, found["data_source_id"]),
        "name": found["data_source_name"],
    }
    segment = found["segment_id"] and {
        "id": ids.show(Prefix.SEGMENT, found["segment_id"]),
        "name": found["segment_name"],
    }
    error_file = found["error_blob"] and {"size_bytes": found["error_size_bytes"], "rows": found["counts"]["rejected"]}
    return IngestionView.model_validate(
        {name: found[name] for name in _SHOWN_AS_THEY_ARE}
        | {
            "id": ids.show(Prefix.INGESTION, found["id"]),
            "file": file,
            "manifest": manifest,
            "manifest_name": found["manifest_name"],
            "data_source": data_source,
            "segment": segment,
            "held": found["held"] if found["stage"] == Stage.HELD else None,
            "error_file": error_file,
            "retry_of": found["retry_of"] and ids.show(Prefix.INGESTION, found["retry_of"]),
        }
    )
