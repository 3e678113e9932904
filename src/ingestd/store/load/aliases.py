"""Aliases go into `profile_aliases`, a range of their hash in one transaction, before the people whom they name (D54).

Each slice of the table takes them in the order of its key, so its tree is written from left to right once for a file. A
part of people has identifiers everywhere: it would walk through the whole tree, and so would each of its followers.

Where the rows of a person could not be applied, the aliases are there without. Whoever comes with such an identifier
becomes the person whom it names; if another is known by what comes with it, the identifier is that one's from then on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any, Final

import polars as pl
from psycopg import Connection, sql
from psycopg.errors import UniqueViolation

from ingestd.domain.identity import SLICES, IdentifierKind
from ingestd.store.load.binary import Field
from ingestd.store.load.stage import Cursors, Load, copy, cursor, lock_slices, partition, slices, tombstones, uuids

FIELDS: Final[dict[str, Field]] = {"kind": "smallint", "hash": "uuid", "profile_id": "uuid"}

UPSERT: Final = """
INSERT INTO {table} AS t SELECT * FROM alias ON CONFLICT (account_id, kind, hash) DO UPDATE
SET profile_id = excluded.profile_id WHERE t.profile_id <> excluded.profile_id
    AND NOT EXISTS (SELECT FROM profiles p WHERE p.account_id = t.account_id AND p.profile_id = t.profile_id)
    AND NOT EXISTS (SELECT FROM profile_redirects r WHERE r.account_id = t.account_id AND r.profile_id = t.profile_id)
"""

FEW: Final = 1000
"""So many go into all slices at once: a COPY for each would take longer."""


def apply_aliases(
    connection: Connection[Any], aliases: Iterable[pl.DataFrame], *, load: Load, shared: bool = False
) -> None:
    """Add the aliases in some frames: "id" of the person, "kind" and "hash".

    Whoever was erased after the file was received gets none (T115). `shared`: others may add aliases at the same time,
    and nobody people until the transaction ends; else it holds all slices, and may write people afterwards.
    """
    with cursor(connection) as cur:
        lock_slices(cur, load.account_id, range(SLICES), shared=shared)
        stones = tombstones(cur, load)["hash"]
        for some in aliases:
            rows = some.rename({"id": "profile_id"}).sort("hash")
            if stones.len():
                rows = rows.filter(~pl.any_horizontal(pl.col("hash", "profile_id").is_in(stones.implode())))
            if rows.height > FEW:
                for number in slices(rows["hash"]):
                    of_slice = rows.filter(pl.col("hash") // 2**124 == number)
                    _add(cur, partition("profile_aliases", number), of_slice, load)
            else:
                _add(cur, sql.Identifier("profile_aliases"), rows, load)


def apply_kinds(connection: Connection[Any], kinds: Collection[int], *, load: Load) -> None:
    """Note of which kinds an identifier names people (`pipeline.identifiers.naming`): its hash may be their id."""
    others = [kind for kind in kinds if kind != IdentifierKind.IDENTITY]
    if others:
        query = "INSERT INTO profile_kinds SELECT %s, unnest(%s::smallint[]) ON CONFLICT DO NOTHING"
        connection.execute(query, (load.account_id, others))


def _add(cur: Cursors, table: sql.Identifier, aliases: pl.DataFrame, load: Load) -> None:
    """Add aliases that nobody had when the file was resolved; those that are there stay, if not of nobody."""
    account = {"account_id": load.account_id}
    with suppress(UniqueViolation), cur.connection.transaction():
        copy(cur, table, aliases, FIELDS, account)
        return
    cur.execute("DROP TABLE IF EXISTS alias")
    cur.execute("CREATE TEMP TABLE alias (LIKE profile_aliases) ON COMMIT DROP")
    copy(cur, sql.Identifier("alias"), aliases, FIELDS, account)
    cur.execute(sql.SQL(UPSERT).format(table=table))


def remove_aliases(cur: Cursors, identifiers: pl.DataFrame, load: Load) -> None:
    """Remove the aliases among some identifiers ("kind", "hash"): of people who were erased since the file came."""
    for (kind,), some in identifiers.group_by("kind"):
        query = "DELETE FROM profile_aliases WHERE account_id = %s AND kind = %s AND hash = ANY (%s::uuid[])"
        cur.execute(query, (load.account_id, kind, uuids(some["hash"])))
