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

ALIASES: Final = """
SELECT a.hash, t.profile_id FROM asked a
LEFT JOIN {profile_aliases} t ON t.account_id = %(account)s AND t.kind = a.kind AND t.hash = a.hash
"""

REDIRECTS: Final = """
SELECT a.hash, t.survivor_id FROM asked a
LEFT JOIN profile_redirects t ON t.account_id = %(account)s AND t.profile_id = a.hash
"""

FOUNDERS: Final = """
SELECT a.hash, t.profile_id FROM asked a
LEFT JOIN {profiles} t ON t.account_id = %(account)s AND t.profile_id = a.hash
"""

RANGE_OF_ALIASES: Final = """
SELECT hash, profile_id FROM {profile_aliases}
WHERE account_id = %(account)s AND kind = %(kind)s AND hash BETWEEN %(first)s AND %(last)s LIMIT %(most)s
"""
"""All identifiers of a kind in a range: a fraction of what it costs to look each of them up."""

RANGE_OF_REDIRECTS: Final = """
SELECT profile_id, survivor_id FROM profile_redirects
WHERE account_id = %(account)s AND profile_id BETWEEN %(first)s AND %(last)s LIMIT %(most)s
"""

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
        of_kinds = [some for some in asked.partition_by("kind") if self._exists("profile_aliases", some["kind"][0])]
        found = pl.concat([_NONE, *(self._found(some, RANGE_OF_ALIASES, ALIASES) for some in of_kinds)])
        if not self._redirects:
            return found
        named = asked.select("hash").join(found, on="hash", how="left").select("hash", person=pl.coalesce("id", "hash"))
        people = named.select(pl.lit(0, pl.Int16).alias("kind"), hash="person").unique()
        gone = self._found(people, RANGE_OF_REDIRECTS, REDIRECTS).rename({"hash": "person"})
        now = named.join(gone, on="person", how="left").select("hash", id=pl.coalesce("id", "person"))
        return now.filter(pl.col("id") != pl.col("hash"))

    def _found(self, asked: pl.DataFrame, in_range: LiteralString, each: LiteralString) -> pl.DataFrame:
        """What is stored of identifiers of one kind: read `in_range`, or `each` by itself if they are few."""
        found = [_NONE]
        for some in (asked.sort("hash") if asked.height > AT_ONCE else asked).iter_slices(AT_ONCE):
            stored = self._in_range(some, in_range) if some.height > FEW else None
            found.append(self._answer(some, each) if stored is None else stored.join(some, on="hash", how="semi"))
        return pl.concat(found)

    def _in_range(self, asked: pl.DataFrame, query: LiteralString) -> pl.DataFrame | None:
        """What is stored in the range of some identifiers; None where that is far more."""
        first, last, most = asked["hash"].min(), asked["hash"].max(), CROWD * asked.height
        assert isinstance(first, int)
        assert isinstance(last, int)
        names = {"account": self._account, "kind": asked["kind"][0], "most": most}
        names |= {"first": UUID(int=first), "last": UUID(int=last)}
        with self._cursor() as cur, cur.connection.transaction():
            probe_only(cur)
            stored = _pairs(cur, query, asked, names)
        return stored if stored.height < most else None

    def founders(self, asked: pl.DataFrame) -> pl.DataFrame:
        """Of the identifiers asked ("kind", "hash"), those whose hash is the id of a stored person: "hash"."""
        kinds = [kind for kind in asked["kind"].unique() if kind == 1 or self._exists("profile_kinds", kind)]
        return self._answer(asked.filter(pl.col("kind").is_in(kinds)), FOUNDERS).select("hash")

    def people(self, ids: pl.Series) -> pl.DataFrame:
        """The stored people of these ids: "id", their "identity" or null, and "origin", less for the older."""
        with self._cursor() as cur, cur.connection.transaction():
            probe_only(cur)
            asked = {"account": self._account, "ids": uuids(ids.sort())}
            ((found, identities, origins),) = cur.execute(PEOPLE, asked, binary=True).fetchall()
        return from_bytes(found, "id").with_columns(
            pl.Series("identity", identities or [], pl.String), pl.Series("origin", origins or [], pl.Int64)
        )

    def _answer(self, asked: pl.DataFrame, query: LiteralString) -> pl.DataFrame:
        if asked.is_empty():
            return _NONE
        with self._cursor() as cur, cur.connection.transaction():
            probe_only(cur)
            cur.execute("CREATE TEMP TABLE asked (kind smallint, hash uuid) ON COMMIT DROP")
            copy(cur, sql.Identifier("asked"), asked.sort("hash"), {"kind": "smallint", "hash": "uuid"})
            return _pairs(cur, query, asked, {"account": self._account})

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


def _pairs(cur: Cursors, query: LiteralString, asked: pl.DataFrame, parameters: dict[str, Any]) -> pl.DataFrame:
    """What a query finds of what is asked, in the slices in which that lies: "hash" and "id"."""
    numbers = slices(asked["hash"])
    places = {table: place(table, numbers) for table in ("profiles", "profile_aliases")}
    packed_pairs = sql.SQL(PAIRS).format(sql.SQL(query).format(**places))
    ((packed,),) = cur.execute(packed_pairs, parameters, binary=True).fetchall()
    return from_bytes(packed, "hash", "id").select("hash", "id")
