"""Orphans: blobs that no row names, left by a process that died or by a file that is gone (I8)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, select, union_all

from ingestd.domain.ingestion import Status
from ingestd.store.files import IS_LIVE, File
from ingestd.store.ingestions import Ingestion
from ingestd.store.manifests import Manifest
from ingestd.store.messages import Message

UPLOADED: Final = "files"
"""The folder of what came in through a door."""

WORKED: Final = ("parts", "errors")
"""The folders of what ingestions make: each has a folder below, by the ingestion's id."""

MAILED: Final = "mails"
"""The folder of mails that are kept: each message has a folder below, by its id."""

_OPEN: Final = (Status.SCHEDULED, Status.IN_PROGRESS)


def without_row(connection: Connection, folder: str, names: Collection[str]) -> set[str]:
    """Those blobs of a folder that nothing names: no file, manifest or message, or no ingestion that has ended."""
    named = {UPLOADED: _uploaded, MAILED: _mailed}.get(folder, _worked)
    return set(names) - named(connection, names)


def _uploaded(connection: Connection, names: Collection[str]) -> set[str]:
    files = select(File.blob).where(File.blob.in_(names), IS_LIVE)
    manifests = select(Manifest.blob).where(Manifest.blob.in_(names))
    return set(connection.scalars(union_all(files, manifests)))


def _mailed(connection: Connection, names: Collection[str]) -> set[str]:
    makers = {UUID(hex=name.split("/")[1]) for name in names}
    return set(connection.scalars(select(Message.blob).where(Message.id.in_(makers), Message.blob.is_not(None))))


def _worked(connection: Connection, names: Collection[str]) -> set[str]:
    makers = {name: UUID(hex=name.split("/")[1]) for name in names}
    rows = connection.execute(
        select(Ingestion.id, Ingestion.status, Ingestion.error_blob, Ingestion.rejects_blob).where(
            Ingestion.id.in_(set(makers.values()))
        )
    ).all()
    still_open = {row.id for row in rows if row.status in _OPEN}
    named = {blob for row in rows for blob in (row.error_blob, row.rejects_blob)}
    return {name for name, maker in makers.items() if maker in still_open or name in named}
