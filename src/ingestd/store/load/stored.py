"""Who of a part's people is stored, by which rows they were last changed, and what they have under a file's names.

The former is asked once, before anything is folded; the latter of those whom other rows changed last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final
from uuid import UUID

import numpy as np
import polars as pl
from psycopg import Connection, sql

from ingestd.domain.identity import kind_word
from ingestd.hashes import from_bytes, joined
from ingestd.store.load.documents import taken_apart
from ingestd.store.load.stage import Cursors, Load, partition, place, probe_only, slices, uuids

FEW: Final = 1000
"""So many people are looked up one by one; of more, the range in which they lie is read."""

CROWD: Final = 4
"""A range that has so many times the people asked for is given up: to look each of them up takes less."""

AT_ONCE: Final = 200_000
"""So many people are asked for at once, which bounds the memory of the answer."""

LONG: Final = 1000
"""Bytes. Whoever has more, or has it compressed where it is stored, is looked up one by one."""

SHORT_AT_ONCE: Final = 35_000
"""So many of the others are asked for their values at once."""

MOST_BYTES: Final = 2 * 1024 * 1024
"""Of those who have more, as many are asked for at once as have so many bytes once they are decompressed."""

ANY_LENGTH: Final = 2**31 - 1
"""More bytes than any value has."""

SIZE: Final = f"""
CASE WHEN coalesce(pg_column_compression(attributes), pg_column_compression(identifiers)) IS NULL
    THEN pg_column_size(attributes) + pg_column_size(identifiers) ELSE {ANY_LENGTH} END
"""
"""The bytes of attributes and identifiers. Of compressed ones, which may be a hundredth, they are not known yet."""

ID: Final = [("id_high", ">u8"), ("id_low", ">u8")]

PERSON: Final = np.dtype([*ID, ("stored", ">i8"), ("place", ">i8"), ("size", ">u4")])
"""The id, the digest, the place of the row, and SIZE."""

PERSONS: Final = rf"""
string_agg(
    uuid_send(profile_id) || int8send(coalesce(digest, 0)) || '\x0000' || tidsend(found.ctid) || int4send({SIZE}), ''
)
"""

LENGTH: Final = np.dtype([*ID, ("size", ">u4")])

LENGTHS: Final = """
string_agg(uuid_send(profile_id) || int4send(octet_length(attributes::text) + octet_length(identifiers::text)), '')
"""
"""The id, and the bytes of attributes and identifiers once they are decompressed."""

DOCUMENTS: Final = {"identifiers": "k", "preferences": "p:", "attributes": "a:"}
"""What people have, and how the columns of a file begin that change it."""

IDS: Final = "string_agg(uuid_send(profile_id), '')"
LINES: Final = r"convert_to(string_agg({document}::text, E'\n'), 'UTF8')"
"""Documents, each on a line. Bytes: a text of Python's takes up to four times as much."""

RANGE: Final = """
SELECT {answer} FROM (
    SELECT ctid, * FROM {table} WHERE account_id = %(account)s AND profile_id BETWEEN %(first)s AND %(last)s
        AND {size} <= %(longest)s
    LIMIT %(most)s
) AS found
"""

EACH: Final = """
SELECT {answer} FROM (SELECT %(account)s::uuid AS account_id, unnest(%(ids)s::uuid[]) AS profile_id) AS asked
JOIN {table} AS found USING (account_id, profile_id)
"""
"""Both give one row, which costs a fraction of as many rows."""


def vacuum(connection: Connection[Any], table: str, numbers: Iterable[int]) -> None:
    """Note on the pages of some slices that their rows count for everybody, on a connection that commits by itself.

    Done while the pages are new this costs next to nothing, and pages that are marked are not looked at again. Left to
    the first reader after a checkpoint, every page would go to the log as a whole.
    """
    names = sql.SQL(", ").join(partition(table, number) for number in numbers)
    connection.execute(sql.SQL("VACUUM (SKIP_LOCKED, INDEX_CLEANUP OFF, TRUNCATE OFF) {}").format(names))


def with_stored(cur: Cursors, people: pl.DataFrame, load: Load) -> pl.DataFrame:
    """Some people, sorted by "id", with "stored": null who is not stored, else the digest that is, 0 for none.

    Also with "place", where their row is as long as the slice is held, and "size" (see SIZE). Whoever asks holds their
    slices. Plans are made of index probes alone from then on (`probe_only`).
    """
    probe_only(cur)
    return pl.concat(_with_stored(cur, some, load) for some in people.iter_slices(AT_ONCE))


def values(
    cur: Cursors, people: pl.DataFrame, columns: Sequence[str], load: Load
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """What people, of those that `with_stored` gave, have in the columns "k<kind>", "p:<name>" and "a:<name>".

    Gives some of the people, as many as may be held in memory, and their values in the same order: JSON text, or null.
    In "identifiers", "preferences" and "attributes" stands what they have there under other names (`taken_apart`), if
    there is any column for it.
    """
    is_long = pl.col("size") > LONG
    group = pl.col("size").cast(pl.Int64).cum_sum() // MOST_BYTES
    long = [
        each
        for some in people.filter(is_long).iter_slices(AT_ONCE)
        for each in _with_length(cur, some, load).with_columns(group=group).partition_by("group", maintain_order=True)
    ]
    short = people.filter(~is_long).iter_slices(SHORT_AT_ONCE)
    for some, longest in chain(((each, LONG) for each in short), ((each, None) for each in long)):
        if some.height:
            yield some, _values(cur, some["id"], columns, load, longest=longest)


def _with_stored(cur: Cursors, people: pl.DataFrame, load: Load) -> pl.DataFrame:
    (packed,) = _answer(cur, people["id"], sql.SQL(PERSONS), load, longest=ANY_LENGTH)
    return people.hstack(_unpacked(people["id"], packed, PERSON))


def _with_length(cur: Cursors, people: pl.DataFrame, load: Load) -> pl.DataFrame:
    (packed,) = _answer(cur, people["id"], sql.SQL(LENGTHS), load, longest=None)
    return people.drop("size").hstack(_unpacked(people["id"], packed, LENGTH))


def _unpacked(ids: pl.Series, packed: bytes | None, fields: np.dtype[Any]) -> pl.DataFrame:
    """What an answer has on people beside their ids, null where it has nothing."""
    found = np.frombuffer(packed or b"", fields)
    numbers = {name: found[name].astype(fields[name].newbyteorder("=")) for name in fields.names or ()}
    return _in_order(ids, joined(pl.DataFrame(numbers)))


def _values(cur: Cursors, ids: pl.Series, columns: Sequence[str], load: Load, *, longest: int | None) -> pl.DataFrame:
    named = {
        document: {column: column.removeprefix(prefix) for column in columns if column.startswith(prefix)}
        for document, prefix in DOCUMENTS.items()
    }
    named["identifiers"] = {column: kind_word(int(kind)) for column, kind in named["identifiers"].items()}
    asked = [document for document, names in named.items() if names]
    lines = [sql.SQL(LINES).format(document=sql.Identifier(document)) for document in asked]
    found, *documents = _answer(cur, ids, sql.SQL(", ").join([sql.SQL(IDS), *lines]), load, longest=longest)
    people = from_bytes(found, "id")
    for document, objects in zip(asked, documents, strict=True):
        values, others = taken_apart(objects, named[document])
        people = people.hstack([*values, others.alias(document)])
    return _in_order(ids, people)


def _in_order(ids: pl.Series, found: pl.DataFrame) -> pl.DataFrame:
    """What was found of people, given with their "id", in the order of those asked for; null where nothing."""
    if not ids.equals(found["id"]):  # a range is read in its order
        found = ids.to_frame("id").join(found, on="id", how="left", maintain_order="left")
    return found.drop("id")


def _answer(
    cur: Cursors,
    ids: pl.Series,
    answer: sql.Composable,
    load: Load,
    *,
    longest: int | None,
) -> tuple[Any, ...]:
    """What is stored of some people, by their sorted ids, and perhaps of others: one row of packed values.

    Of the others `longest` bytes are stored at most; without a number there are none, and all have much.
    """
    table = place("profiles", slices(ids))
    asked = {"account": load.account_id, "first": UUID(int=ids[0]), "last": UUID(int=ids[-1])}
    most = CROWD * ids.len()
    if longest is not None and ids.len() > FEW:
        within = sql.SQL(RANGE).format(answer=sql.SQL("count(*), {}").format(answer), table=table, size=sql.SQL(SIZE))
        limits = {"most": most, "longest": longest}
        ((count, *found),) = cur.execute(within, asked | limits, binary=True).fetchall()
        if count < most:
            return tuple(found)
    each = sql.SQL(EACH).format(answer=answer, table=table)
    (row,) = cur.execute(each, asked | {"ids": uuids(ids)}, binary=True).fetchall()
    return row
