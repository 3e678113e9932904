"""What is stored about an account's people, for resolving a file: set-based, one join for each question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Final, LiteralString
from uuid import UUID

import polars as pl
from psycopg import Connection, sql

from ingestd.store.load.stage import Cursors, copy, cursor, place, probe_only, slices

MOVED: Final = """
SELECT a.hash, t.profile_id FROM asked a
JOIN {} t ON t.account_id = %(account)s AND t.kind = a.kind AND t.hash = a.hash
WHERE t.profile_id <> a.id
"""

REDIRECTED: Final = """
SELECT a.hash, coalesce(r.survivor_id, t.profile_id, a.hash) FROM asked a
LEFT JOIN {} t ON t.account_id = %(account)s AND t.kind = a.kind AND t.hash = a.hash
LEFT JOIN profile_redirects r ON r.account_id = %(account)s AND r.profile_id = coalesce(t.profile_id, a.hash)
WHERE coalesce(r.survivor_id, t.profile_id) <> a.id
"""
"""The same for an account in which people were merged."""

_NONE = pl.DataFrame(schema={"hash": pl.String, "id": pl.String})


class KnownPeople:
    """Answers `pipeline.resolve.Known`: each answer is a transaction of its own, as many at once as connections."""

    def __init__(self, connections: Iterable[Connection[Any]], account_id: UUID) -> None:
        self._free: SimpleQueue[Connection[Any]] = SimpleQueue()
        for connection in connections:
            self._free.put(connection)
        self._account = account_id
        self.any = self._exists("profiles")
        """Whether the account has people at all; if not, there is nothing to ask."""
        self._redirects = self.any and self._exists("profile_redirects")

    def kinds(self, kinds: Iterable[int]) -> set[int]:
        """Of some kinds, those of which an identifier may belong to somebody else than its own hash says."""
        return {kind for kind in kinds if self._redirects or self._exists("profile_aliases", kind)}

    def moved(self, asked: pl.DataFrame) -> pl.DataFrame:
        """Of the identifiers asked ("kind", "hash", "id"), those stored for another person than "id": "hash", "id"."""
        asked = asked.filter(pl.col("kind").is_in(self.kinds(asked["kind"].unique())))
        return self._answer(asked, "profile_aliases", REDIRECTED if self._redirects else MOVED)

    def founders(self, asked: pl.DataFrame) -> pl.DataFrame:
        """Of the identifiers asked ("kind", "hash", "id"), those whose hash is the id of a stored person: "hash"."""
        kinds = [kind for kind in asked["kind"].unique() if kind == 1 or self._exists("profile_kinds", kind)]
        return self._answer(
            asked.filter(pl.col("kind").is_in(kinds)),
            "profiles",
            """
            SELECT a.hash, t.profile_id FROM asked a
            JOIN {} t ON t.account_id = %(account)s AND t.profile_id = a.hash
            """,
        ).select("hash")

    def people(self, ids: pl.Series) -> pl.DataFrame:
        """The stored people of these ids: "id", their "identity" or null, and "origin", less for the older."""
        with self._cursor() as cur:
            cur.execute(
                """
                SELECT replace(profile_id::text, '-', ''), identifiers -> 'identity' ->> 0, origin FROM profiles
                WHERE account_id = %s AND profile_id = ANY (%s::uuid[])
                """,
                (self._account, ids.to_list()),
            )
            schema = {"id": pl.String, "identity": pl.String, "origin": pl.Int64}
            return pl.DataFrame(cur.fetchall(), schema=schema, orient="row")

    def _answer(self, asked: pl.DataFrame, table: str, question: LiteralString) -> pl.DataFrame:
        if asked.is_empty():
            return _NONE
        with self._cursor() as cur, cur.connection.transaction():
            probe_only(cur)
            cur.execute("CREATE TEMP TABLE asked (kind smallint, hash uuid, id uuid) ON COMMIT DROP")
            copy(cur, sql.Identifier("asked"), asked.sort("hash"), {"kind": "smallint", "hash": "uuid", "id": "uuid"})
            query = sql.SQL(question).format(place(table, slices(asked["hash"])))
            found = cur.execute(query, {"account": self._account}).fetchall()
        return pl.DataFrame({"hash": [h.hex for h, _ in found], "id": [p.hex for _, p in found]}, schema=_NONE.schema)

    def _exists(self, table: str, kind: int | None = None) -> bool:
        of_kind = sql.SQL("" if kind is None else " AND kind = %(kind)s")
        query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE account_id = %(account)s{})")
        with self._cursor() as cur:
            cur.execute(query.format(sql.Identifier(table), of_kind), {"account": self._account, "kind": kind})
            return cur.fetchall() == [(True,)]

    @contextmanager
    def _cursor(self) -> Iterator[Cursors]:
        connection = self._free.get()
        try:
            with cursor(connection) as cur:
                yield cur
        finally:
            self._free.put(connection)
