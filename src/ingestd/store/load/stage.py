"""What all loads share: whose rows they are, the locks, and COPY from frames."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast
from uuid import UUID

import polars as pl
from psycopg import Connection, Cursor, sql
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.rows import TupleRow, tuple_row

from ingestd.hashes import from_bytes
from ingestd.store.load.binary import BEGIN, END, Constant, Field, array, encode
from ingestd.store.profiles import SLICE_KEY

Cursors = Cursor[TupleRow]

Identifiers = Callable[[], pl.DataFrame]
"""Gives what `pipeline.identifiers.identifiers` finds in a part; it is asked only where there is a use for them."""

RING_BYTES: Final = 6 * 1024 * 1024
"""Of rows that one COPY writes: what they fill then fits into the 16 MiB of buffers that the server gives to a COPY.

One that needs more writes its pages out itself, and before that waits until their log is on the disk, page after page.
Pages of people are filled to less than half.
"""

FEW_TEXTS: Final = 64
"""As many different texts are sent once each, and for a row the place of its own."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A parameter in PostgreSQL's own format; of which type it is, the statement says."""

    content: bytes


class _Packed(Dumper):
    format = Format.BINARY

    def dump(self, obj: Packed) -> bytes:
        return obj.content


NOBODY: Final = pl.DataFrame(schema={"id": pl.UInt128})
NO_CONSTANTS: Final[Mapping[str, Constant]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One ingestion as its parts are applied: `seq` is its number in the account's order.

    `received_at` is when the file came: people erased after that are skipped (T115). `now` stamps the rows.
    """

    account_id: UUID
    ingestion_id: UUID
    seq: int
    received_at: datetime
    now: datetime


def cursor(connection: Connection[Any]) -> Cursors:
    """A cursor that gives plain tuples, whatever the connection's own rows are."""
    cur = connection.cursor(row_factory=tuple_row)
    cur.adapters.register_dumper(Packed, _Packed)
    return cur


def lock_slices(cur: Cursors, account_id: UUID, slices: Iterable[int], *, shared: bool = False) -> None:
    """Hold slices of the account's profiles until the transaction ends, in one order for everybody.

    `shared` with others who only name profiles, and do not write them.
    """
    lock = sql.Identifier("pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock")
    query = sql.SQL("SELECT {lock}({key}) FROM unnest(%s::int[]) AS slice")
    cur.execute(query.format(lock=lock, key=sql.SQL(SLICE_KEY.format("%s"))), (account_id, sorted(slices)))


def slices(ids: pl.Series) -> list[int]:
    """The slices of the stored profiles in which some ids (or hashes) lie: their first four bits."""
    if ids.is_empty():
        return []
    first, last = (cast("int", edge) >> 124 for edge in (ids.min(), ids.max()))
    return [first] if first == last else (ids // 2**124).cast(pl.UInt8).unique().sort().to_list()


def by_slice(rows: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    """The rows that lie in each slice, by their "profile_id"."""
    numbers = slices(rows["profile_id"])
    for number in numbers:
        alone = len(numbers) == 1
        yield number, rows if alone else rows.filter(pl.col("profile_id") // 2**124 == number)


def place(table: str, numbers: list[int]) -> sql.Identifier:
    """The table to read and write for some slices: the slice's own partition if it is one."""
    return partition(table, numbers[0]) if len(numbers) == 1 else sql.Identifier(table)


def partition(table: str, number: int) -> sql.Identifier:
    """The partition of one slice."""
    return sql.Identifier(f"{table}_p_{number:02d}")


def clear(connection: Connection[Any]) -> None:
    """Let a second part of the work be staged in the same transaction."""
    with cursor(connection) as cur:
        cur.execute("DROP TABLE IF EXISTS alias, present")


def probe_only(cur: Cursors) -> None:
    """Let this transaction join by index probes alone.

    What is staged is sorted by the key of what it is joined with, so probes walk the index; and no plan depends on
    statistics, which neither a new temporary table nor a table that is being loaded has. What is asked also brings the
    account along, from where the planner does not see it as a constant: it takes an account that it does not know for
    one of next to nobody, and would go through all that is asked for each of its people.
    """
    kinds = ("hashjoin", "mergejoin", "seqscan", "material", "memoize")
    cur.execute("; ".join(f"SET LOCAL enable_{kind} = off" for kind in kinds))


def copy(
    cur: Cursors,
    table: sql.Identifier,
    rows: pl.DataFrame,
    fields: Mapping[str, Field],
    constants: Mapping[str, Constant] = NO_CONSTANTS,
) -> None:
    """COPY the columns of a frame, and the same `constants` with each row, into the columns of their names."""
    if not rows.is_empty():
        send(cur, table, [*constants, *fields], pieces(rows, fields, constants))


def pieces(
    rows: pl.DataFrame, fields: Mapping[str, Field], constants: Mapping[str, Constant] = NO_CONSTANTS
) -> Iterator[memoryview]:
    """What `send` takes: `copy` by itself is both, one after the other."""
    return encode(rows, fields, constants, RING_BYTES)


def send(cur: Cursors, table: sql.Identifier, columns: Iterable[str], pieces: Iterable[memoryview]) -> None:
    """COPY rows that stand as bytes already, each piece by itself."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(table, names).as_bytes(cur)
    for piece in pieces:
        with cur.copy(statement) as stream:
            stream.write(BEGIN)
            stream.write(piece)
            stream.write(END)


def unnested(
    rows: pl.DataFrame, fields: Mapping[str, Field], repeated: Collection[str]
) -> tuple[sql.Composed, dict[str, object]]:
    """What a statement selects, and its parameters, to have a frame as rows without a table to stage them in.

    Columns are arrays. Where one that may be `repeated` has few different texts, the server reads each once: a row says
    which. It finds them by counting from the first, so they must be few.
    """
    selected, parameters = [], dict[str, object]()
    for name, field in fields.items():
        different, places = told_apart(rows[name] if name in repeated else rows[name].clear())
        if name in repeated and different.len() <= FEW_TEXTS:
            parameters[f"different {name}"] = different.to_list()
            parameters[name] = Packed(array((places + 1).fill_null(0), "smallint"))
            column = "({different}::{type}[])[unnest({each}::smallint[])] AS {name}"
        else:
            parameters[name] = Packed(array(rows[name], field))
            column = "unnest({each}::{type}[]) AS {name}"
        each, texts = sql.Placeholder(name), sql.Placeholder(f"different {name}")
        words = {"each": each, "different": texts, "type": sql.SQL(field), "name": sql.Identifier(name)}
        selected.append(sql.SQL(column).format(**words))
    return sql.SQL(", ").join(selected), parameters


def uuids(hashes: pl.Series) -> Packed:
    """A parameter that is an array of hashes."""
    return Packed(array(hashes, "uuid"))


def told_apart(texts: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The different ones of some texts, and for each its place among them, or null."""
    encoded = texts.to_arrow().dictionary_encode()
    return pl.Series(encoded.dictionary), pl.Series(encoded.indices)


def erased(cur: Cursors, identifiers: Identifiers, load: Load) -> pl.DataFrame:
    """The people ("id") in a part who were erased after its file was received (T115)."""
    stones = tombstones(cur, load)
    return NOBODY if stones.is_empty() else identifiers().join(stones, on="hash", how="semi").select("id").unique()


def tombstones(cur: Cursors, load: Load) -> pl.DataFrame:
    """The identifiers ("hash") that were erased after a file was received."""
    query = "SELECT string_agg(uuid_send(hash), '') FROM tombstones WHERE account_id = %s AND erased_at > %s"
    ((packed,),) = cur.execute(query, (load.account_id, load.received_at), binary=True).fetchall()
    return from_bytes(packed, "hash")
