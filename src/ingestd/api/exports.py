"""Exports, read from the database while they are sent; here that of the activity log as CSV."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final
from uuid import UUID

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Message, Send

from ingestd import telemetry
from ingestd.api.context import Parts
from ingestd.domain.column import guarded
from ingestd.domain.ingestion import Counts, IngestionView
from ingestd.store import activity, ingestion_views
from ingestd.store.activity import Wanted

CSV: Final = "text/csv"
VARIES: Final = {"Vary": "Accept"}
"""What an answer says that is one thing or another, as `prefers_csv` says."""

_COUNTS: Final = tuple(Counts.model_fields)
_COLUMNS: Final = (
    "id", "status", "stage", "channel", "target", "mode", "data_source_name", "file_name", "file_size_bytes",
    "manifest_name", "uploaded_by_type", "uploaded_by_id", "uploaded_by_name", *_COUNTS,
    "error_code", "error_message", "retry_of",
    "created_at", "started_at", "finished_at",
)  # fmt: skip

SILENCE_SECONDS: Final = 60.0
LONGEST_SECONDS: Final = 3600.0

log = telemetry.logger(__name__)


def prefers_csv(request: Request) -> bool:
    """Whether the caller would rather have CSV than JSON, by `q`, then by what is named outright, then by the order."""
    wanted = [_range(each) for each in ",".join(request.headers.getlist("accept")).split(",")]
    csv_ = _liking(CSV, wanted)
    return csv_[0] > 0 and csv_ > _liking("application/json", wanted)


def _range(text: str) -> tuple[str, float]:
    """A media range of `Accept`, and how much it is wanted: 0 is not at all."""
    kind, *options = (part.strip().lower() for part in text.split(";"))
    given = [option.removeprefix("q=") for option in options if option.startswith("q=")]
    try:
        return kind, max(0.0, min(1.0, float(given[0]))) if given else 1.0
    except ValueError:
        return kind, 0.0


def _liking(media_type: str, wanted: Sequence[tuple[str, float]]) -> tuple[float, int, int]:
    """How much a type is wanted, by the narrowest range that has it: `q`, how narrow, and how early."""
    ranges = ("*/*", f"{media_type.partition('/')[0]}/*", media_type)
    found = [(ranges.index(kind), q, -place) for place, (kind, q) in enumerate(wanted) if kind in ranges]
    if not found:
        return 0.0, 0, 0
    narrow, q, early = max(found)
    return q, narrow, early


class Export(StreamingResponse):
    """The answer that an export is: its pieces, sent when the account may export; to HEAD there are none (None).

    Whoever takes nothing of it for a while, or has not all of it after a long time, is cut off: it holds a transaction.
    """

    def __init__(
        self, service: Parts, account_id: UUID, pieces: AsyncGenerator[str] | None, *, media_type: str, name: str
    ) -> None:
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        super().__init__(pieces or (), media_type=f"{media_type}; charset=utf-8", headers=headers)
        self._limit = service.exports
        self._account_id = account_id
        self._pieces = pieces

    async def stream_response(self, send: Send) -> None:
        """Send the pieces to who takes them."""
        if self._pieces is None:
            await super().stream_response(send)
            return

        async def patiently(message: Message) -> None:
            async with asyncio.timeout(SILENCE_SECONDS):
                await send(message)

        try:
            async with self._limit.hold(self._account_id), aclosing(self._pieces), asyncio.timeout(LONGEST_SECONDS):
                await super().stream_response(patiently)
        except TimeoutError:  # the answer stays incomplete, which its reader sees
            log.warning("export_cut_off", account=str(self._account_id))


def exported(service: Parts, account_id: UUID, which: Wanted, *, head: bool) -> Export:
    """The wanted ingestions as a CSV file."""
    pieces = None if head else _pieces(service, account_id, which)
    export = Export(service, account_id, pieces, media_type=CSV, name="ingestions.csv")
    export.headers.update(VARIES)
    return export


async def _pieces(service: Parts, account_id: UUID, which: Wanted) -> AsyncGenerator[str]:
    yield written([_COLUMNS])
    async with service.intake.sessions() as session:
        async for rows in activity.export(session, account_id, which):
            yield written([_cells(ingestion_views.view(row)) for row in rows])


def _cells(shown: IngestionView) -> list[Any]:
    file, by, error = shown.file, shown.uploaded_by, shown.error
    moments = (shown.created_at, shown.started_at, shown.finished_at)
    return [
        shown.id, shown.status, shown.stage, shown.channel, shown.target, shown.mode,
        shown.data_source and shown.data_source.name,
        file and file.name, file and file.size_bytes, shown.manifest_name, by.type, by.id, by.name,
        *(getattr(shown.counts, name) for name in _COUNTS),
        error and error.code, error and error.message, shown.retry_of,
        *(moment and moment.isoformat().replace("+00:00", "Z") for moment in moments),
    ]  # fmt: skip


def written(rows: Sequence[Sequence[Any]]) -> str:
    """CSV as RFC 4180 has it; no cell is a formula to a spreadsheet (T100)."""
    text = io.StringIO()
    csv.writer(text).writerows([guarded(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue()
