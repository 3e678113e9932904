"""Who of a part's people is stored, and by which rows they were last changed: asked once, before anything is folded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import polars as pl
from psycopg import Connection, sql
from psycopg.rows import tuple_row

from ingestd.store.load.binary import from_digits
from ingestd.store.load.stage import Cursors, Load, partition, place, probe_only, slices

FEW: Final = 1000
"""So many people are looked up one by one; of more, the range in which they lie is read."""

CROWD: Final = 4
"""A range that has so many times the people asked for is given up: to look each of them up takes less."""

AT_ONCE: Final = 200_000
"""So many people are asked for at once, which bounds the memory of the answer."""

ROW: Final = np.dtype([("high", ">u8"), ("low", ">u8"), ("stored", ">i8")])
"""What an answer is made of: the halves of an id, and the digest."""

RANGE: Final = """
SELECT string_agg(uuid_send(profile_id) || int8send(coalesce(digest, 0)), '') FROM (
    SELECT profile_id, digest FROM {} WHERE account_id = %(account)s AND profile_id BETWEEN %(first)s AND %(last)s
    LIMIT %(most)s
) AS found
"""

EACH: Final = """
SELECT string_agg(uuid_send(profile_id) || int8send(coalesce(digest, 0)), '')
FROM unnest(%(ids)s::uuid[]) AS asked (id) JOIN {} ON account_id = %(account)s AND profile_id = asked.id
"""
"""Both give one value, which costs a fraction of as many rows."""


def vacuum(connection: Connection[Any], table: str, numbers: Iterable[int]) -> None:
    """Note on the pages of some slices that their rows count for everybody, on a connection that commits by itself.

    Done while the pages are new this costs next to nothing, and pages that are marked are not looked at again. Left to
    the first reader after a checkpoint, every page would go to the log as a whole.
    """
    names = sql.SQL(", ").join(partition(table, number) for number in numbers)
    connection.execute(sql.SQL("VACUUM (SKIP_LOCKED, INDEX_CLEANUP OFF, TRUNCATE OFF) {}").format(names))


def with_stored(cur: Cursors, people: pl.DataFrame, load: Load) -> pl.DataFrame:
    """Some people, sorted by "id", with "stored": null who is not stored, else the digest that is, 0 for none.

    Whoever asks holds their slices. Plans are made of index probes alone from then on (`probe_only`).
    """
    probe_only(cur)
    table = place("profiles", slices(people["id"]))
    stored = pl.concat(_stored(cur, table, some["id"], load) for some in people.iter_slices(AT_ONCE))
    if stored.is_empty():
        return people.with_columns(stored=pl.lit(None, stored["stored"].dtype))
    halves = from_digits(people["id"]).view(">u8").astype(np.uint64)
    people = people.with_columns(high=halves[:, 0], low=halves[:, 1])
    return people.join(stored, on=["high", "low"], how="left", maintain_order="left").drop("high", "low")


def _stored(cur: Cursors, table: sql.Identifier, ids: pl.Series, load: Load) -> pl.DataFrame:
    """Those of some people who are stored, perhaps among others: the halves of their ids, and "stored"."""
    asked: dict[str, object] = {"account": load.account_id, "first": ids[0], "last": ids[-1]}
    found, most = None, CROWD * ids.len()
    if ids.len() > FEW:
        found = _read(cur, sql.SQL(RANGE).format(table), asked | {"most": most})
    if found is None or len(found) == most:
        found = _read(cur, sql.SQL(EACH).format(table), asked | {"ids": "{" + ids.str.join(",").item() + "}"})
    return pl.DataFrame({name: found[name].astype(ROW[name].newbyteorder("=")) for name in ("high", "low", "stored")})


def _read(cur: Cursors, query: sql.Composed, asked: dict[str, object]) -> Any:
    with cur.connection.cursor(binary=True, row_factory=tuple_row) as binary:
        ((packed,),) = binary.execute(query, asked).fetchall()
    return np.frombuffer(packed or b"", ROW)
