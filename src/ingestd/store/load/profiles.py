"""Changes of people go into `profiles`, one part in one transaction (S97 to S104, D48, D54, D55).

Whoever was last changed by the very same rows, which a digest tells, is as the file says already, and looked at no
further. Who is new goes by COPY straight into the slice. Of others who are stored, what they have under the names of
the file is read, the file is folded onto it, and whoever becomes another is written by one plain statement, so that
repeating a file writes nothing. PostgreSQL looks into no value: its expressions over JSON cost it twice as much.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl
from psycopg import Connection, sql

from ingestd.domain.errors import Unavailable
from ingestd.store.load.aliases import remove_aliases
from ingestd.store.load.binary import Constant, Field
from ingestd.store.load.stage import (
    Cursors,
    Identifiers,
    Load,
    by_slice,
    copy,
    cursor,
    erased,
    lock_slices,
    partition,
    place,
    slices,
    told_apart,
    unnested,
)
from ingestd.store.load.stored import values, with_stored

CHANGED: Final[dict[str, Field]] = {
    "last_ts": "bigint",
    "attributes": "json",
    "preferences": "json",
    "identifiers": "json",
    "digest": "bigint",
}
CREATED: Final[dict[str, Field]] = {"profile_id": "uuid", **CHANGED}
UPDATED: Final[dict[str, Field]] = {"place": "tid", **CHANGED, "origins": "jsonb"}
REPEATED: Final = "preferences", "origins"
"""Of these, many people have the same."""

STATEMENT_BYTES: Final = 2 * 1024 * 1024
"""Of JSON in one statement: for larger parameters the server takes memory from the system, page by page, each time."""

UPDATE: Final = """
UPDATE {slice} t SET
    attributes = coalesce(s.attributes, t.attributes), preferences = coalesce(s.preferences, t.preferences),
    identifiers = coalesce(s.identifiers, t.identifiers),
    origins = CASE WHEN s.origins IS NULL THEN t.origins ELSE coalesce(t.origins, '{{}}') || s.origins END,
    last_ts = coalesce(s.last_ts, t.last_ts), updated_at = %(now)s, digest = nullif(s.digest, 0)
FROM (SELECT %(account)s::uuid AS account_id, {selected}) s
WHERE t.ctid = s.place AND t.account_id IS NOT DISTINCT FROM s.account_id
"""
"""What stays as it is, is null in `s`. Rows stay where they were found as long as their slices are held, for whoever
writes people holds them. The account is compared in a way that no index serves: its people are not to be gone through.
"""

Changes = Callable[[pl.Series, pl.DataFrame | None], pl.DataFrame]
"""Folds the rows of some people, given by their sorted ids, onto what is stored of them: see `pipeline.fold.fold`."""


@dataclass(frozen=True, slots=True)
class Applied:
    """How many people a part created, updated and left as they were, and how many rows it skipped (T115)."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    erased: int = 0


def apply_profiles(
    connection: Connection[Any],
    people: pl.DataFrame,
    changes: Changes,
    identifiers: Identifiers,
    *,
    columns: Sequence[str],
    load: Load,
) -> tuple[Applied, pl.Series]:
    """Apply the folded changes of a part's people in the caller's transaction; also gives the ids of whom it touched.

    `people` is what `pipeline.digest.digests` gives; its "digest" is null where nothing is to be known again. `columns`
    are those of the rows.
    """
    with cursor(connection) as cur:
        numbers = slices(people["id"])
        lock_slices(cur, load.account_id, numbers)
        read = _rows_folded(people)
        gone = erased(cur, identifiers, load)
        if gone.height:
            remove_aliases(cur, identifiers().join(gone, on="id", how="semi"), load)
            people = people.join(gone, on="id", how="anti", maintain_order="left")
        skipped = read - _rows_folded(people)
        if people.is_empty():
            return Applied(erased=skipped), people["id"]
        people = with_stored(cur, people, load)
        rest = people.filter((pl.col("digest") != pl.col("stored")).fill_null(value=True))
        if rest.is_empty():
            return Applied(unchanged=people.height, erased=skipped), rest["id"]
        is_new = rest["stored"].is_null()
        updated = _update(cur, rest.filter(~is_new), changes, columns, load)
        added = rest.filter(is_new)
        new = added["id"]
        if new.len():
            constants: dict[str, Constant] = {
                "account_id": load.account_id,
                "origin": load.seq,
                "created_at": load.now,
                "updated_at": load.now,
            }
            rows = _with_digest(changes(new, None), added["digest"])
            copy(cur, place("profiles", numbers), rows, CREATED, constants)
    applied = Applied(new.len(), updated.len(), people.height - new.len() - updated.len(), skipped)
    return applied, pl.concat([new, updated])


def _with_digest(changes: pl.DataFrame, digest: pl.Series) -> pl.DataFrame:
    """Changes as rows with the digests of their people; none where the same rows would do something a second time."""
    return changes.rename({"id": "profile_id", "ts": "last_ts"}).with_columns(
        digest=pl.when(~pl.col("moves")).then(digest)
    )


def _update(cur: Cursors, people: pl.DataFrame, changes: Changes, columns: Sequence[str], load: Load) -> pl.Series:
    """Update those who are stored; gives the ids of those who were written."""
    updated = [people["id"].clear()]
    parameters = {"account": load.account_id, "now": load.now}
    for asked, stored in values(cur, people, columns, load):
        changed = _with_digest(changes(asked["id"], stored), asked["digest"]).with_columns(asked["place"])
        parts = "attributes", "preferences", "identifiers"
        changed = changed.filter(pl.any_horizontal(pl.col(parts).is_not_null()))
        if changed.is_empty():
            continue
        changed = changed.with_columns(_origins(changed["changed"], load.seq), pl.col("digest").fill_null(0))
        size = sum(int(changed[part].str.len_bytes().sum()) for part in parts)
        at_once = max(1, changed.height * STATEMENT_BYTES // size)
        for number, rows in by_slice(changed):
            for some in rows.iter_slices(at_once):
                selected, arrays = unnested(some, UPDATED, REPEATED)
                statement = sql.SQL(UPDATE).format(slice=partition("profiles", number), selected=selected)
                if cur.execute(statement, parameters | arrays).rowcount < some.height:
                    raise Unavailable("People were changed by somebody who does not hold their slices.")
        ids = changed["profile_id"]
        updated.append(ids)
    return pl.concat(updated)


def _origins(changed: pl.Series, seq: int) -> pl.Series:
    """The origins that go with lists of attributes that changed."""
    different, numbers = told_apart(changed)
    origins = [json.dumps(dict.fromkeys(json.loads(names), seq), ensure_ascii=False) for names in different]
    return pl.Series("origins", origins, dtype=pl.String).gather(numbers)


def _rows_folded(people: pl.DataFrame) -> int:
    return int(people["rows"].sum())
