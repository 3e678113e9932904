"""Applying the parts of a checked file in a data-plane process, each in one transaction with its ledger row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

from sqlalchemy import Connection

from ingestd.domain.notice import NoticeType
from ingestd.domain.plan import Mode, Target
from ingestd.ingest.checking import report_again
from ingestd.ingest.tell import tell_segment
from ingestd.ingest.work import (
    CONNECTIONS,
    LEAVE,
    REFRESH,
    SEGMENT,
    Checked,
    Job,
    Rehearsed,
    Scratch,
    engine,
    means,
)
from ingestd.pipeline.ahead import ahead
from ingestd.pipeline.digest import digests
from ingestd.pipeline.fold import events, fold_some, in_order
from ingestd.pipeline.identifiers import identifiers, naming
from ingestd.pipeline.links import read_links
from ingestd.pipeline.parts import everybody, inside, members, read, read_all
from ingestd.pipeline.phones import mobile_shape
from ingestd.pipeline.report import rejected_for
from ingestd.pipeline.resolve import TWO_PEOPLE
from ingestd.pipeline.seal import seal, seal_stored
from ingestd.pipeline.shorten import batches, groups, people
from ingestd.store import attributes, dump, fencing, ledger
from ingestd.store import engine as store
from ingestd.store.load.aliases import apply_aliases, apply_kinds
from ingestd.store.load.events import apply_events
from ingestd.store.load.merge import apply_merges
from ingestd.store.load.present import beside
from ingestd.store.load.profiles import Applied, apply_profiles
from ingestd.store.load.segments import Refresh, Refreshed, TooManyLeave, apply_segment
from ingestd.store.load.sources import SAMPLE, enter, leave, touched
from ingestd.store.load.stage import Load, clear

if TYPE_CHECKING:
    import polars as pl

TOUCHES: Final = ("create", "update", "leave")
"""What an ingestion does to the people of its file (`store.load.sources.touched`)."""

INTERNAL: Final = "internal"


def warm(database_url: str) -> None:
    """Have the patterns of all countries' phone numbers read, and connections opened, if the database answers.

    What this module imports is there by then.
    """
    mobile_shape()
    store.fill(engine(database_url), CONNECTIONS)


def apply_part(job: Job, checked: Checked, part: str, *, lost: bool) -> dict[str, int] | None:
    """Apply one part in one transaction with its ledger row; a repeat does nothing, a stale owner changes nothing.

    A part that is `lost` is only written off: its ledger row says how many rows were not applied. Where too many
    members would leave a segment nothing is done: gives how many, and of how many.
    """
    try:
        with engine(job.place.database_url).begin() as connection:
            if ledger.open_part(connection, job.ingestion_id, part):
                rows = sum(checked.parts[each] for each in checked.units().get(part, ()))
                figures = {"lost": rows} if lost else _apply(job, checked, part, connection)
                ledger.close_part(connection, job.ingestion_id, part, figures)
                fencing.guard(connection, job.ingestion_id, job.fence)
    except TooManyLeave as refusal:
        return {"leaving": refusal.leaving, "of": refusal.members}
    return None


def rehearse(job: Job, checked: Checked, part: str) -> Rehearsed:
    """Apply one part and take it back: a dry run does what an ingestion does, to the point of committing it."""
    blobs, keys = means(job)
    rows = None
    if part in checked.parts:
        rows = read(Scratch(blobs, keys, checked.folder), part, ["row_no", "id"]).group_by("id").min()
    with engine(job.place.database_url).connect() as connection, connection.begin() as transaction:
        counts = _apply(job, checked, part, connection)
        done = None if rows is None else touched(store.raw(connection), rows["id"], load=_load(job))
        transaction.rollback()
    if rows is None or done is None:
        return Rehearsed(counts=counts)
    done = rows.join(done, on="id").sort("row_no")
    some = {what: done.filter(what=what).head(SAMPLE).select("row_no", "id") for what in TOUCHES}
    samples = {what: [(row_no, UUID(int=id_).hex) for row_no, id_ in rows.iter_rows()] for what, rows in some.items()}
    return Rehearsed(counts=counts, samples=samples)


def people_of(job: Job, checked: Checked) -> list[UUID]:
    """Whom the rows of a small file have changed, as far as they were applied, and who became one."""
    blobs, keys = means(job)
    with engine(job.place.database_url).connect() as connection:
        parts = _not_lost(job, checked, connection)
    return [UUID(int=each) for each in everybody(Scratch(blobs, keys, checked.folder), parts, checked.merges)]


def report_lost(job: Job, checked: Checked, lost: Sequence[str]) -> Checked:
    """Write the error file anew with the rows of parts that could not be applied (P6)."""
    blobs, keys = means(job)
    late: dict[int, str] = {}
    if checked.rejects_blob is not None:
        with closing(blobs.open(checked.rejects_blob, keys)) as log:
            late |= dict.fromkeys(rejected_for(log, TWO_PEOPLE), TWO_PEOPLE)
    for name in lost:
        rows = read(Scratch(blobs, keys, checked.folder), name, ["row_no"])
        late |= dict.fromkeys(rows["row_no"], INTERNAL)
    counts, kept = report_again(job, late)
    return checked.model_copy(update={"counts": counts, **kept})


def discard(job: Job) -> None:
    """Remove what an ingestion that has ended leaves, of all its attempts: parts, and error files it does not name."""
    blobs, _ = means(job)
    with engine(job.place.database_url).begin() as connection:
        if not dump.may_remove_blobs(connection):
            return  # the sweep will
        row = fencing.peek(connection, job.ingestion_id)
        left = [*blobs.list(f"parts/{job.ingestion_id.hex}"), *blobs.list(f"errors/{job.ingestion_id.hex}")]
        blobs.delete({stored.name for stored in left} - {row.error_blob, row.rejects_blob})


def _apply(job: Job, checked: Checked, part: str, connection: Connection) -> dict[str, int]:
    if part == REFRESH:
        return _refresh(job, checked, connection)
    if part == SEGMENT:
        return _put_into_segment(job, checked, connection)
    blobs, keys = means(job)
    raw = store.raw(connection)
    load = _load(job)
    folder = Scratch(blobs, keys, checked.folder)
    if part == LEAVE:
        assert job.source is not None
        ids = (read(folder, name, ["id"])["id"] for name in checked.parts)
        return {"removed": leave(raw, ids, source=job.source, load=load)}
    if part in checked.aliases:
        apply_aliases(raw, read_links(folder, part), load=load, shared=True)
        return {}
    return _apply_rows(job, checked, part, connection)


def _apply_rows(job: Job, checked: Checked, part: str, connection: Connection) -> dict[str, int]:
    """Apply the rows of a part: as one group or, of very many, as several.

    Those whom they tie become one before, so that what the rows say of them is said last.
    """
    blobs, keys = means(job)
    raw = store.raw(connection)
    load = _load(job)
    folder = Scratch(blobs, keys, checked.folder)
    if not checked.apart():
        for name in checked.aliases:
            apply_aliases(raw, read_links(folder, name), load=load)
    merged = 0
    if checked.merges is not None:
        merged = apply_merges(raw, inside(read(folder, checked.merges), "survivor", part, checked.buckets), load=load)
    figures = Counter[str]()
    pieces = partial(batches, folder, part)
    if job.plan.target is Target.EVENTS:
        for rows in groups(pieces()):
            if figures:
                clear(raw)
            happened, bare = events(rows, int(job.started_at.timestamp()))
            named = cache(partial(identifiers, rows, keys.index_key, moved=checked.moved))
            applied = apply_events(raw, happened, partial(fold_some, bare), named, columns=bare.columns, load=load)
            apply_kinds(raw, naming(bare), load=load)
            figures.update(_figures(applied))
        return {**figures, "merged": merged}
    marked = attributes.personal(connection, job.account_id)
    unsealed = marked and attributes.personal(connection, job.account_id, unsealed=True)
    for rows in people(pieces):
        if figures:
            clear(raw)
        applied = _apply_people(job, checked, rows, connection, personal=marked, unsealed=unsealed)
        figures.update(_figures(applied))
    return {**figures, "merged": merged}


def _apply_people(
    job: Job,
    checked: Checked,
    rows: pl.DataFrame,
    connection: Connection,
    *,
    personal: Mapping[str, int | None],
    unsealed: Mapping[str, int | None],
) -> Applied:
    """Apply some people of a part, given with all their rows.

    What is stored of `unsealed` attributes, which were marked a while ago, may not be sealed yet: that comes after this
    ingestion.
    """
    _, keys = means(job)
    raw = store.raw(connection)
    load = _load(job)
    rows = in_order(rows)
    named = cache(partial(identifiers, rows, keys.index_key, moved=checked.moved))
    sealed, kinds = seal(rows, personal, keys)

    def changes(ids: pl.Series, stored: pl.DataFrame | None) -> pl.DataFrame:
        if stored is not None and unsealed:
            stored = seal_stored(stored, unsealed, keys)
        return fold_some(sealed, ids, stored, int(job.started_at.timestamp()), sealed=kinds)

    digested = digests(sealed)
    applied, touched_ones = apply_profiles(raw, digested, changes, named, columns=rows.columns, load=load)
    apply_kinds(raw, naming(rows), load=load)
    if job.source is not None:
        more = enter(
            raw, digested["id"], touched_ones, named, kept=_named(rows.columns, "a:"), source=job.source, load=load
        )
        applied = replace(applied, updated=applied.updated + more, unchanged=applied.unchanged - more)
    return applied


def _load(job: Job) -> Load:
    return Load(
        account_id=job.account_id,
        ingestion_id=job.ingestion_id,
        seq=job.seq,
        received_at=job.received_at,
        now=job.started_at,
    )


def _refresh(job: Job, checked: Checked, connection: Connection) -> dict[str, int]:
    """Apply all parts of a segment's file; a file that brings rows back, or is added, lets nobody leave."""
    assert job.segment_id is not None  # the target is a segment
    additive = checked.returned or job.plan.mode is Mode.APPEND
    refresh = Refresh(segment_id=job.segment_id, additive=additive, hold_above=job.plan.hold_above)
    blobs, keys = means(job)
    rows = read_all(Scratch(blobs, keys, checked.folder), checked.parts, checked.buckets)
    with store.autocommitting(job.place.database_url) as reading:
        whose = {"account_id": job.account_id, "segment_id": job.segment_id}
        buckets = beside(reading, rows, checked.buckets, **whose)
        return _figures(apply_segment(store.raw(connection), buckets, refresh, load=_load(job), ahead=ahead))


def _put_into_segment(job: Job, checked: Checked, connection: Connection) -> dict[str, int]:
    """Put the people of a data source's file into the segment's partition of the source's name; nobody leaves.

    Not those of parts that were lost. Of identifiers that are personal only the hash is kept with the members (D13).
    """
    assert job.segment_id is not None
    assert job.source is not None
    blobs, keys = means(job)
    masked = {kind for kind in attributes.personal(connection, job.account_id).values() if kind}
    refresh = Refresh(segment_id=job.segment_id, additive=True, hold_above=None)
    scratch = Scratch(blobs, keys, checked.folder)
    parts = _not_lost(job, checked, connection)
    entering = members(scratch, parts, keys.index_key, job.source.name, masked=masked)
    whose = {"account_id": job.account_id, "segment_id": job.segment_id}
    with store.autocommitting(job.place.database_url) as reading:
        buckets = (bucket for rows in entering for bucket in beside(reading, [rows], 1, **whose))
        done = apply_segment(store.raw(connection), buckets, refresh, load=_load(job), ahead=ahead)
    tell_segment(connection, NoticeType.SEGMENT_REFRESHED, job.segment_id, now=store.utc_now())
    return {"entered": done.created, "gone": done.gone}


def _not_lost(job: Job, checked: Checked, connection: Connection) -> list[str]:
    """The parts of a file whose rows were not given up."""
    lost = checked.lost(ledger.applied(connection, job.ingestion_id))
    return [name for name in checked.parts if name not in lost]


def _figures(applied: Applied | Refreshed) -> dict[str, int]:
    return {name: count for name, count in asdict(applied).items() if count}


def _named(columns: Iterable[str], prefix: str) -> list[str]:
    return [column.removeprefix(prefix) for column in columns if column.startswith(prefix)]
