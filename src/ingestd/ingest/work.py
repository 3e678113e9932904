"""What the data-plane processes are given for an ingestion and give back, small values, and the means they have."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Final, cast
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Engine, Row

from ingestd.blobs.store import BlobStore, BlobWriter, open_store
from ingestd.domain.identity import SLICES
from ingestd.domain.ingestion import Counts, Status
from ingestd.domain.plan import Mode, Plan
from ingestd.keyring import AccountKeys
from ingestd.store import engine as store
from ingestd.store.ingestions import Ingestion
from ingestd.store.load.sources import Source

FROZEN: Final = {"idle_in_transaction_session_timeout": "5min"}
"""The locks of a process that was frozen in a transaction are freed after that; no sound one is idle so long."""

UNHURRIED: Final = {"synchronous_commit": "off"}
"""A part does not keep a process waiting for its log to reach the disk: a crash that takes its rows takes its ledger
row too, and the flow, which waits for both (`units._settle`), has it applied again."""

CONNECTIONS: Final = 3
"""Those of a data-plane process: two by which a check asks, and one by which it tells how far it is."""

REFRESH: Final = "refresh"
"""What stands in the ledger for all parts of a segment's file, which are applied in one transaction."""

MERGE: Final = "merge"
"""The stream that says which stored people become one."""

LEAVE: Final = "leave"
"""The part that takes out of a data source who is not in a file that replaces; applied last (D16)."""

SEGMENT: Final = "segment"
"""The part that puts the people of a data source's file into a segment; applied after that (S65)."""

DELETED: Final = "The segment was deleted; nobody was put into it."
DOUBLED: Final = "People stood in more than one partition {} times; the last of their rows counts."
ERROR_FILE: Final = {"error_blob", "error_size_bytes", "rejects_blob"}
"""What of `Checked` says where the error file is."""

FORM: Final = 1
"""Of what checking leaves, raised whenever that changes: what another release left is checked again (`units.found`)."""

UNREPORTED: Final = "Rows that could not be stored are not in the error file."


@dataclass(frozen=True, slots=True)
class Place:
    """Where a data-plane process finds the database and the blobs, and the bytes of a file that make a part."""

    database_url: str = field(repr=False)
    blobs: str | Path
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

    `header` names the columns (`checking._header_name`), and of an error file that has `returned` those of the file it
    stems from. `folder` holds the parts, `parts` gives their names and rows, those of `buckets` ranges that are not
    empty; where the file is applied as a `whole` that is one unit. Rows were `moved` where the id of some is not the
    hash of their best identifier. `aliases` are the streams of identifiers that are to be stored for people of another
    id, `merges` is the name of the stream that says which stored people become one. `reasons` counts the rejected rows
    by code. `names` are the attributes and identifiers that the file has columns for, `unread` the headers of columns
    that were not read.
    """

    form: int = FORM
    header: str = ""
    returned: bool = False
    moved: bool = True
    names: list[str] = []
    unread: list[str] = []
    folder: str
    parts: dict[str, int]
    buckets: int = 1
    whole: bool = False
    aliases: list[str] = []
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

    def apart(self) -> list[str]:
        """The aliases that are units of their own: those of a file in one part are applied with it."""
        return self.aliases if self.buckets > 1 else []

    def slice_of(self, part: str) -> int:
        """The slice of the stored profiles in which a part of a large file lies."""
        return int(part.rpartition("-")[2]) * SLICES // self.buckets

    def lost(self, applied: Mapping[str, Mapping[str, int]]) -> list[str]:
        """The parts that were written off, by what the ledger says (P6)."""
        return [part for unit, parts in self.units().items() if "lost" in applied.get(unit, ()) for part in parts]

    def with_applied(self, applied: Collection[Mapping[str, int]]) -> Checked:
        """The same with what the parts changed in its counts."""
        figures = self.counts.model_dump()
        for part in applied:
            for name in ("created", "updated", "removed", "unchanged", "merged", "erased"):
                figures[name] += part.get(name, 0)
        doubled = sum(part.get("doubled", 0) for part in applied)
        warned = self.with_warnings([DOUBLED.format(doubled)] if doubled else [])
        warned = warned.with_warnings([DELETED] if any(part.get("gone") for part in applied) else [])
        return warned.model_copy(update={"counts": Counts(**figures)})

    def with_warnings(self, more: Iterable[str]) -> Checked:
        """The same with more warnings."""
        return self.model_copy(update={"warnings": [*self.warnings, *more]})

    def without(self, lost: Iterable[str]) -> Checked:
        """The same with the rows of lost parts rejected, where not even their error file could be written (P6)."""
        rows = sum(self.parts[part] for part in lost)
        accepted, rejected = self.counts.accepted - rows, self.counts.rejected + rows
        counts = self.counts.model_copy(update={"accepted": accepted, "rejected": rejected})
        return self.with_warnings([UNREPORTED]).model_copy(update={"counts": counts})


def interleaved(units: Sequence[str]) -> list[str]:
    """Units, given in the order of their ranges, such that neighbours lie in different slices of the stored profiles.

    Who writes a slice holds it until the transaction ends: two parts of one slice would be applied one after the other.
    """
    step = -(-len(units) // SLICES)
    return [unit for first in range(step) for unit in units[first::step]]


class Rehearsed(BaseModel):
    """What applying a part would do: its counts, and some people, by what would be done to them: row number and id."""

    counts: dict[str, int]
    samples: dict[str, list[tuple[int, str]]] = {}


class Scratch:
    """Streams of one attempt, kept as sealed blobs (`pipeline.parts.Folder`); `lasting` if others read them later."""

    def __init__(self, blobs: BlobStore, keys: AccountKeys, folder: str, *, lasting: bool = True) -> None:
        self._lasting = lasting
        self._blobs = blobs
        self._keys = keys
        self._folder = folder
        self._begun: list[BlobWriter] = []

    def create(self, name: str) -> BinaryIO:
        """Start a new stream; it is there once its file is closed."""
        blob = self._blobs.create(f"{self._folder}/{name}", self._keys, lasting=self._lasting, hashed=False)
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


def means(job: Job) -> tuple[BlobStore, AccountKeys]:
    """The blobs, and the keys of the account."""
    return _blobs(job.place.blobs), AccountKeys.from_worker(job.keys)


@cache
def _blobs(place: str | Path) -> BlobStore:
    return open_store(place)


@cache
def engine(url: str) -> Engine:
    """This process's own connections, kept over its tasks."""
    return store.engine(url, pool_size=CONNECTIONS, settings=store.BULK | FROZEN | UNHURRIED)


def error_file_expired(ingestion: Ingestion | Row[Any]) -> bool:
    """Whether an ingestion has ended with an error file, which is not kept any more."""
    return (
        ingestion.error_blob is None
        and ingestion.status in {Status.COMPLETED, Status.FAILED}
        and ingestion.counts["rejected"] > 0
        and UNREPORTED not in ingestion.warnings
    )
