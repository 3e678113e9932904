"""What is stored about an account's people, for resolving a file: set-based, one join for each question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Final, LiteralString
from uuid import UUID

import numpy as np
import polars as pl
from psycopg import Connection, sql
from psycopg.rows import tuple_row

from ingestd.store.load.binary import from_digits
from ingestd.store.load.stage import Cursors, copy, cursor, place, probe_only, slices
from ingestd.store.load.stored import AT_ONCE, CROWD, FEW

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

RANGE: Final = """
SELECT string_agg(uuid_send(hash) || uuid_send(profile_id), '') FROM (
    SELECT hash, profile_id FROM {}
    WHERE account_id = %(account)s AND kind = %(kind)s AND hash BETWEEN %(first)s AND %(last)s LIMIT %(most)s
) AS found
"""
"""All identifiers of a kind in a range, in one value: a fraction of what it costs to look each of them up."""

HALVES: Final = ("high", "low", "first", "second")
"""What it is made of: the halves of a hash, and of an id."""

ROW: Final = np.dtype([(half, ">u8") for half in HALVES])

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
        halves = np.hstack([from_digits(asked[name]).view(">u8") for name in ("hash", "id")]).astype(np.uint64).T
        found = asked.select("hash", **dict(zip(HALVES, halves, strict=True))).join(
            stored, on=["high", "low"], suffix="_is"
        )
        found = found.filter((pl.col("first") != pl.col("first_is")) | (pl.col("second") != pl.col("second_is")))
        persons = found.select("first_is", "second_is").to_numpy().astype(">u8").tobytes().hex()
        ids = [persons[at : at + 32] for at in range(0, len(persons), 32)]
        return pl.DataFrame({"hash": found["hash"], "id": ids}, schema=_NONE.schema)

    def _in_range(self, asked: pl.DataFrame) -> pl.DataFrame | None:
        """What is stored in the range of some identifiers, by halves of hash and id; None where that is far more."""
        most = CROWD * asked.height
        names = {"account": self._account, "kind": asked["kind"][0], "most": most}
        names |= {"first": asked["hash"].min(), "last": asked["hash"].max()}
        with self._cursor() as cur, cur.connection.transaction():
            probe_only(cur)
            query = sql.SQL(RANGE).format(place("profile_aliases", slices(asked["hash"])))
            with cur.connection.cursor(binary=True, row_factory=tuple_row) as binary:
                ((packed,),) = binary.execute(query, names).fetchall()
        rows = np.frombuffer(packed or b"", ROW)
        return pl.DataFrame({half: rows[half].astype(np.uint64) for half in HALVES}) if len(rows) < most else None

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
