"""Which rows are one person: identifiers tied by rows, by the whole file and by what is stored (D54).

A file is resolved in two passes over its links, without its rows. Both see one range of hashes at a time.

1. Every identifier is *claimed*: by the person of each primary that stood in a row with it, and by the person it is
   stored for. Where all claims agree nothing is to be decided: a new identifier simply gets its person.
2. Where they do not, the primaries are *contested*. Only their rows are read back and taken one by one in file order,
   which decides: a row that would tie two identities is rejected alone and ties nothing.

A person that nobody stored gets the hash of the best identifier as id: highest precedence, then first in the file. Two
stored people tied by a row become one: the one with an identity survives, else the older.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import polars as pl

from ingestd.domain.errors import FileRefused
from ingestd.domain.identity import IdentifierKind
from ingestd.pipeline.parts import NUMBERED_SCHEMA, Folder, Parts, hashed, kinds_of, numbered, read
from ingestd.pipeline.shorten import MOST_CELLS, batches, ranges

PERSON_SCHEMA: Final = {"hash": pl.String, "id": pl.String}
MERGE_SCHEMA: Final = {"loser": pl.String, "survivor": pl.String}

AT_ONCE: Final = 2
"""Ranges of links looked at side by side: one waits for the database, mostly, while the other is prepared."""

MOST_CONTESTED: Final = 1_000_000
"""Rows that are taken one by one; each takes half a kilobyte."""

TOO_MANY: Final = (
    f"More than {MOST_CONTESTED:,} rows have an identifier that other rows, or the stored profiles, give to somebody "
    "else. Split the file, or mend its identifiers."
)


class Known(Protocol):
    """What is stored about an account's people, asked by AT_ONCE threads. Hashes and ids are 32 hexadecimal digits."""

    def moved(self, asked: pl.DataFrame) -> pl.DataFrame:
        """Of the identifiers asked ("kind", "hash", "id"), those stored for another person than "id": "hash", "id"."""

    def founders(self, asked: pl.DataFrame) -> pl.DataFrame:
        """Of the identifiers asked ("kind", "hash", "id"), those whose hash is the id of a stored person: "hash"."""

    def people(self, ids: pl.Series) -> pl.DataFrame:
        """The stored people of these ids: "id", their "identity" or null, and "origin", less for the older."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What resolving found beyond "every row is the person of its primary identifier".

    `moved` has "hash" and "id": primaries whose person has another id. `merges` has "loser" and "survivor", ids of
    stored people. `rejected` are the rows ("row_no") that would tie two identities: "identifiers_of_two_people".
    """

    moved: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PERSON_SCHEMA))
    merges: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=MERGE_SCHEMA))
    rejected: tuple[int, ...] = ()

    @property
    def parts_stand(self) -> bool:
        """Whether every row already stands in the right part, under the right person."""
        return self.moved.is_empty() and not self.rejected


def resolve(parts: Parts, folder: Folder, known: Known | None, index_key: str) -> Resolution:
    """Resolve a file whose parts and links are written; `known` is None for an account without people."""
    if not parts.links:
        return Resolution()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        moved = pl.DataFrame(schema=PERSON_SCHEMA)
        if known:
            moved = pl.concat(pool.map(lambda name: _known_primaries(folder, name, known), parts.links))
        found: list[pl.DataFrame] = []
        for some in pool.map(lambda name: _contested(folder, name, moved, known), parts.links):
            found = [pl.concat([*found, some]).unique()]
            if found[0].height > MOST_CONTESTED:
                pool.shutdown(cancel_futures=True)
                raise FileRefused(TOO_MANY, code="file_unreadable")
    (contested,) = found
    if contested.is_empty():
        return Resolution(moved)
    rows = _rows_of(contested, parts, folder, index_key)
    ties = _tie(rows, known, index_key)
    moved = pl.concat([moved.join(ties.moved, on="hash", how="anti"), ties.moved])
    survivors = ties.merges.rename({"loser": "id"})
    moved = moved.join(survivors, on="id", how="left").select("hash", id=pl.coalesce("survivor", "id"))
    losers = ties.merges.select(hash="loser", id="survivor").join(moved, on="hash", how="anti")
    return Resolution(pl.concat([moved, losers]), ties.merges, ties.rejected)


def _ranges(folder: Folder, name: str) -> Iterator[pl.DataFrame]:
    """Some links, all of an identifier in one frame; as a rule they are few enough for one frame."""
    return ranges(partial(batches, folder, name), "hash", pl.DataFrame.unique, MOST_CELLS)


def _known_primaries(folder: Folder, name: str, known: Known) -> pl.DataFrame:
    """The primaries in some links that are stored for a person of another id: "hash", "id"."""
    itself = pl.col("id") == pl.col("hash")
    return pl.concat(known.moved(links.filter(itself).unique()) for links in _ranges(folder, name))


def _contested(folder: Folder, name: str, moved: pl.DataFrame, known: Known | None) -> pl.DataFrame:
    """The primaries ("id") in some links with an identifier that two people claim."""
    return pl.concat(_claimed_twice(links.unique(), moved, known) for links in _ranges(folder, name))


def _claimed_twice(links: pl.DataFrame, moved: pl.DataFrame, known: Known | None) -> pl.DataFrame:
    """The primaries ("id") in some links, each once, with an identifier that two people claim."""
    claims = links.select("hash", "id")  # each once: a hash has one kind
    if known:
        persons = links.join(moved.rename({"hash": "id", "id": "person"}), on="id", how="left")
        persons = persons.select("kind", "hash", "id", person=pl.coalesce("person", "id"))
        others = persons.filter(pl.col("id") != pl.col("hash")).select("kind", "hash", id="person").unique()
        stored = [known.moved(others), known.founders(others).select("hash", id="hash")]
        claims = pl.concat([persons.select("hash", id="person"), *stored]).unique()
    contested = claims.filter(pl.col("hash").is_duplicated()).select("hash").unique()
    return links.join(contested, on="hash", how="semi").select("id").unique()


def _rows_of(contested: pl.DataFrame, parts: Parts, folder: Folder, index_key: str) -> pl.DataFrame:
    """The rows of some primaries in file order: "row_no", "<kind>" with the hash of each identifier."""
    found, count = [], 0
    for name in parts.rows:
        with folder.open(name) as file:
            kinds = kinds_of(pl.read_ipc_stream(file, n_rows=0).columns)
        rows = read(folder, name, ["row_no", "id", *(f"k{kind}" for kind in kinds)])
        if contested.schema["id"] == NUMBERED_SCHEMA["id"]:
            rows = rows.with_columns(id=pl.coalesce(numbered(kind) for kind in kinds))
        rows = rows.join(contested, on="id", how="semi")
        count += rows.height
        if count > MOST_CONTESTED:
            raise FileRefused(TOO_MANY, code="file_unreadable")
        found.append(rows.select("row_no", *(hashed(kind, index_key).alias(str(kind)) for kind in kinds)))
    return pl.concat(found).sort("row_no")


def _tie(rows: pl.DataFrame, known: Known | None, index_key: str) -> Resolution:
    """Tie the identifiers of contested rows, one row after the other."""
    ties = _Ties()
    if known:
        asked = rows.drop("row_no").unpivot(variable_name="kind", value_name="hash").drop_nulls().unique()
        asked = asked.select(pl.col("kind").cast(pl.Int16), "hash", id="hash")
        elsewhere = known.moved(asked)
        themselves = known.founders(asked.join(elsewhere, on="hash", how="anti"))
        people = known.people(pl.concat([elsewhere["id"], themselves["hash"]]).unique())
        people = people.rename({"identity": "k1"}).select("id", "origin", hashed(1, index_key).alias("identity"))
        for person, origin, identity in people.iter_rows():
            ties.know(person, origin, identity)
        for hash_, person in elsewhere.iter_rows():
            ties.join(hash_, person)
    kinds = [int(kind) for kind in rows.columns[1:]]
    rejected = [
        row_no
        for row_no, *hashes in rows.iter_rows()
        if not ties.add(row_no, [(kind, each) for kind, each in zip(kinds, hashes, strict=True) if each is not None])
    ]
    return Resolution(*ties.result(), tuple(rejected))


@dataclass(slots=True)
class _Person:
    """One person while identifiers are tied: all that two of them need when they become one."""

    identity: str | None = None
    stored: list[tuple[bool, int, str]] = field(default_factory=list)
    """(has no identity, origin, id): the least survives."""
    best: tuple[int, int, str] | None = None
    """(kind, row, hash): the least names somebody who is not stored."""

    @property
    def id(self) -> str:
        return min(self.stored)[-1] if self.stored or self.best is None else self.best[-1]


class _Ties:
    """Disjoint sets of identifiers. A stored person's id is the hash of an identifier and stands for the person."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._people: dict[str, _Person] = {}
        self._primaries: set[str] = set()

    def know(self, person: str, origin: int, identity: str | None) -> None:
        """Begin with a stored person."""
        self._people[self._find(person)] = _Person(identity, [(identity is None, origin, person)])

    def join(self, one: str, other: str) -> str:
        """Make two sets one."""
        root, gone = self._find(one), self._find(other)
        if root != gone:
            self._parent[gone] = root
            kept, lost = self._people[root], self._people.pop(gone)
            kept.identity = kept.identity or lost.identity
            kept.stored += lost.stored
            kept.best = min(filter(None, (kept.best, lost.best)), default=None)
        return root

    def add(self, row_no: int, identifiers: list[tuple[int, str]]) -> bool:
        """Tie the identifiers of one row, or change nothing and return False if that would tie two identities."""
        named = (hash_ for kind, hash_ in identifiers if kind == IdentifierKind.IDENTITY)
        bound = (self._people[self._find(hash_)].identity for _, hash_ in identifiers)
        identities = {*named, *filter(None, bound)}
        if len(identities) > 1:
            return False
        (kind, first), *others = identifiers
        root = self._find(first)
        for _, other in others:
            root = self.join(root, other)
        person = self._people[root]
        person.identity = max(identities, default=None)
        person.best = min(filter(None, (person.best, (kind, row_no, first))))
        self._primaries.add(first)
        return True

    def result(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """What `Resolution` calls moved and merges."""
        people = ((hash_, self._people[self._find(hash_)].id) for hash_ in self._primaries)
        moved = [(hash_, person) for hash_, person in people if hash_ != person]
        merges = [
            (loser, person.id) for person in self._people.values() for *_, loser in person.stored if loser != person.id
        ]
        return (
            pl.DataFrame(moved, schema=PERSON_SCHEMA, orient="row"),
            pl.DataFrame(merges, schema=MERGE_SCHEMA, orient="row"),
        )

    def _find(self, hash_: str) -> str:
        if hash_ not in self._parent:
            self._parent[hash_] = hash_
            self._people[hash_] = _Person()
        root = hash_
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[hash_] != root:
            self._parent[hash_], hash_ = root, self._parent[hash_]
        return root
