"""What the data-plane processes do: check a file, apply a part. Plain functions; small values go in and come out.

Here the pipeline, the blobs and the database meet: bytes come from the blob store, parts and error files go into it,
and a part's rows go to PostgreSQL in the transaction of their ledger row.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO, Final, cast
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Connection, Engine

from ingestd.blobs.store import BlobStore, BlobWriter, open_store
from ingestd.domain.ingestion import Counts, Progress
from ingestd.domain.layout import Layout, Role, bind
from ingestd.domain.plan import Mode, Plan, Target
from ingestd.keyring import AccountKeys
from ingestd.pipeline.ahead import ahead
from ingestd.pipeline.check import Check
from ingestd.pipeline.fold import fold, fold_events
from ingestd.pipeline.parts import PartWriter, bucket_count, identifiers, members, read, read_all, rewrite
from ingestd.pipeline.report import ErrorFile, RejectLog, rejected_for
from ingestd.pipeline.resolve import AT_ONCE, Resolution, resolve
from ingestd.pipeline.run import Sinks, check_file, warnings
from ingestd.pipeline.scan import CHUNK_BYTES, Scan, open_scan
from ingestd.pipeline.seal import seal
from ingestd.store import attributes, dump, ingestions
from ingestd.store import engine as store
from ingestd.store.load.events import apply_events
from ingestd.store.load.merge import apply_merges
from ingestd.store.load.people import KnownPeople
from ingestd.store.load.profiles import Names, apply_profiles
from ingestd.store.load.segments import Refresh, TooManyLeave, apply_segment, present
from ingestd.store.load.sources import SAMPLE, Source, enter, leave, leavers, touched
from ingestd.store.load.stage import Load

PROGRESS_SECONDS: Final = 0.3
"""How often the row is told how far the check is."""

FROZEN: Final = {"idle_in_transaction_session_timeout": "5min"}
"""The locks of a process that was frozen in a transaction are freed after that; no sound one is idle so long."""

UNHURRIED: Final = {"synchronous_commit": "off"}
"""A part does not keep a process waiting for its log to reach the disk: a crash that takes its rows takes its ledger
row too, and the flow, which waits for both (`_settle`), has it applied again."""

REFRESH: Final = "refresh"
"""What stands in the ledger for all parts of a segment's file, which are applied in one transaction."""

SHORT_ROWS: Final = 4 * 1024 * 1024
"""Bytes of a segment's file that are checked at once: of rows so short the usual number of bytes has very many."""

MERGE: Final = "merge"
"""The part that makes two stored people one; applied after the others."""

LEAVE: Final = "leave"
"""The part that takes out of a data source who is not in a file that replaces; applied last (D16)."""

SEGMENT: Final = "segment"
"""The part that puts the people of a data source's file into a segment; applied after that (S65)."""

TOUCHES: Final = ("create", "update", "leave")
"""What an ingestion does to the people of its file (`store.load.sources.touched`)."""

TWO_PEOPLE: Final = "identifiers_of_two_people"
INTERNAL: Final = "internal"
DOUBLED: Final = "People stood in more than one partition {} times; the last of their rows counts."
UNREPORTED: Final = "Rows that could not be stored are not in the error file."


@dataclass(frozen=True, slots=True)
class Place:
    """Where a data-plane process finds the database and the blobs, and the bytes of a file that make a part."""

    database_url: str = field(repr=False)
    blobs: str
    part_bytes: int


@dataclass(frozen=True, slots=True)
class Job:
    """One ingestion as a data-plane process needs it.

    Where rejected rows are tried again, their error file is the file.
    """

    place: Place
    keys: bytes = field(repr=False)
    ingestion_id: UUID
    account_id: UUID
    seq: int
    fence: int
    plan: Plan
    source: Source | None
    delimiter: str
    dry_run: bool
    file_blob: str
    file_bytes: int
    segment_id: UUID | None
    received_at: datetime
    started_at: datetime

    @property
    def replaces(self) -> bool:
        """Whether the file takes the place of what its data source gave before (D16)."""
        return self.source is not None and self.source.mode is Mode.REPLACE

    @property
    def attempt(self) -> str:
        """The folder of this attempt's blobs, below `parts/` and `errors/`."""
        return f"{self.ingestion_id.hex}/{self.fence}"


class Checked(BaseModel):
    """What checking and resolving found; written to the ingestion once it is whole.

    Of a data source that a file replaces, `members` counts who is in it, `leaving` those who would be taken out, of
    whom `leavers` are some.

    `header` names the columns (`_header_name`), and of an error file that has `returned` those of the file it stems
    from. `folder` holds the parts, `parts` gives their names and rows, those of `buckets` ranges that are not empty;
    where the file is applied as a `whole` that is one unit. `merges` is the name of the part that says which
    stored people become one. `reasons` counts the rejected rows by code. `names` are the attributes and identifiers
    that the file has columns for.
    """

    header: str = ""
    returned: bool = False
    names: list[str] = []
    folder: str
    parts: dict[str, int]
    buckets: int = 1
    whole: bool = False
    merges: str | None
    counts: Counts
    warnings: list[str]
    error_blob: str | None
    error_size_bytes: int | None
    rejects_blob: str | None
    reasons: dict[str, int] = {}
    members: int = 0
    leaving: int = 0
    leavers: list[str] = []

    def units(self) -> dict[str, list[str]]:
        """What is applied in one transaction each, by its name in the ledger: the parts that it holds."""
        return {REFRESH: list(self.parts)} if self.whole else {part: [part] for part in self.parts}

    def with_applied(self, applied: Collection[Mapping[str, int]]) -> Checked:
        """The same with what the parts changed in its counts."""
        figures = self.counts.model_dump()
        for part in applied:
            for name in ("created", "updated", "removed", "unchanged", "merged", "erased"):
                figures[name] += part.get(name, 0)
        doubled = sum(part.get("doubled", 0) for part in applied)
        warnings = [*self.warnings, *([DOUBLED.format(doubled)] if doubled else [])]
        return self.model_copy(update={"counts": Counts(**figures), "warnings": warnings})

    def without(self, lost: Iterable[str]) -> Checked:
        """The same with the rows of lost parts rejected, where not even their error file could be written (P6)."""
        rows = sum(self.parts[part] for part in lost)
        accepted, rejected = self.counts.accepted - rows, self.counts.rejected + rows
        counts = self.counts.model_copy(update={"accepted": accepted, "rejected": rejected})
        return self.model_copy(update={"counts": counts, "warnings": [*self.warnings, UNREPORTED]})


class Scratch:
    """Streams of one attempt, kept as sealed blobs (`pipeline.parts.Folder`)."""

    def __init__(self, blobs: BlobStore, keys: AccountKeys, folder: str) -> None:
        self._blobs = blobs
        self._keys = keys
        self._folder = folder
        self._begun: list[BlobWriter] = []

    def create(self, name: str) -> BinaryIO:
        """Start a new stream; it is there once its file is closed."""
        blob = self._blobs.create(f"{self._folder}/{name}", self._keys)
        self._begun.append(blob)
        return cast("BinaryIO", _CommittedAtClose(blob))

    def close(self) -> None:
        """Forget the streams that were not closed: Arrow closes its own whenever they are collected as garbage."""
        for blob in self._begun:
            blob.abort()

    def open(self, name: str) -> BinaryIO:
        """Read a stream from its beginning."""
        return self._blobs.open(f"{self._folder}/{name}", self._keys)


class _CommittedAtClose:
    """A blob that is there once its file is closed, and never if it is dropped."""

    def __init__(self, blob: BlobWriter) -> None:
        self._blob = blob
        self.write = blob.write
        self.flush = blob.flush
        self.writable = blob.writable

    @property
    def closed(self) -> bool:
        return self._blob.closed

    def close(self) -> None:
        if not self._blob.closed:
            self._blob.commit()


class _Report:
    """The error file of one pass and, beside it, which records were rejected and why; two blobs, or none."""

    def __init__(self, job: Job, header: Sequence[str]) -> None:
        blobs, keys = _means(job)
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
        with _engine(self._job.place.database_url).begin() as connection:
            ingestions.change(connection, self._job.ingestion_id, self._job.fence, progress=progress.model_dump())


def warm() -> None:
    """Do nothing: what this module imports is then there."""


def check(job: Job) -> Checked:
    """Check and resolve a file; raise FileRefused where it is refused as a whole. Nothing that anyone sees changes."""
    blobs, keys = _means(job)
    folder = f"parts/{job.attempt}"
    scratch = Scratch(blobs, keys, folder)
    with closing(scratch), ExitStack() as stack:
        connections = [stack.enter_context(store.autocommitting(job.place.database_url)) for _ in range(AT_ONCE)]
        known = KnownPeople(connections, job.account_id)
        with _opened(job) as (scan, layout):
            report = _Report(job, scan.header)
            writer = PartWriter(
                scratch,
                buckets=bucket_count(job.file_bytes, job.place.part_bytes),
                index_key=keys.index_key,
                looked_up=_looked_up(job, layout, known),
            )
            checker = _checker(job, layout)
            counts = check_file(scan, checker, report.sinks(writer), _Teller(job))
            parts = writer.close()
        resolution = resolve(parts, scratch, known if known.any else None, keys.index_key)
    if resolution.rejected:
        counts, kept = _report_again(job, dict.fromkeys(resolution.rejected, TWO_PEOPLE))
    else:
        kept = report.keep()
    if not resolution.parts_stand:
        folder = f"parts/{job.attempt}/resolved"
        resolved = Scratch(blobs, keys, folder)
        parts = rewrite(parts, scratch, resolved, moved=resolution.moved, rejected=resolution.rejected)
    return Checked(
        **_leavers(job, Scratch(blobs, keys, folder), parts.rows),
        header=_header_name(scan.header),
        returned=scan.returned,
        names=[column.name for role in (Role.IDENTIFIER, Role.ATTRIBUTE) for column in layout.of(role)],
        folder=folder,
        parts=parts.rows,
        buckets=parts.buckets,
        whole=job.plan.target is Target.SEGMENT,
        merges=_keep_merges(Scratch(blobs, keys, folder), resolution),
        counts=counts,
        warnings=warnings(layout, checker, counts),
        **kept,
    )


def apply_part(job: Job, checked: Checked, part: str, *, lost: bool) -> bool:
    """Apply one part in one transaction with its ledger row; a repeat does nothing, a stale owner changes nothing.

    A part that is `lost` is only written off: its ledger row says how many rows were not applied. False where too many
    members would leave a segment: then nothing is done.
    """
    with suppress(TooManyLeave), _engine(job.place.database_url).begin() as connection:
        if ingestions.open_part(connection, job.ingestion_id, part):
            rows = sum(checked.parts[each] for each in checked.units().get(part, ()))
            figures = {"lost": rows} if lost else _apply(job, checked, part, connection)
            ingestions.close_part(connection, job.ingestion_id, part, figures)
            ingestions.guard(connection, job.ingestion_id, job.fence)
        return True
    return False


class Rehearsed(BaseModel):
    """What applying a part would do: its counts, and some people, by what would be done to them: row number and id."""

    counts: dict[str, int]
    samples: dict[str, list[tuple[int, str]]] = {}


def rehearse(job: Job, checked: Checked, part: str) -> Rehearsed:
    """Apply one part and take it back: a dry run does what an ingestion does, to the point of committing it."""
    with _engine(job.place.database_url).connect() as connection, connection.begin() as transaction:
        counts = _apply(job, checked, part, connection)
        done = touched(store.raw(connection), load=_load(job)) if part in checked.parts else None
        transaction.rollback()
    if done is None:
        return Rehearsed(counts=counts)
    blobs, keys = _means(job)
    rows = read(Scratch(blobs, keys, checked.folder), part, ["row_no", "id"]).group_by("id").min()
    done = rows.join(done, on="id").sort("row_no")
    samples = {what: done.filter(what=what).head(SAMPLE).select("row_no", "id").rows() for what in TOUCHES}
    return Rehearsed(counts=counts, samples=samples)


def report_lost(job: Job, checked: Checked, lost: Sequence[str]) -> Checked:
    """Write the error file anew with the rows of parts that could not be applied (P6)."""
    blobs, keys = _means(job)
    late: dict[int, str] = {}
    if checked.rejects_blob is not None:
        with closing(blobs.open(checked.rejects_blob, keys)) as log:
            late |= dict.fromkeys(rejected_for(log, TWO_PEOPLE), TWO_PEOPLE)
    for name in lost:
        rows = read(Scratch(blobs, keys, checked.folder), name, ["row_no"])
        late |= dict.fromkeys(rows["row_no"], INTERNAL)
    counts, kept = _report_again(job, late)
    return checked.model_copy(update={"counts": counts, **kept})


def discard(job: Job) -> None:
    """Remove what an ingestion that has ended leaves, of all its attempts: parts, and error files it does not name."""
    blobs, _ = _means(job)
    with _engine(job.place.database_url).begin() as connection:
        if not dump.may_remove_blobs(connection):
            return  # the sweep will
        row = ingestions.peek(connection, job.ingestion_id)
        left = [*blobs.list(f"parts/{job.ingestion_id.hex}"), *blobs.list(f"errors/{job.ingestion_id.hex}")]
        blobs.delete({stored.name for stored in left} - {row.error_blob, row.rejects_blob})


def _apply(job: Job, checked: Checked, part: str, connection: Connection) -> dict[str, int]:
    blobs, keys = _means(job)
    raw = store.raw(connection)
    load = _load(job)
    if part == LEAVE:
        assert job.source is not None
        return {"removed": leave(raw, source=job.source, load=load)}
    if part == REFRESH:
        return _refresh(job, checked, raw, load)
    if part == SEGMENT:
        return _put_into_segment(job, checked, raw, load)
    rows = read(Scratch(blobs, keys, checked.folder), part)
    if part == MERGE:
        return {"merged": apply_merges(raw, rows, load=load)}
    named = cache(partial(identifiers, rows, keys.index_key))
    started = int(job.started_at.timestamp())
    if job.plan.target is Target.EVENTS:
        events, people = fold_events(rows, started)
        applied = apply_events(raw, events, people, named, load=load)
    else:
        names = Names(_named(rows.columns, "a:"), _named(rows.columns, "o:"))
        sealed, kinds = seal(rows, attributes.personal(connection, job.account_id), keys)
        changes = fold(sealed, started, sealed=kinds)
        applied = apply_profiles(raw, changes, named, names=names, load=load)
        if job.source is not None:
            more = enter(raw, changes["id"], named, kept=names.attributes, source=job.source, load=load)
            applied = replace(applied, updated=applied.updated + more, unchanged=applied.unchanged - more)
    return _figures(applied)


def _load(job: Job) -> Load:
    return Load(
        account_id=job.account_id,
        ingestion_id=job.ingestion_id,
        seq=job.seq,
        received_at=job.received_at,
        now=job.started_at,
    )


def _leavers(job: Job, folder: Scratch, parts: Iterable[str]) -> dict[str, Any]:
    """Whom a replace would take out of its data source: the fields of `Checked` that say it."""
    if job.source is None or not job.replaces:
        return {}
    ids = (read(folder, name, ["id"])["id"] for name in parts)
    with store.autocommitting(job.place.database_url) as connection:
        found = leavers(connection, ids, source=job.source, account_id=job.account_id)
    return {"members": found.members, "leaving": found.count, "leavers": [each.hex for each in found.some]}


def _refresh(job: Job, checked: Checked, raw: Any, load: Load) -> dict[str, int]:
    """Apply all parts of a segment's file; a file that brings rows back, or is added, lets nobody leave."""
    assert job.segment_id is not None  # the target is a segment
    additive = checked.returned or job.plan.mode is Mode.APPEND
    refresh = Refresh(segment_id=job.segment_id, additive=additive, hold_above=job.plan.hold_above)
    blobs, keys = _means(job)
    rows = read_all(Scratch(blobs, keys, checked.folder), checked.parts, checked.buckets)
    with store.autocommitting(job.place.database_url) as reading:
        buckets = ahead(zip(rows, present(reading, checked.buckets, refresh, load=load), strict=True))
        return _figures(apply_segment(raw, buckets, refresh, load=load))


def _put_into_segment(job: Job, checked: Checked, raw: Any, load: Load) -> dict[str, int]:
    """Put the people of a data source's file into the segment's partition of the source's name; nobody leaves."""
    assert job.segment_id is not None
    assert job.source is not None
    blobs, keys = _means(job)
    refresh = Refresh(segment_id=job.segment_id, additive=True, hold_above=None)
    people = members(Scratch(blobs, keys, checked.folder), checked.parts, keys.index_key, job.source.name)
    with store.autocommitting(job.place.database_url) as reading:
        there = present(reading, 1, refresh, load=load)
        done = apply_segment(raw, ((rows, those) for those in there for rows in people), refresh, load=load)
    return {"entered": done.created}


def _figures(applied: Any) -> dict[str, int]:
    return {name: count for name, count in asdict(applied).items() if count}


def _looked_up(job: Job, layout: Layout, known: KnownPeople) -> set[int]:
    """The kinds of which an identifier may be somebody else's than its hash says; a member is only its hash (D40)."""
    if job.plan.target is Target.SEGMENT:
        return set()
    return known.kinds(column.kind for column in layout.of(Role.IDENTIFIER) if column.kind)


def _named(columns: Iterable[str], prefix: str) -> list[str]:
    return [column.removeprefix(prefix) for column in columns if column.startswith(prefix)]


def _report_again(job: Job, late: Mapping[int, str]) -> tuple[Counts, dict[str, Any]]:
    """Read the file a second time for its error file alone, with rows that were rejected after the check."""
    with _opened(job) as (scan, layout):
        report = _Report(job, scan.header)
        counts = check_file(scan, _checker(job, layout), report.sinks(None), _Teller(job), late=late)
    return counts, report.keep()


@contextmanager
def _opened(job: Job) -> Iterator[tuple[Scan, Layout]]:
    blobs, keys = _means(job)
    with closing(blobs.open(job.file_blob, keys)) as stream:
        chunk_bytes = SHORT_ROWS if job.plan.target is Target.SEGMENT else CHUNK_BYTES
        scan = open_scan(stream, delimiter=job.delimiter, limits=job.plan.limits, chunk_bytes=chunk_bytes)
        yield scan, bind(job.plan, scan.header)


def _checker(job: Job, layout: Layout) -> Check:
    return Check(layout, job.plan, int(job.started_at.timestamp()))


def _header_name(header: Sequence[str]) -> str:
    """A short name that only files with the same columns have."""
    return hashlib.sha256("\0".join(header).encode()).hexdigest()[:32]


def _keep_merges(scratch: Scratch, resolution: Resolution) -> str | None:
    if resolution.merges.is_empty():
        return None
    with closing(scratch.create(MERGE)) as file:
        resolution.merges.write_ipc_stream(file)
    return MERGE


def _means(job: Job) -> tuple[BlobStore, AccountKeys]:
    return _blobs(job.place.blobs), AccountKeys.from_worker(job.keys)


@cache
def _blobs(place: str) -> BlobStore:
    return open_store(place if "://" in place else Path(place))


@cache
def _engine(url: str) -> Engine:
    """This process's own connections, kept over its tasks."""
    return store.engine(url, pool_size=2, settings=store.BULK | FROZEN | UNHURRIED)
