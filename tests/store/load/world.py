"""The way of one file's accepted rows into the database, as the flow takes it."""

from __future__ import annotations

import io
from dataclasses import asdict, astuple, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import polars as pl
import psycopg

from ingestd.pipeline.digest import digests
from ingestd.pipeline.fold import events, fold, in_order
from ingestd.pipeline.identifiers import identifiers, kinds_of, naming
from ingestd.pipeline.links import read_links
from ingestd.pipeline.parts import PartWriter, inside, read, rewrite
from ingestd.pipeline.resolve import resolve
from ingestd.pipeline.shorten import MOST_CELLS, groups, people
from ingestd.store import profiles
from ingestd.store.load.aliases import apply_aliases, apply_kinds
from ingestd.store.load.events import apply_events
from ingestd.store.load.merge import apply_merges
from ingestd.store.load.people import KnownPeople
from ingestd.store.load.profiles import Applied, apply_profiles
from ingestd.store.load.stage import Load, clear

KEY = "5a" * 32
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Memory:
    """Streams kept in memory."""

    def __init__(self) -> None:
        self.streams: dict[str, bytes] = {}

    def create(self, name: str) -> io.BytesIO:
        streams = self.streams

        class Stream(io.BytesIO):
            def close(self) -> None:
                streams[name] = self.getvalue()
                super().close()

        return Stream()

    def open(self, name: str) -> io.BytesIO:
        return io.BytesIO(self.streams[name])


def frame(rows: list[dict[str, Any]], **schema: Any) -> pl.DataFrame:
    """Accepted rows as the check gives them, numbered from 1 where they have no number; kinds 1 to 3 always exist."""
    types = {"row_no": pl.Int64, "k1": pl.String, "k2": pl.String, "k3": pl.String, "ts": pl.Int64} | schema
    numbered = [{"row_no": number} | row for number, row in enumerate(rows, start=1)]
    return pl.DataFrame(numbered, schema=types).with_columns(line_no=pl.col("row_no") + 1)


@dataclass
class Account:
    """An account whose files are walked one after the other."""

    connection: psycopg.Connection[Any]
    id: UUID = field(default_factory=uuid4)
    seq: int = 0

    def push(self, rows: pl.DataFrame, *, buckets: int = 1, received_at: datetime = NOW) -> dict[str, Any]:
        """Take one file's accepted rows all the way; gives the counts and the rows rejected late."""
        self.seq += 1
        known = KnownPeople([self.connection], self.id)
        folder, kinds = Memory(), kinds_of(rows.columns)
        looked_up = known.kinds(kinds) if known.any else ()
        writer = PartWriter(folder, folder, buckets=buckets, index_key=KEY, looked_up=looked_up)
        batch = max(3, rows.height // 4)
        for start in range(0, rows.height, batch):
            writer.write(rows.slice(start, batch))
        parts = writer.close()
        found = resolve(parts, folder, known if known.any else None, KEY)
        if not found.parts_stand:
            parts = rewrite(parts, folder, moved=found.moved, rejected=found.rejected)
        load = Load(
            account_id=self.id,
            ingestion_id=uuid4(),
            seq=self.seq,
            received_at=received_at,
            now=NOW + timedelta(hours=self.seq),
        )
        with self.connection.transaction():
            for name in found.aliases:
                apply_aliases(self.connection, read_links(folder, name), load=load)
        total: dict[str, Any] = {}
        merged = 0
        for name in parts.rows:
            part = read(folder, name)
            with self.connection.transaction():
                merges = inside(found.merges, "survivor", name, parts.buckets)
                merged += apply_merges(self.connection, merges, load=load)
                apply_kinds(self.connection, naming(part), load=load)
                for word, count in asdict(self._apply(part, load)).items():
                    total[word] = total.get(word, 0) + count
        return total | {"merged": merged, "rejected": sorted(found.rejected)}

    def _apply(self, part: pl.DataFrame, load: Load) -> Any:
        if "event_name" in part.columns:
            return self._append(part, load)
        total = Applied()
        # Every other small file goes one person after the other, as very many people do in groups.
        most = MOST_CELLS if load.seq % 2 or part.height > 100 else 0
        for rows in map(in_order, people(lambda: [part], most)):
            if total != Applied():
                clear(self.connection)
            named = partial(identifiers, rows, KEY)
            applied, _ = apply_profiles(
                self.connection,
                digests(rows),
                partial(_fold, rows),
                named,
                columns=part.columns,
                load=load,
            )
            total = Applied(*map(sum, zip(astuple(total), astuple(applied), strict=True)))
        return total

    def _append(self, part: pl.DataFrame, load: Load) -> Applied:
        """Append events in groups of two rows, as those of a part of very many rows are."""
        applied: list[Applied] = []
        for rows in groups(part.iter_slices(2), most=0):
            if applied:
                clear(self.connection)
            happened, bare = events(rows, 1_790_000_000)
            named = partial(identifiers, rows, KEY)
            changes = partial(_fold, bare)
            applied.append(apply_events(self.connection, happened, changes, named, columns=bare.columns, load=load))
        return Applied(created=sum(each.created for each in applied), erased=sum(each.erased for each in applied))

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(query, (self.id, *values)).fetchall()

    def people(self) -> dict[str, dict[str, Any]]:
        """Attributes by identity."""
        found = self.rows("SELECT identifiers -> 'identity' ->> 0, attributes FROM profiles WHERE account_id = %s")
        return dict(found)

    def named(self, kind: int, value: str) -> UUID | None:
        """The id of the profile that an identifier names."""
        hash_ = profiles.identifier_hash(KEY, kind, value)
        alias = self.rows(
            "SELECT profile_id FROM profile_aliases WHERE account_id = %s AND kind = %s AND hash = %s", kind, hash_
        )
        person = alias[0][0] if alias else hash_
        redirect = self.rows(
            "SELECT survivor_id FROM profile_redirects WHERE account_id = %s AND profile_id = %s", person
        )
        person = redirect[0][0] if redirect else person
        stored = self.rows("SELECT profile_id FROM profiles WHERE account_id = %s AND profile_id = %s", person)
        return stored[0][0] if stored else None


def _fold(rows: pl.DataFrame, ids: pl.Series, stored: pl.DataFrame | None) -> pl.DataFrame:
    return fold(rows.filter(pl.col("id").is_in(ids.implode())), stored=stored)
