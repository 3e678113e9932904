"""Who is in a data source, what an ingestion changed there, and what a replace takes away (S66, S67, D16).

All of it belongs to the transaction that applies a part: what was touched by the ingestion is known by `updated_at`,
since all its rows have one stamp and no other ingestion has it. Whoever has anything that a source owns is in the
source, so where nobody is yet there is nothing to compare: those who enter go straight in by COPY.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import polars as pl
from psycopg import Connection, sql

from ingestd.domain.plan import Mode
from ingestd.store.base import SLICES
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
)

SAMPLE: Final = 10
"""People and rows that a dry run shows of each kind."""

STAGE: Final = "CREATE TEMP TABLE present (profile_id uuid) ON COMMIT DROP"

# What the source owns: the attributes that one of its ingestions changed last. A deleted one keeps its origin.
FORGET: Final = """
WITH owned AS (
    SELECT coalesce(array_agg(seq), '{{}}') AS seqs FROM ingestions
    WHERE data_source_id = %(source)s AND seq IS NOT NULL AND NOT dry_run
), gone AS (
    SELECT t.profile_id, t.updated_at = %(now)s AS touched, array_agg(a.name) AS names
    FROM {people} s JOIN {profiles} t ON t.account_id = %(account)s AND t.profile_id = s.profile_id, owned,
        LATERAL jsonb_object_keys(t.attributes - %(kept)s::text[]) AS a (name)
    WHERE coalesce((t.origins -> a.name)::bigint, t.origin) = ANY (owned.seqs)
    GROUP BY t.profile_id, t.updated_at
), forgotten AS (
    UPDATE {profiles} t SET
        attributes = t.attributes - gone.names,
        origins = coalesce(t.origins, '{{}}')
            || (SELECT jsonb_object_agg(name, %(seq)s) FROM unnest(gone.names) AS name),
        updated_at = %(now)s, digest = NULL
    FROM gone WHERE t.account_id = %(account)s AND t.profile_id = gone.profile_id
    RETURNING gone.touched
)
SELECT count(*) FILTER (WHERE NOT touched) FROM forgotten
"""

INSIDE: Final = """
SELECT EXISTS (
    SELECT FROM data_source_members WHERE account_id = %(account)s AND data_source_id = %(source)s
        AND profile_id BETWEEN %(first)s AND %(last)s
)
"""

ENTER: Final = """
WITH found AS (
    SELECT s.profile_id, m.profile_id IS NULL AS new, t.updated_at = %(now)s AS touched
    FROM present s
    JOIN {profiles} t ON t.account_id = %(account)s AND t.profile_id = s.profile_id
    LEFT JOIN data_source_members m
        ON m.account_id = %(account)s AND m.data_source_id = %(source)s AND m.profile_id = s.profile_id
), told AS (
    INSERT INTO data_source_changes (account_id, ingestion_id, profile_id, move)
    SELECT %(account)s, %(ingestion)s, profile_id, CASE WHEN new THEN 'entered' ELSE 'changed' END
    FROM found WHERE new OR touched
)
INSERT INTO data_source_members (account_id, data_source_id, profile_id)
SELECT %(account)s, %(source)s, profile_id FROM found WHERE new
"""

LEAVING: Final = """
CREATE TEMP TABLE leaving ON COMMIT DROP AS
SELECT profile_id FROM data_source_members m
WHERE account_id = %(account)s AND data_source_id = %(source)s
    AND NOT EXISTS (SELECT FROM present s WHERE s.profile_id = m.profile_id)
"""

LEAVE: Final = """
WITH gone AS (
    DELETE FROM data_source_members m USING leaving l
    WHERE m.account_id = %(account)s AND m.data_source_id = %(source)s AND m.profile_id = l.profile_id
    RETURNING m.profile_id
)
INSERT INTO data_source_changes (account_id, ingestion_id, profile_id, move)
SELECT %(account)s, %(ingestion)s, profile_id, 'left' FROM gone
"""

ABSENT: Final = """
SELECT m.profile_id, count(*) OVER () FROM data_source_members m
WHERE m.account_id = %(account)s AND m.data_source_id = %(source)s
    AND NOT EXISTS (SELECT FROM present s WHERE s.profile_id = m.profile_id)
LIMIT %(limit)s
"""

TOUCHED: Final = """
SELECT s.profile_id, CASE WHEN t.updated_at <> %(now)s THEN 'leave' WHEN t.created_at = %(now)s THEN 'create'
    ELSE 'update' END
FROM present s JOIN profiles t ON t.account_id = %(account)s AND t.profile_id = s.profile_id
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


def enter(
    connection: Connection[Any],
    ids: pl.Series,
    identifiers: Identifiers,
    *,
    kept: Sequence[str],
    source: Source,
    load: Load,
) -> int:
    """Bring the people of a part, whose changes have just been applied, into the data source.

    A replace also deletes what the source owns on them beside the attributes `kept`, those of the file. Gives how many
    were changed by that alone.
    """
    with cursor(connection) as cur:
        gone = erased(cur, identifiers, load)["id"]
        ids = ids.filter(~ids.is_in(gone.implode()))
        if ids.is_empty():
            return 0
        if not _anybody_inside(cur, ids, source, load):
            _enter(cur, ids, source, load)
            return 0
        profiles = place("profiles", slices(ids))
        probe_only(cur)
        _stage(cur, [ids])
        changed = _forget(cur, "present", profiles, kept, source, load) if source.mode is Mode.REPLACE else 0
        cur.execute(sql.SQL(ENTER).format(profiles=profiles), _parameters(source, load))
    return changed


def leave(connection: Connection[Any], ids: Iterable[pl.Series], *, source: Source, load: Load) -> int:
    """Take everybody out of the source but these, the people of the ingestion's file, with all that it owns on them."""
    with cursor(connection) as cur:
        lock_slices(cur, load.account_id, list(range(SLICES)))
        _stage(cur, ids)
        cur.execute(LEAVING, _parameters(source, load))
        _forget(cur, "leaving", sql.Identifier("profiles"), (), source, load)
        return cur.execute(LEAVE, _parameters(source, load)).rowcount


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
        [(id_.hex, what) for id_, what in found], schema={"id": pl.String, "what": pl.String}, orient="row"
    )


def _anybody_inside(cur: Cursors, ids: pl.Series, source: Source, load: Load) -> bool:
    """Whether anybody is in the source in the range of some sorted ids."""
    bounds = {"first": ids[0], "last": ids[-1]}
    return cur.execute(INSIDE, _parameters(source, load) | bounds).fetchall() == [(True,)]


def _enter(cur: Cursors, ids: pl.Series, source: Source, load: Load) -> None:
    """Bring people into the source of whom none is in it."""
    people = pl.DataFrame({"profile_id": ids, "move": pl.repeat("entered", ids.len(), eager=True)})
    owner = {"account_id": load.account_id, "data_source_id": source.id}
    copy(cur, sql.Identifier("data_source_members"), people, {"profile_id": "uuid"}, owner)
    cause = {"account_id": load.account_id, "ingestion_id": load.ingestion_id}
    copy(cur, sql.Identifier("data_source_changes"), people, {"profile_id": "uuid", "move": "text"}, cause)


def _stage(cur: Cursors, ids: Iterable[pl.Series]) -> None:
    cur.execute(STAGE)
    for each in ids:
        copy(cur, sql.Identifier("present"), each.unique().sort().to_frame("profile_id"), {"profile_id": "uuid"})


def _forget(
    cur: Cursors, people: str, profiles: sql.Identifier, kept: Sequence[str], source: Source, load: Load
) -> int:
    statement = sql.SQL(FORGET).format(people=sql.Identifier(people), profiles=profiles)
    ((changed,),) = cur.execute(statement, _parameters(source, load) | {"kept": list(kept)}).fetchall()
    return int(changed)


def _parameters(source: Source, load: Load) -> dict[str, object]:
    return {
        "account": load.account_id,
        "source": source.id,
        "ingestion": load.ingestion_id,
        "seq": load.seq,
        "now": load.now,
    }
