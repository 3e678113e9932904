"""Who is in a data source, what an ingestion changed there, and what a replace takes away (S66, S67, D16).

All of it belongs to the transaction that applies a part. What was touched by the ingestion is also known by
`updated_at`, since all its rows have one stamp and no other ingestion has it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import numpy as np
import polars as pl
from psycopg import Connection, sql

from ingestd.domain.identity import SLICES
from ingestd.domain.plan import Mode
from ingestd.hashes import Bytes, from_bytes, to_bytes
from ingestd.store.load.binary import BEGIN, END, alike
from ingestd.store.load.stage import (
    Cursors,
    Identifiers,
    Load,
    copy,
    cursor,
    erased,
    lock_slices,
    place,
    probe_only,
    slices,
    uuids,
)
from ingestd.store.source_changes import TOLD_AT_ONCE, Move

SAMPLE: Final = 10
"""People and rows that a dry run shows of each kind."""

NOBODY: Final = pl.Series([], dtype=pl.UInt128)

STAGE: Final = "CREATE TEMP TABLE present (profile_id uuid) ON COMMIT DROP"

# What the source owns: the attributes that one of its ingestions changed last. A deleted one keeps its origin.
FORGET: Final = """
WITH owned AS (
    SELECT coalesce(array_agg(seq), '{{}}') AS seqs FROM ingestions
    WHERE data_source_id = %(source)s AND seq IS NOT NULL AND NOT dry_run
), gone AS (
    SELECT account_id, profile_id, t.updated_at = %(now)s AS touched, array_agg(a.name) AS names
    FROM (SELECT %(account)s::uuid AS account_id, profile_id FROM {people} OFFSET 0) s
        JOIN {profiles} t USING (account_id, profile_id), owned, LATERAL json_object_keys(t.attributes) AS a (name)
    WHERE a.name <> ALL (%(kept)s) AND coalesce((t.origins -> a.name)::bigint, t.origin) = ANY (owned.seqs)
    GROUP BY account_id, profile_id, t.updated_at
), forgotten AS (
    UPDATE {profiles} t SET
        attributes = (t.attributes::jsonb - gone.names)::json,
        origins = coalesce(t.origins, '{{}}')
            || (SELECT jsonb_object_agg(name, %(seq)s) FROM unnest(gone.names) AS name),
        updated_at = %(now)s, digest = NULL
    FROM gone WHERE t.account_id = gone.account_id AND t.profile_id = gone.profile_id
    RETURNING gone.profile_id, gone.touched
)
SELECT string_agg(uuid_send(profile_id), '') FILTER (WHERE NOT touched) FROM forgotten
"""

# Whether any file of the source can have given an attribute that is not kept; nearly always all of them have the same.
OWNS_MORE: Final = """
SELECT EXISTS (
    SELECT FROM ingestions, jsonb_each(plan -> 'columns') AS rule
    WHERE data_source_id = %(source)s AND seq IS NOT NULL AND NOT dry_run
        AND rule.value ->> 'kind' IS NULL AND NOT rule.value ->> 'name' = ANY (%(kept)s)
)
"""

ANYBODY: Final = """
SELECT EXISTS (
    SELECT FROM data_source_members WHERE account_id = %(account)s AND data_source_id = %(source)s
        AND profile_id BETWEEN %(first)s AND %(last)s
)
"""

INSIDE: Final = """
SELECT string_agg(uuid_send(profile_id), '') FROM data_source_members
WHERE account_id = %(account)s AND data_source_id = %(source)s AND profile_id = ANY (%(ids)s::uuid[])
"""

TELL: Final = "COPY data_source_changes (account_id, ingestion_id, move, last, people) FROM STDIN (FORMAT binary)"
UUIDS: Final = 2950
"""The server's number of the type that an array holds."""

LEAVING: Final = """
CREATE TEMP TABLE leaving ON COMMIT DROP AS
SELECT profile_id FROM data_source_members m
WHERE account_id = %(account)s AND data_source_id = %(source)s
    AND NOT EXISTS (SELECT FROM present s WHERE s.profile_id = m.profile_id)
"""

LEAVE: Final = """
WITH gone AS (
    DELETE FROM data_source_members m
    USING (SELECT %(account)s::uuid AS account_id, %(source)s::uuid AS source, profile_id FROM leaving OFFSET 0) l
    WHERE m.account_id = l.account_id AND m.data_source_id = l.source AND m.profile_id = l.profile_id
    RETURNING m.profile_id
)
SELECT string_agg(uuid_send(profile_id), '') FROM gone
"""

ABSENT: Final = """
SELECT m.profile_id, count(*) OVER () FROM data_source_members m
WHERE m.account_id = %(account)s AND m.data_source_id = %(source)s
    AND NOT EXISTS (SELECT FROM present s WHERE s.profile_id = m.profile_id)
LIMIT %(limit)s
"""

TOUCHED: Final = """
SELECT profile_id, CASE WHEN t.updated_at <> %(now)s THEN 'leave' WHEN t.created_at = %(now)s THEN 'create'
    ELSE 'update' END
FROM (SELECT %(account)s::uuid AS account_id, profile_id FROM present OFFSET 0) s
    JOIN profiles t USING (account_id, profile_id)
"""


@dataclass(frozen=True, slots=True)
class Source:
    """The data source of an ingestion, and whether the file takes the place of what is there."""

    id: UUID
    name: str
    mode: Mode


@dataclass(frozen=True, slots=True)
class Leavers:
    """Who would be taken out of a data source: how many, of how many, and some of their ids."""

    count: int
    members: int
    some: tuple[UUID, ...]


def enter(  # noqa: PLR0913 -- people, what was done to them, and for whom
    connection: Connection[Any],
    ids: pl.Series,
    touched: pl.Series,
    identifiers: Identifiers,
    *,
    kept: Sequence[str],
    source: Source,
    load: Load,
) -> int:
    """Bring the people of a part, of whom those `touched` have just been created or changed, into the data source.

    A replace also deletes what the source owns on them beside the attributes `kept`, those of the file. Gives how many
    were changed by that alone.
    """
    with cursor(connection) as cur:
        gone = erased(cur, identifiers, load)["id"]
        if not gone.is_empty():
            ids = ids.filter(~ids.is_in(gone.implode()))
        if ids.is_empty():
            return 0
        probe_only(cur)
        forgotten = NOBODY
        if source.mode is Mode.REPLACE and _owns_more(cur, kept, source, load):
            _stage(cur, [ids])
            forgotten = _forget(cur, "present", place("profiles", slices(ids)), kept, source, load)
        new = _enter(cur, ids, source, load)
        if new.len() < ids.len():
            touched = pl.concat([touched, forgotten])
            _tell(cur, Move.CHANGED, touched.filter(~touched.is_in(new.implode())), load)
        _tell(cur, Move.ENTERED, new, load)
    return forgotten.len()


def leave(connection: Connection[Any], ids: Iterable[pl.Series], *, source: Source, load: Load) -> int:
    """Take everybody out of the source but these, the people of the ingestion's file, with all that it owns on them."""
    with cursor(connection) as cur:
        lock_slices(cur, load.account_id, list(range(SLICES)))
        _stage(cur, ids)
        cur.execute(LEAVING, _parameters(source, load))
        probe_only(cur)
        _forget(cur, "leaving", sql.Identifier("profiles"), (), source, load)
        gone = _ids(cur.execute(LEAVE, _parameters(source, load), binary=True))
        _tell(cur, Move.LEFT, gone, load)
        return gone.len()


def leavers(connection: Connection[Any], ids: Iterable[pl.Series], *, source: Source, account_id: UUID) -> Leavers:
    """Who a replace with a file of these people would take out, without changing anything."""
    parameters = {"account": account_id, "source": source.id, "limit": SAMPLE}
    with cursor(connection) as cur, connection.transaction(force_rollback=True):
        _stage(cur, ids)
        found = cur.execute(ABSENT, parameters).fetchall()
        count = (
            "SELECT count(*) FROM data_source_members WHERE account_id = %(account)s AND data_source_id = %(source)s"
        )
        ((members,),) = cur.execute(count, parameters).fetchall()
    return Leavers(found[0][1] if found else 0, members, tuple(id_ for id_, _ in found))


def touched(connection: Connection[Any], ids: pl.Series, *, load: Load) -> pl.DataFrame:
    """What was done to the people of the part just applied: "id", and "create", "update" or "leave" as "what"."""
    with cursor(connection) as cur:
        cur.execute("DROP TABLE IF EXISTS present")
        _stage(cur, [ids])
        found = cur.execute(TOUCHED, {"account": load.account_id, "now": load.now}).fetchall()
    return pl.DataFrame(
        [(id_.int, what) for id_, what in found], schema={"id": pl.UInt128, "what": pl.String}, orient="row"
    )


def _owns_more(cur: Cursors, kept: Sequence[str], source: Source, load: Load) -> bool:
    asked = _parameters(source, load) | {"kept": list(kept)}
    return cur.execute(OWNS_MORE, asked).fetchall() == [(True,)]


def _enter(cur: Cursors, ids: pl.Series, source: Source, load: Load) -> pl.Series:
    """Bring people, by their sorted ids, into the source; gives those who were not in it."""
    asked = _parameters(source, load) | {"first": UUID(int=ids[0]), "last": UUID(int=ids[-1])}
    if cur.execute(ANYBODY, asked).fetchall() == [(True,)]:
        inside = _ids(cur.execute(INSIDE, asked | {"ids": uuids(ids)}, binary=True))
        ids = ids.filter(~ids.is_in(inside.implode()))
    owner = {"account_id": load.account_id, "data_source_id": source.id}
    copy(cur, sql.Identifier("data_source_members"), ids.to_frame("profile_id"), {"profile_id": "uuid"}, owner)
    return ids


def _tell(cur: Cursors, move: Move, ids: pl.Series, load: Load) -> None:
    """Write down what the ingestion did to some people, many of them in a row."""
    if ids.is_empty():
        return
    people = to_bytes(ids.sort())
    whole = len(people) // TOLD_AT_ONCE * TOLD_AT_ONCE
    rows = [_told(move, each, load) for each in (people[:whole].reshape(-1, TOLD_AT_ONCE, 16), people[None, whole:])]
    with cur.copy(TELL) as stream:
        stream.write(b"".join([BEGIN, *rows, END]))


def _told(move: Move, people: Bytes, load: Load) -> bytes:
    """Rows of as many people each, given by their ids, in the format of COPY."""
    count, size, width = people.shape
    if not count * size:
        return b""
    owner = load.account_id.bytes, load.ingestion_id.bytes, move.value.encode()
    length = struct.pack(">i", width)
    before = struct.pack(">h", len(owner) + 2) + b"".join(struct.pack(">i", len(each)) + each for each in owner)
    array = struct.pack(">6i", 5 * 4 + size * (4 + width), 1, 0, UUIDS, size, 1)
    sized = np.hstack([alike(length, count * size), people.reshape(-1, width)]).reshape(count, -1)
    return np.hstack([alike(before + length, count), people[:, -1], alike(array, count), sized]).tobytes()


def _ids(cur: Cursors) -> pl.Series:
    """The ids in an answer of one value: a fraction of what as many rows cost."""
    ((packed,),) = cur.fetchall()
    return from_bytes(packed, "id")["id"]


def _stage(cur: Cursors, ids: Iterable[pl.Series]) -> None:
    cur.execute(STAGE)
    for each in ids:
        copy(cur, sql.Identifier("present"), each.unique().sort().to_frame("profile_id"), {"profile_id": "uuid"})


def _forget(
    cur: Cursors, people: str, profiles: sql.Identifier, kept: Sequence[str], source: Source, load: Load
) -> pl.Series:
    """Delete what the source owns on some people beside the attributes `kept`; gives those not changed before."""
    statement = sql.SQL(FORGET).format(people=sql.Identifier(people), profiles=profiles)
    return _ids(cur.execute(statement, _parameters(source, load) | {"kept": list(kept)}, binary=True))


def _parameters(source: Source, load: Load) -> dict[str, object]:
    return {
        "account": load.account_id,
        "source": source.id,
        "ingestion": load.ingestion_id,
        "seq": load.seq,
        "now": load.now,
    }
