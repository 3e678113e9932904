"""Who is in a segment now, by ranges of the identifiers' hashes: as its last refresh packed them, or row by row.

To compare a file with a segment only hashes and partitions are needed. Read from the members' rows they cost more than
all the rest of a refresh, so a refresh also keeps them packed: one row for each range, 18 bytes for each member. What
the next ones change is noted beside that, until it is so much that the range is packed anew. The packed ones are no
more than a copy: whoever else changes members removes those that are no longer true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import numpy as np
import numpy.typing as npt
import polars as pl
from psycopg import Connection
from psycopg.rows import tuple_row

from ingestd.hashes import bytes_of_halves
from ingestd.store.load.stage import Cursors

RANGE: Final = 16**4
"""Ranges are cut at the first four hexadecimal digits of a hash."""

KEY: Final = ["high", "low"]
"""The two halves of a hash, as numbers: sorted and searched several times as fast as its digits."""

ANYBODY: Final = """
SELECT number, EXISTS (SELECT FROM segment_members WHERE segment = number AND valid_to IS NULL)
FROM segments WHERE account_id = %(account)s AND id = %(segment)s
"""

PACKED: Final = """
SELECT content, changes, first = %(first)s AND last = %(last)s FROM packed_members
WHERE account_id = %(account)s AND segment_id = %(segment)s AND first <= %(first)s AND last >= %(last)s
"""

# Both aggregates read the rows in one order. A COPY would hand them over one by one, each with a call of Python.
PRESENT: Final = """
SELECT string_agg(uuid_send(hash), ''), string_agg(int2send(partition), '') FROM segment_members
WHERE segment = %(number)s AND valid_to IS NULL AND hash BETWEEN %(first)s AND %(last)s
"""

PACK: Final = """
INSERT INTO packed_members (account_id, segment_id, first, last, content, changes)
VALUES (%(account)s, %(segment)s, %(first)s, %(last)s, %(content)b, '')
"""

# What is packed is not written anew by that: it stands outside the row and stays there.
NOTE: Final = """
UPDATE packed_members SET changes = changes || %(changes)b
WHERE account_id = %(account)s AND segment_id = %(segment)s AND first = %(first)s AND last = %(last)s
"""

UNPACK: Final = """
DELETE FROM packed_members
WHERE account_id = %(account)s AND segment_id = %(segment)s AND first <= %(last)s AND last >= %(first)s
"""

HALF: Final = np.dtype("<u8")
NUMBER: Final = np.dtype("<i2")
NOBODY: Final = pl.DataFrame(schema={"high": pl.UInt64, "low": pl.UInt64, "was": pl.Int16})
PACKED_BYTES: Final = 2 * HALF.itemsize + NUMBER.itemsize
CHANGE: Final = np.dtype([("high", HALF), ("low", HALF), ("is", NUMBER)])
"""A change that is noted: whoever it is, is in that partition from then on."""

NOWHERE: Final = 0
"""Stands in a change for the partition of who has left; partitions are numbered from 1."""

MOST_CHANGES: Final = 0.25
"""The share of a range's members at which they are packed anew."""


Halves = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int16]
Positions = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Bucket:
    """A range of hashes: the rows of a file in it, as `pipeline.parts` wrote them, and the present members.

    Both stand in the order of their hashes, "high" and "low"; `present` with "was", the number of a partition. `packed`
    tells whether it is as packed for just this range, and `room` how many changes can still be noted there.
    """

    first: UUID
    last: UUID
    rows: pl.DataFrame
    present: pl.DataFrame
    packed: bool
    room: int


def beside(
    connection: Connection[Any], frames: Iterable[pl.DataFrame], count: int, *, account_id: UUID, segment_id: UUID
) -> Iterator[Bucket]:
    """The rows of a file in each of `count` equal ranges, beside the present members in it.

    To be asked for once `apply_segment` holds the lock, on a connection of its own, so that it can be read ahead.
    """
    names = {"account": account_id, "segment": segment_id}
    with connection.cursor(binary=True, row_factory=tuple_row) as cur:
        ((segment, anybody),) = cur.execute(ANYBODY, names).fetchall()
        for number, rows in enumerate(frames):
            low, high = (-(-edge * RANGE // count) << 112 for edge in (number, number + 1))
            first, last = UUID(int=low), UUID(int=high - 1)
            range_ = names | {"number": segment, "first": first, "last": last}
            there, packed, room = _present(cur, range_) if anybody else (NOBODY, False, 0)
            yield Bucket(first, last, in_order(rows), there, packed, room)


def pack(cur: Cursors, names: Mapping[str, Any], bucket: Bucket, members: pl.DataFrame) -> None:
    """Keep who is in a range from now on, of which nothing is packed yet: "high", "low" and "is", in their order."""
    halves = np.concatenate([members[half].to_numpy() for half in KEY]).astype(HALF)
    content = halves.tobytes() + members["is"].to_numpy().astype(NUMBER).tobytes()
    cur.execute(PACK, {**names, "first": bucket.first, "last": bucket.last, "content": content})


def note(cur: Cursors, names: Mapping[str, Any], bucket: Bucket, *, left: pl.DataFrame, there: pl.DataFrame) -> None:
    """Keep beside what is packed of a range who left, and who is `there` from now on, by "is"."""
    changes = np.empty(left.height + there.height, CHANGE)
    for half in KEY:
        changes[half] = np.concatenate([left[half].to_numpy(), there[half].to_numpy()])
    changes["is"][: left.height] = NOWHERE
    changes["is"][left.height :] = there["is"].to_numpy()
    cur.execute(NOTE, {**names, "first": bucket.first, "last": bucket.last, "changes": changes.tobytes()})


def unpack(cur: Cursors, names: Mapping[str, Any], bucket: Bucket) -> None:
    """Forget what is packed of a range; its members are read row by row then."""
    cur.execute(UNPACK, {**names, "first": bucket.first, "last": bucket.last})


def hashes(members: pl.DataFrame) -> pl.Series:
    """The hashes as 16 bytes each."""
    return pl.Series("hash", bytes_of_halves(*(members[half] for half in KEY)), dtype=pl.Array(pl.UInt8, 16))


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """The same, in the order of the hashes; of equal ones in any."""
    if frame.is_empty():
        return frame
    high = frame["high"].to_numpy()
    if (high[1:] > high[:-1]).all():
        return frame
    frame = frame.rechunk()[np.argsort(high)]
    return frame.sort(KEY) if repeats(frame["high"]) else frame


def repeats(column: pl.Series) -> bool:
    """Whether any value of a sorted column stands there twice."""
    values = column.to_numpy()
    return bool((values[1:] == values[:-1]).any())


def find(present: pl.DataFrame, wanted: pl.DataFrame) -> tuple[Positions, Flags]:
    """Where each of `wanted` stands, or would have to stand, in `present`, and whether it does.

    Both in the order of the hashes.
    """
    high, low = (present[half].to_numpy() for half in KEY)
    highs, lows = (wanted[half].to_numpy() for half in KEY)
    at = np.searchsorted(high, highs)
    while True:  # more than once only for people whose first halves are equal
        there = np.minimum(at, max(present.height - 1, 0))
        same = (at < present.height) & (high[there] == highs) if present.height else np.zeros(len(at), np.bool_)
        before = same & (low[there] < lows) if present.height else same
        if not before.any():
            return at, same & (low[there] == lows) if present.height else same
        at = at + before


def _present(cur: Cursors, names: Mapping[str, Any]) -> tuple[pl.DataFrame, bool, int]:
    """The present members of a range, whether they were packed for just this range, and the room for changes."""
    packed = cur.execute(PACKED, names).fetchone()
    if packed is None:
        ((digests, partitions),) = cur.execute(PRESENT, names).fetchall()
        halves = np.frombuffer(digests or b"", ">u8").reshape(-1, 2).T.astype(HALF)
        there = _frame(halves[0], halves[1], np.frombuffer(partitions or b"", ">i2").astype(NUMBER))
        return in_order(there), False, 0
    content, changes, exactly = packed
    count = len(content) // PACKED_BYTES
    high, low = np.frombuffer(content, HALF, 2 * count).reshape(2, count)
    numbers = np.frombuffer(content, NUMBER, offset=2 * count * HALF.itemsize)
    noted = np.frombuffer(changes, CHANGE)
    found = changed(_frame(high, low, numbers), noted)
    if exactly:
        return found, True, int(MOST_CHANGES * count) - len(noted)
    start, stop = names["first"].int >> 64, names["last"].int >> 64
    return found.filter(pl.col("high").is_between(start, stop)), False, 0


def changed(members: pl.DataFrame, noted: npt.NDArray[np.void]) -> pl.DataFrame:
    """Members as they are after what was noted, of which the last counts."""
    if not len(noted):
        return members
    columns = {name: np.ascontiguousarray(noted[name]) for name in (*KEY, "is")}
    changes = pl.DataFrame(columns).unique(KEY, keep="last").sort(KEY)
    at, same = find(members, changes)
    number = changes["is"].to_numpy()
    was = members["was"].to_numpy().copy()
    was[at[same]] = number[same]
    new = ~same
    parts = [np.insert(members[half].to_numpy(), at[new], changes[half].to_numpy()[new]) for half in KEY]
    was = np.insert(was, at[new], number[new])
    return _frame(parts[0], parts[1], was).filter(pl.col("was") != NOWHERE)


def _frame(high: Halves, low: Halves, was: Numbers) -> pl.DataFrame:
    return pl.DataFrame({"high": high, "low": low, "was": was}, schema=NOBODY.schema)
