"""Checking a file in a data-plane process: bytes come from the blob store, parts and an error file go into it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, BinaryIO, Final, cast

from ingestd.domain.ingestion import Counts, Progress
from ingestd.domain.layout import Layout, Role, bind
from ingestd.domain.plan import Mode, Plan, Target
from ingestd.ingest.work import MERGE, Checked, Job, Scratch, engine, means
from ingestd.pipeline.check import Check
from ingestd.pipeline.partitions import Partitions
from ingestd.pipeline.parts import PartWriter, bucket_count, read, rewrite
from ingestd.pipeline.report import ErrorFile, RejectLog
from ingestd.pipeline.resolve import AT_ONCE, TWO_PEOPLE, Resolution, resolve
from ingestd.pipeline.run import Sinks, check_file, warnings
from ingestd.pipeline.scan import CHUNK_BYTES, Scan, open_scan
from ingestd.store import engine as store
from ingestd.store import fencing
from ingestd.store.load.partitions import partitions_of
from ingestd.store.load.people import KnownPeople
from ingestd.store.load.sources import leavers

PROGRESS_SECONDS: Final = 0.3
"""How often the row is told how far the check is."""

SHORT_ROWS: Final = 3 * 1024 * 1024
"""Bytes of a segment's file that are checked at once: of rows so short the usual number of bytes has very many."""

SHORT_PARTS: Final = 4
"""Into how many more parts such a file is cut, for the same reason."""


def check(job: Job) -> Checked:
    """Check and resolve a file; raise FileRefused where it is refused as a whole. Nothing that anyone sees changes."""
    blobs, keys = means(job)
    folder = f"parts/{job.attempt}"
    scratch, links = Scratch(blobs, keys, folder), Scratch(blobs, keys, folder, lasting=False)
    with closing(scratch), closing(links), ExitStack() as stack:
        connections = [stack.enter_context(store.asking(engine(job.place.database_url))) for _ in range(AT_ONCE)]
        known = KnownPeople(connections, job.account_id)
        with _opened(job) as (scan, layout):
            report = _Report(job, scan.header)
            writer = PartWriter(
                scratch,
                links,
                buckets=bucket_count(job.file_bytes, _part_bytes(job), blobs.streams),
                index_key=keys.index_key,
                looked_up=_looked_up(job, layout, known),
            )
            partitions = Partitions()
            if job.plan.target is Target.SEGMENT and job.segment_id is not None:
                found = partitions_of(connections[0], job.segment_id)
                adds = job.plan.mode is Mode.APPEND or scan.returned  # else those that are left empty can go
                partitions = Partitions(found.there if adds else (), known=found.known, room=found.room)
            checker = _checker(job, layout, partitions)
            counts = check_file(scan, checker, report.sinks(writer), _Teller(job))
        with writer.closing() as parts:
            resolution = resolve(parts, scratch, known if known.any else None, keys.index_key)
    if resolution.rejected:
        counts, kept = report_again(job, dict.fromkeys(resolution.rejected, TWO_PEOPLE))
    else:
        kept = report.keep()
    if not resolution.parts_stand:
        parts = rewrite(parts, scratch, moved=resolution.moved, rejected=resolution.rejected)
    return Checked(
        **_leavers(job, Scratch(blobs, keys, folder), parts.rows),
        header=_header_name(scan.header),
        returned=scan.returned,
        moved=not resolution.parts_stand,
        names=[column.name for role in (Role.IDENTIFIER, Role.ATTRIBUTE) for column in layout.of(role)],
        unread=_unread(layout, job.plan),
        folder=folder,
        parts=parts.rows,
        buckets=parts.buckets,
        whole=job.plan.target is Target.SEGMENT,
        aliases=list(resolution.aliases),
        merges=_keep_merges(Scratch(blobs, keys, folder), resolution),
        counts=counts,
        warnings=warnings(layout, checker, counts),
        **kept,
    )


def _leavers(job: Job, folder: Scratch, parts: Iterable[str]) -> dict[str, Any]:
    """Whom a replace would take out of its data source: the fields of `Checked` that say it."""
    if job.source is None or not job.replaces:
        return {}
    ids = (read(folder, name, ["id"])["id"] for name in parts)
    with store.asking(engine(job.place.database_url)) as connection:
        found = leavers(connection, ids, source=job.source, account_id=job.account_id)
    return {"members": found.members, "leaving": found.count, "leavers": [each.hex for each in found.some]}


def _unread(layout: Layout, plan: Plan) -> list[str]:
    """The headers of columns whose cells become nothing, and yet stand in the error file."""
    roles = [Role.UNMAPPED] if plan.target is Target.EVENTS else [Role.UNMAPPED, Role.EVENT_NAME]
    return [column.header for role in roles for column in layout.of(role)]


def _looked_up(job: Job, layout: Layout, known: KnownPeople) -> set[int]:
    """The kinds of which an identifier may be somebody else's than its hash says; a member is only its hash (D40)."""
    if not known.any or job.plan.target is Target.SEGMENT:
        return set()
    return known.kinds(column.kind for column in layout.of(Role.IDENTIFIER) if column.kind)


def report_again(job: Job, late: Mapping[int, str]) -> tuple[Counts, dict[str, Any]]:
    """Read the file a second time for its error file alone, with rows that were rejected after the check."""
    with _opened(job) as (scan, layout):
        report = _Report(job, scan.header)
        counts = check_file(scan, _checker(job, layout), report.sinks(None), _Teller(job), late=late)
    return counts, report.keep()


@contextmanager
def _opened(job: Job) -> Iterator[tuple[Scan, Layout]]:
    blobs, keys = means(job)
    with closing(blobs.open(job.file_blob, keys)) as stream:
        chunk_bytes = SHORT_ROWS if job.plan.target is Target.SEGMENT else CHUNK_BYTES
        scan = open_scan(stream, delimiter=job.delimiter, limits=job.plan.limits, chunk_bytes=chunk_bytes)
        yield scan, bind(job.plan, scan.header)


def _part_bytes(job: Job) -> int:
    return job.place.part_bytes // (SHORT_PARTS if job.plan.target is Target.SEGMENT else 1) or 1


def _checker(job: Job, layout: Layout, partitions: Partitions | None = None) -> Check:
    return Check(layout, job.plan, int(job.started_at.timestamp()), partitions)


def _header_name(header: Sequence[str]) -> str:
    """A short name that only files with the same columns have."""
    return hashlib.sha256("\0".join(header).encode()).hexdigest()[:32]


def _keep_merges(scratch: Scratch, resolution: Resolution) -> str | None:
    if resolution.merges.is_empty():
        return None
    with closing(scratch.create(MERGE)) as file:
        resolution.merges.write_ipc_stream(file)
    return MERGE


class _Report:
    """The error file of one pass and, beside it, which records were rejected and why; two blobs, or none."""

    def __init__(self, job: Job, header: Sequence[str]) -> None:
        blobs, keys = means(job)
        name = f"errors/{job.attempt}-{store.new_id().hex}"
        self._errors_blob = blobs.create(f"{name}.csv", keys)
        self._rejects_blob = blobs.create(f"{name}.rejects", keys)
        self._errors = ErrorFile(cast("BinaryIO", self._errors_blob), header, cell_bytes=job.plan.limits.cell_bytes)
        self._rejects = RejectLog(cast("BinaryIO", self._rejects_blob))

    def sinks(self, parts: PartWriter | None) -> Sinks:
        """Where a pass writes."""
        return Sinks(parts, self._errors, self._rejects)

    def keep(self) -> dict[str, Any]:
        """Make both durable, if a record was rejected; gives the fields of `Checked` that say where they are."""
        self._rejects.close()
        if not self._errors.rows:
            return {"error_blob": None, "error_size_bytes": None, "rejects_blob": None, "reasons": {}}
        errors, rejects = self._errors_blob.commit(), self._rejects_blob.commit()
        return {
            "error_blob": errors.name,
            "error_size_bytes": errors.size,
            "rejects_blob": rejects.name,
            "reasons": self._rejects.reasons,
        }


class _Teller:
    """Tells the row how far the check is, now and then; where the ingestion has been lost the check stops."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._began = self._told = time.monotonic()

    def __call__(self, counts: Counts, bytes_read: int) -> None:
        now = time.monotonic()
        if now - self._told < PROGRESS_SECONDS:
            return
        self._told = now
        seconds = now - self._began
        share = min(1.0, bytes_read / max(1, self._job.file_bytes))
        progress = Progress(
            percent=round(50 * share, 1),
            bytes_read=bytes_read,
            rows_read=counts.read,
            rows_per_second=round(counts.read / seconds),
            eta_seconds=round(seconds * (2 - share) / share) if share else None,
        )
        with engine(self._job.place.database_url).begin() as connection:
            fencing.change(connection, self._job.ingestion_id, self._job.fence, progress=progress.model_dump())
