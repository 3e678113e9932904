"""What is stored about an account's people, for resolving a file: set-based, one join for each question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Final, LiteralString
from uuid import UUID

import polars as pl
from psycopg import Connection, sql

from ingestd.hashes import from_bytes
from ingestd.store.load.stage import Cursors, copy, cursor, place, probe_only, slices, uuids
from ingestd.store.load.stored import AT_ONCE, CROWD, FEW

PAIRS: Final = "SELECT string_agg(uuid_send(hash) || uuid_send(id), '') FROM ({}) AS found (hash, id)"
"""Hashes and ids in one value, which costs a fraction of as many rows."""

MOVED: Final = """
SELECT a.hash, t.profile_id FROM asked a
LEFT JOIN {} t ON t.account_id = %(account)s AND t.kind = a.kind AND t.hash = a.hash
"""

REDIRECTED: Final = """
SELECT a.hash, coalesce(r.survivor_id, t.profile_id) FROM asked a
LEFT JOIN {} t ON t.account_id = %(account)s AND t.kind = a.kind AND t.hash = a.hash
LEFT JOIN profile_redirects r ON r.account_id = %(account)s AND r.profile_id = coalesce(t.profile_id, a.hash)
WHERE coalesce(r.survivor_id, t.profile_id) IS NOT NULL
"""
"""The same for an account in which people were merged."""

FOUNDERS: Final = """
SELECT a.hash, t.profile_id FROM asked a LEFT JOIN {} t ON t.account_id = %(account)s AND t.profile_id = a.hash
"""

RANGE: Final = """
SELECT hash, profile_id FROM {}
WHERE account_id = %(account)s AND kind = %(kind)s AND hash BETWEEN %(first)s AND %(last)s LIMIT %(most)s
"""
"""All identifiers of a kind in a range: a fraction of what it costs to look each of them up."""

PEOPLE: Final = """
SELECT string_agg(uuid_send(profile_id), ''), array_agg(identifiers -> 'identity' ->> 0), array_agg(origin)
FROM (SELECT %(account)s::uuid AS account_id, unnest(%(ids)s::uuid[]) AS profile_id) asked
JOIN profiles USING (account_id, profile_id)
"""

_NONE = pl.DataFrame(schema={"hash": pl.UInt128, "id": pl.UInt128})


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
        """Of the identifiers asked ("kind", "hash"), those stored for a person of another id: "hash", "id"."""
        asked = asked.filter(pl.col("kind").is_in(self.kinds(asked["kind"].unique())))
        if self._redirects:
            return self._answer(asked, "profile_aliases", REDIRECTED)
        answers = [_NONE]
        for of_kind in asked.partition_by("kind"):
            some = of_kind.sort("hash") if of_kind.height > AT_ONCE else of_kind
            answers += map(self._moved, some.iter_slices(AT_ONCE))
        return pl.concat(answers)

    def _moved(self, asked: pl.DataFrame) -> pl.DataFrame:
        """The same of identifiers of one kind."""
        stored = self._in_range(asked) if asked.height > FEW else None
        if stored is None:
            return self._answer(asked, "profile_aliases", MOVED)
        return stored.join(asked, on="hash", how="semi")

    def _in_range(self, asked: pl.DataFrame) -> pl.DataFrame | None:
        """What is stored in the range of some identifiers; None where that is far more."""
        first, last, most = asked["hash"].min(), asked["hash"].max(), CROWD * asked.height
        assert isinstance(first, int)
        assert isinstance(last, int)
        names = {"account": self._account, "kind": asked["kind"][0], "most": most}
        names |= {"first": UUID(int=first), "last": UUID(int=last)}
        with self._cursor() as cur, cur.connection.transaction():
            probe_only(cur)
            stored = _pairs(cur, sql.SQL(RANGE).format(place("profile_aliases", slices(asked["hash"]))), names)
        return stored if stored.height < most else None

    def founders(self, asked: pl.DataFrame) -> pl.DataFrame:
        """Of the identifiers asked ("kind", "hash"), those whose hash is the id of a stored person: "hash"."""
        kinds = [kind for kind in asked["kind"].unique() if kind == 1 or self._exists("profile_kinds", kind)]
        return self._answer(asked.filter(pl.col("kind").is_in(kinds)), "profiles", FOUNDERS).select("hash")

    def people(self, ids: pl.Series) -> pl.DataFrame:
        """The stored people of these ids: "id", their "identity" or null, and "origin", less for the older."""
        with self._cursor() as cur, cur.connection.transaction():
            probe_only(cur)
            asked = {"account": self._account, "ids": uuids(ids.sort())}
            ((found, identities, origins),) = cur.execute(PEOPLE, asked, binary=True).fetchall()
        return from_bytes(found, "id").with_columns(
            pl.Series("identity", identities or [], pl.String), pl.Series("origin", origins or [], pl.Int64)
        )

    def _answer(self, asked: pl.DataFrame, table: str, question: LiteralString) -> pl.DataFrame:
        if asked.is_empty():
            return _NONE
        with self._cursor() as cur, cur.connection.transaction():
            probe_only(cur)
            cur.execute("CREATE TEMP TABLE asked (kind smallint, hash uuid) ON COMMIT DROP")
            copy(cur, sql.Identifier("asked"), asked.sort("hash"), {"kind": "smallint", "hash": "uuid"})
            query = sql.SQL(question).format(place(table, slices(asked["hash"])))
            return _pairs(cur, query, {"account": self._account})

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


def _pairs(cur: Cursors, query: sql.Composable, parameters: dict[str, Any]) -> pl.DataFrame:
    """What a query finds: "hash" and "id"."""
    ((packed,),) = cur.execute(sql.SQL(PAIRS).format(query), parameters, binary=True).fetchall()
    return from_bytes(packed, "hash", "id").select("hash", "id")
