"""Changes of people go into `profiles`, one part in one transaction (S97 to S104, D48, D54, D55).

Whoever was last changed by the very same rows, which a digest tells, is as the file says already, and looked at no
further. Who is new goes by COPY straight into the slice. Others who are stored are staged, and updated by one statement
that computes the new values of a row once, compares them and writes only what changed, so that repeating a file writes
nothing. (MERGE would compute them in its condition and again in its SET, which took half as long again.)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import numpy as np
import polars as pl
from psycopg import Connection, sql
from psycopg.errors import UniqueViolation

from ingestd.store.base import SLICES
from ingestd.store.load.binary import Constant, Field
from ingestd.store.load.stage import (
    Cursors,
    Identifiers,
    Load,
    copy,
    cursor,
    cut,
    erased,
    lock_slices,
    partition,
    place,
    slices,
)
from ingestd.store.load.stored import with_stored

FIELDS: Final[dict[str, Field]] = {
    "profile_id": "uuid",
    "last_ts": "bigint",
    "attributes": "jsonb",
    "preferences": "jsonb",
    "identifiers": "jsonb",
    "digest": "bigint",
}
STAGED: Final[dict[str, Field]] = {
    "profile_id": "uuid",
    "ts": "bigint",
    "identifiers": "jsonb",
    "preferences": "jsonb",
    "assigned": "jsonb",
    "deleted": "text",
    "added": "jsonb",
    "removed": "jsonb",
    "digest": "bigint",
}
ALIASES: Final[dict[str, Field]] = {"kind": "smallint", "hash": "uuid", "profile_id": "uuid"}
AT_ONCE: Final = 32
"""Aliases that go to one slice before it is the next one's turn."""

STAGE: Final = """
CREATE TEMP TABLE stage (
    profile_id uuid, ts bigint, identifiers jsonb, preferences jsonb,
    assigned jsonb, deleted text, added jsonb, removed jsonb, digest bigint
) ON COMMIT DROP
"""

UPDATE: Final = """
WITH computed AS MATERIALIZED (
    SELECT s.profile_id, s.ts, s.digest, t.ctid AS place,
        nullif(CASE WHEN s.added IS NULL AND s.removed IS NULL THEN {assigned} ELSE {edited} END, t.attributes)
            AS attributes,
        CASE WHEN NOT t.preferences @> s.preferences THEN t.preferences || s.preferences END AS preferences,
        CASE WHEN NOT t.identifiers @> s.identifiers THEN t.identifiers || (
            SELECT jsonb_object_agg(key, list_edit(t.identifiers -> key, NULL, value)) FROM jsonb_each(s.identifiers)
        ) END AS identifiers
    FROM stage s JOIN {slice} t ON t.account_id = %(account)s AND t.profile_id = s.profile_id
    WHERE s.profile_id BETWEEN %(first)s AND %(last)s
), written AS (
    UPDATE {slice} t SET
        attributes = coalesce(c.attributes, t.attributes), preferences = coalesce(c.preferences, t.preferences),
        identifiers = coalesce(c.identifiers, t.identifiers),
        origins = CASE WHEN c.attributes IS NULL THEN t.origins ELSE coalesce(t.origins, '{{}}') || {origins} END,
        last_ts = coalesce(c.ts, t.last_ts), updated_at = %(now)s, digest = c.digest
    FROM computed c WHERE t.ctid = c.place AND coalesce(c.attributes, c.preferences, c.identifiers) IS NOT NULL
    RETURNING t.profile_id
)
SELECT encode(string_agg(uuid_send(profile_id), ''), 'hex') FROM written
UNION ALL SELECT replace(profile_id::text, '-', '') FROM computed WHERE identifiers IS NOT NULL
"""
"""Gives those who were written, all in the first row, and those with a new identifier.

What stays as it is, is null in `computed`. A row is found again by its place: safe under the lock of its slice.
"""

ASSIGNED: Final = """
CASE WHEN s.deleted IS NULL THEN t.attributes || s.assigned ELSE (t.attributes || s.assigned) - s.deleted::text[] END
"""

EDITED: Final = """
jsonb_set_lax({attributes}, ARRAY[{name}], CASE
    WHEN s.removed ? {name} THEN list_edit(t.attributes -> {name}, s.removed -> {name}, s.added -> {name})
    WHEN NOT s.added ? {name} OR s.added IS NULL THEN NULL
    WHEN jsonb_typeof(t.attributes -> {name}) IS DISTINCT FROM 'array'
        THEN list_edit(t.attributes -> {name}, NULL, s.added -> {name})
    WHEN t.attributes -> {name} @> (s.added -> {name}) THEN NULL
    WHEN jsonb_array_length(s.added -> {name}) = 1 THEN (t.attributes -> {name}) || (s.added -> {name})
    ELSE list_edit(t.attributes -> {name}, NULL, s.added -> {name}) END, true, 'return_target')
"""
"""One attribute after the other is set in the `attributes` that came before; what is null stays as it is.

What `list_edit` would do to a list with one value to add, the usual case, is done here: a call costs ten times as much.
"""

CHANGED: Final = "CASE WHEN c.attributes -> {name} IS DISTINCT FROM t.attributes -> {name} THEN {bit} ELSE 0 END"

TOGETHER: Final = 6
"""Of so many attributes the new origins are made beforehand, one JSON text for each way in which they can change."""


Changes = Callable[[pl.Series], pl.DataFrame]
"""Gives what `pipeline.fold.fold` makes of the rows of some people, given by their sorted ids."""


@dataclass(frozen=True, slots=True)
class Applied:
    """How many people a part created, updated and left as they were, and how many rows it skipped (T115)."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    erased: int = 0


@dataclass(frozen=True, slots=True)
class Names:
    """The names of the attributes in a file, and of those that have a column of operations."""

    attributes: Sequence[str] = ()
    lists: Sequence[str] = ()


def apply_profiles(
    connection: Connection[Any],
    people: pl.DataFrame,
    changes: Changes,
    identifiers: Identifiers,
    *,
    names: Names,
    load: Load,
) -> tuple[Applied, pl.Series]:
    """Apply the folded changes of a part's people in the caller's transaction; also gives the ids of whom it touched.

    `people` is what `pipeline.digest.digests` gives; its "digest" is null where nothing is to be known again.
    """
    with cursor(connection) as cur:
        numbers = slices(people["id"])
        lock_slices(cur, load.account_id, numbers)
        rows, count = _rows_folded(people), people.height
        people = people.join(erased(cur, identifiers, load), on="id", how="anti", maintain_order="left")
        skipped = rows - _rows_folded(people)
        if people.is_empty():
            return Applied(erased=skipped), people["id"]
        people = with_stored(cur, people, load)
        rest = people.filter((pl.col("digest") != pl.col("stored")).fill_null(value=True))
        if rest.is_empty():
            return Applied(unchanged=people.height, erased=skipped), rest["id"]
        changed = _with_digest(changes(rest["id"]), rest["digest"])
        is_new = rest["stored"].is_null()
        new, named, updated = rest["id"].filter(is_new), rest["id"].clear(), rest["id"].clear()
        if new.len() < rest.height:
            named, updated = _update(cur, changed.filter(~is_new), names, load)
        constants: dict[str, Constant] = {
            "account_id": load.account_id,
            "origin": load.seq,
            "created_at": load.now,
            "updated_at": load.now,
        }
        copy(cur, place("profiles", numbers), _rows(changed.filter(is_new)), FIELDS, constants)
        if new.len() or named.len():
            found = identifiers()
            if new.len() < count:
                found = found.filter(pl.col("id").is_in(pl.concat([new, named]).implode()))
            _add_names(cur, found, fresh=named.is_empty(), load=load)
    applied = Applied(new.len(), updated.len(), people.height - new.len() - updated.len(), skipped)
    return applied, pl.concat([new, updated])


def _with_digest(changes: pl.DataFrame, digest: pl.Series) -> pl.DataFrame:
    """Changes with the digests of their people; none where a second time would not do the same as nothing.

    A value that is removed and added goes to the end of its list, and so may past others that were added with it.
    """
    moves = pl.col("added").is_not_null() & pl.col("removed").is_not_null()
    return changes.with_columns(digest=pl.when(~moves).then(digest))


def _update(cur: Cursors, changes: pl.DataFrame, names: Names, load: Load) -> tuple[pl.Series, pl.Series]:
    """Update those who are stored. Gives the ids of those who got an identifier, and of those who were written."""
    cur.execute(STAGE)
    copy(cur, sql.Identifier("stage"), _staged(changes), STAGED)
    edited: sql.Composable = sql.SQL(ASSIGNED)
    for n in range(len(names.lists)):
        edited = sql.SQL(EDITED).format(attributes=edited, name=_text(f"list{n}"))
    origins, parameters = _origins(names.attributes, load.seq)
    parts = {"assigned": sql.SQL(ASSIGNED), "edited": edited, "origins": origins}
    parameters |= {"account": load.account_id, "now": load.now}
    parameters |= {f"list{n}": name for n, name in enumerate(names.lists)}
    named: list[str] = []
    updated: list[str] = []
    for number in slices(changes["id"]):
        bounds = {"first": UUID(int=number << 124), "last": UUID(int=(number + 1 << 124) - 1)}
        query = sql.SQL(UPDATE).format(slice=partition("profiles", number), **parts)
        (written,), *found = cur.execute(query, parameters | bounds).fetchall()
        updated += cut(written)
        named += [id_ for (id_,) in found]
    return pl.Series(named, dtype=pl.String), pl.Series(updated, dtype=pl.String)


def _staged(changes: pl.DataFrame) -> pl.DataFrame:
    """Changes as they are staged. What changes nothing is null: then nothing is computed of it."""
    names = pl.col("deleted").str.strip_prefix("[").str.strip_suffix("]")
    edits = pl.any_horizontal(pl.col("deleted", "added", "removed").is_not_null())
    return changes.select(
        pl.exclude("id", "deleted", "assigned", "preferences"),
        profile_id="id",
        deleted=pl.concat_str(pl.lit("{"), names, pl.lit("}")),
        assigned=pl.when(edits | (pl.col("assigned") != "{}")).then("assigned"),
        preferences=pl.when(pl.col("preferences") != "{}").then("preferences"),
    )


def _origins(names: Sequence[str], seq: int) -> tuple[sql.Composable, dict[str, object]]:
    """The origins of the attributes that an update changed, as an expression and its parameters.

    Each has a bit; the bits of those that changed are the place of their JSON text in a list of all there can be.
    """
    parameters: dict[str, object] = {f"name{n}": name for n, name in enumerate(names)}
    pieces: list[sql.Composable] = []
    for first in range(0, len(names), TOGETHER):
        texts = ["{}"]
        bits: list[sql.Composable] = [sql.SQL("1")]
        for n, name in enumerate(names[first : first + TOGETHER], first):
            bits.append(sql.SQL(CHANGED).format(name=_text(f"name{n}"), bit=sql.Literal(len(texts))))
            texts += [json.dumps(json.loads(text) | {name: seq}) for text in texts]
        parameters[f"origins{first}"] = texts
        texts_of = sql.SQL("({}::jsonb[])[{}]")
        pieces.append(texts_of.format(sql.Placeholder(f"origins{first}"), sql.SQL(" + ").join(bits)))
    while len(pieces) > 1:  # in pairs, for it takes as long as its operands to join two
        pieces = [sql.SQL("({})").format(sql.SQL(" || ").join(pieces[at : at + 2])) for at in range(0, len(pieces), 2)]
    return pieces[0] if pieces else sql.SQL("'{}'"), parameters


def _text(parameter: str) -> sql.Composable:
    """A name of the customer's: always a bound parameter, never a piece of a statement (T118)."""
    return sql.SQL("{}::text").format(sql.Placeholder(parameter))


def _rows_folded(people: pl.DataFrame) -> int:
    return int(people["rows"].sum())


def _rows(changes: pl.DataFrame) -> pl.DataFrame:
    """The rows of `profiles` for people who are not stored."""
    none = pl.col("assigned") == "{}"
    both = pl.concat_str(pl.col("assigned").str.strip_suffix("}"), pl.lit(","), pl.col("added").str.strip_prefix("{"))
    attributes = pl.when(pl.col("added").is_null()).then("assigned").when(none).then("added").otherwise(both)
    return changes.select("preferences", "identifiers", "digest", profile_id="id", last_ts="ts", attributes=attributes)


def _add_names(cur: Cursors, identifiers: pl.DataFrame, *, fresh: bool, load: Load) -> None:
    """Add the aliases of people who are new (all if `fresh`) or got an identifier, and the kinds that made one."""
    itself = pl.col("hash") == pl.col("id")
    aliases = identifiers.filter(~itself).sort("hash", "kind")
    repeated = (pl.col("hash") == pl.col("hash").shift()) & (pl.col("kind") == pl.col("kind").shift())
    aliases = aliases.filter(~repeated.fill_null(value=False)).rename({"id": "profile_id"})
    if not aliases.is_empty():
        _add_aliases(cur, aliases, load, fresh=fresh)
    kinds = identifiers.filter(itself & (pl.col("kind") > 1))["kind"].unique()
    cur.execute(
        "INSERT INTO profile_kinds SELECT %s, unnest(%s::smallint[]) ON CONFLICT DO NOTHING",
        (load.account_id, kinds.to_list()),
    )


def _add_aliases(cur: Cursors, aliases: pl.DataFrame, load: Load, *, fresh: bool) -> None:
    """Add those aliases that are not there. Of people who are all new none is, so they go straight in by COPY."""
    account = {"account_id": load.account_id}
    if fresh:
        with suppress(UniqueViolation), cur.connection.transaction():
            copy(cur, sql.Identifier("profile_aliases"), _spread(aliases), ALIASES, account)
            return
    cur.execute("CREATE TEMP TABLE alias (LIKE profile_aliases) ON COMMIT DROP")
    copy(cur, sql.Identifier("alias"), aliases, ALIASES, account)
    cur.execute("INSERT INTO profile_aliases SELECT * FROM alias ON CONFLICT DO NOTHING")


def _spread(sorted_rows: pl.DataFrame) -> pl.DataFrame:
    """Rows sorted by hash, some of each slice in turn, for a COPY into all of them.

    COPY holds a thousand rows back, each in a slot of its partition, and a slot costs more the more slots there are.
    """
    turns = -(-sorted_rows.height // (SLICES * AT_ONCE))
    places = np.arange(SLICES * turns * AT_ONCE).reshape(SLICES, turns, AT_ONCE).swapaxes(0, 1).ravel()
    return sorted_rows[places[places < sorted_rows.height]]
