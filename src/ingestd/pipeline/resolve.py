"""Which rows are one person: identifiers tied by rows, by the whole file and by what is stored (D54).

A file is resolved over its links, without its rows, one range of hashes at a time.

1. The primaries that are stored for a person of another id are asked for.
2. Every identifier is *claimed*: by the person of each primary that stood in a row with it, and by the person it is
   stored for. Where all claims agree nothing is to be decided: a new identifier simply gets its person,
   and is written down as an alias.
3. Where they do not, the primaries are *contested*. Only their rows are read back and taken one by one in file order,
   which decides: a row that would tie two identities is rejected alone and ties nothing.

A person that nobody stored gets the hash of the best identifier as id: highest precedence, then first in the file. Two
stored people tied by a row become one: the one with an identity survives, else the older.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Protocol

import polars as pl

from ingestd.domain.errors import FileRefused
from ingestd.domain.identity import IdentifierKind
from ingestd.pipeline.identifiers import hashed, kinds_of
from ingestd.pipeline.links import LinkWriter, read_links
from ingestd.pipeline.parts import Folder, Parts, read

PERSON_SCHEMA: Final = {"hash": pl.UInt128, "id": pl.UInt128}
MERGE_SCHEMA: Final = {"loser": pl.UInt128, "survivor": pl.UInt128}
ALIAS_SCHEMA: Final = {"id": pl.UInt128, "kind": pl.Int16, "hash": pl.UInt128}

NOBODY: Final = pl.DataFrame(schema=PERSON_SCHEMA)

AT_ONCE: Final = 2
"""Ranges of links looked at side by side: one waits for the database, mostly, while the other is prepared."""

MOST_CONTESTED: Final = 1_000_000
"""Rows that are taken one by one; each takes half a kilobyte."""

TIED: Final = "aliases-tied"
"""The name of the aliases that contested rows brought."""

TWO_PEOPLE: Final = "identifiers_of_two_people"
"""Why a row is rejected that would tie two identities."""

TOO_MANY: Final = (
    f"More than {MOST_CONTESTED:,} rows have an identifier that other rows, or the stored profiles, give to somebody "
    "else. Split the file, or mend its identifiers."
)


class Known(Protocol):
    """What is stored about an account's people, asked by AT_ONCE threads. Hashes and ids are numbers of 128 bits."""

    def moved(self, asked: pl.DataFrame) -> pl.DataFrame:
        """Of the identifiers asked ("kind", "hash"), those stored for a person of another id: "hash", "id"."""

    def founders(self, asked: pl.DataFrame) -> pl.DataFrame:
        """Of the identifiers asked ("kind", "hash"), those whose hash is the id of a stored person: "hash"."""

    def people(self, ids: pl.Series) -> pl.DataFrame:
        """The stored people of these ids: "id", their "identity" or null, and "origin", less for the older."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What resolving found beyond "every row is the person of its primary identifier".

    `moved` has "hash" and "id": primaries whose person has another id. `merges` has "loser" and "survivor", ids of
    stored people. `rejected` are the rows ("row_no") that would tie two identities (TWO_PEOPLE).
    `aliases` are the links (`pipeline.links`) of what is to be stored: identifiers that are not yet, and whose hash is
    not the "id" of their person; the names of streams.
    """

    moved: pl.DataFrame = field(default_factory=lambda: NOBODY)
    merges: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=MERGE_SCHEMA))
    rejected: tuple[int, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def parts_stand(self) -> bool:
        """Whether every row already stands in the right part, under the right person."""
        return self.moved.is_empty() and not self.rejected


def resolve(parts: Parts, folder: Folder, known: Known | None, index_key: str) -> Resolution:
    """Resolve a file whose parts and links are written; `known` is None for an account without people."""
    if not parts.links:
        return Resolution()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        moved = NOBODY
        if known:
            moved = pl.concat(pool.map(lambda name: _known_primaries(folder, name, known), parts.links))
        contested, new = NOBODY.select("id"), list[str]()
        for some, written in pool.map(lambda name: _claimed(folder, name, moved, known), parts.links):
            contested = pl.concat([contested, some]).unique()
            new += written
            if contested.height > MOST_CONTESTED:
                pool.shutdown(cancel_futures=True)
                raise FileRefused(TOO_MANY, code="file_unreadable")
    if contested.is_empty() and moved.is_empty():
        return Resolution(aliases=tuple(new))
    ties = _tie(_rows_of(contested, parts, folder, index_key), known, index_key) if contested.height else _Tied()
    moved = pl.concat([moved.join(contested.rename({"id": "hash"}), on="hash", how="anti"), ties.moved])
    survivors = ties.merges.rename({"loser": "id"})
    moved = moved.join(survivors, on="id", how="left").select("hash", id=pl.coalesce("survivor", "id"))
    losers = ties.merges.select(hash="loser", id="survivor").join(moved, on="hash", how="anti")
    moved = pl.concat([moved, losers])
    with ThreadPoolExecutor(AT_ONCE) as pool:
        aliases = [*chain(*pool.map(lambda name: _under_persons(folder, name, moved, contested), new))]
    tied = LinkWriter(folder, TIED)
    tied.write(ties.aliases)
    return Resolution(moved, ties.merges, ties.rejected, (*aliases, *tied.close()))


def _known_primaries(folder: Folder, name: str, known: Known) -> pl.DataFrame:
    """The primaries in some links that are stored for a person of another id: "hash", "id"."""
    itself = pl.col("id") == pl.col("hash")
    return pl.concat(known.moved(links.filter(itself).unique()) for links in read_links(folder, name))


def _claimed(folder: Folder, name: str, moved: pl.DataFrame, known: Known | None) -> tuple[pl.DataFrame, list[str]]:
    """The primaries ("id") in some links with an identifier that two people claim; and the name of the new links."""
    new = LinkWriter(folder, name.replace("links", "new"))
    persons, contested = moved.rename({"hash": "id", "id": "person"}), NOBODY.select("id")
    hash_ = pl.col("hash")
    again = hash_ == hash_.shift()
    for some in read_links(folder, name):
        links = some.join(persons, on="id", how="left") if known else some.with_columns(person="id")
        links = links.with_columns(person=pl.coalesce("person", "id")).sort("hash")
        claimed = [links.filter(again & (pl.col("person") != pl.col("person").shift()))["hash"]]
        links = links.filter(~(again & (pl.col("id") == pl.col("id").shift())).fill_null(value=False))
        unknown = links.filter(pl.col("id") != hash_)
        if known:
            asked = unknown.select("kind", "hash").filter(again.fill_null(value=False).not_())
            stored = pl.concat([known.moved(asked), known.founders(asked).select("hash", id="hash")])
            others = links.join(stored, on="hash", suffix="_stored")
            claimed.append(others.filter(pl.col("person") != pl.col("id_stored"))["hash"])
            unknown = unknown.join(stored, on="hash", how="anti")
        twice = pl.concat(claimed).unique()
        if twice.len():
            contested = pl.concat(
                [contested, links.join(twice.to_frame(), on="hash", how="semi").select("id")]
            ).unique()
        new.write(unknown.select("id", "kind", "hash"))
    return contested, new.close()


def _under_persons(folder: Folder, name: str, moved: pl.DataFrame, contested: pl.DataFrame) -> list[str]:
    """Write new links anew, without those of contested primaries, each with the person in the place of the primary."""
    persons = moved.rename({"hash": "id", "id": "person"})
    aliases = LinkWriter(folder, name.replace("new", "aliases"))
    for links in read_links(folder, name):
        sure = links.join(contested, on="id", how="anti").join(persons, on="id", how="left")
        sure = sure.select("kind", "hash", id=pl.coalesce("person", "id")).filter(pl.col("id") != pl.col("hash"))
        aliases.write(sure.unique("hash"))
    return aliases.close()


def _rows_of(contested: pl.DataFrame, parts: Parts, folder: Folder, index_key: str) -> pl.DataFrame:
    """The rows of some primaries in file order: "row_no", "<kind>" with the hash of each identifier."""
    found, count = [], 0
    for name in parts.rows:
        with folder.open(name) as file:
            kinds = kinds_of(pl.read_ipc_stream(file, n_rows=0).columns)
        rows = read(folder, name, ["row_no", "id", *(f"k{kind}" for kind in kinds)])
        rows = rows.join(contested, on="id", how="semi")
        count += rows.height
        if count > MOST_CONTESTED:
            raise FileRefused(TOO_MANY, code="file_unreadable")
        found.append(rows.select("row_no", *(hashed(kind, index_key).alias(str(kind)) for kind in kinds)))
    return pl.concat(found).sort("row_no")


@dataclass(frozen=True, slots=True)
class _Tied:
    """What `Resolution` calls by the same names, of contested rows; the aliases themselves."""

    moved: pl.DataFrame = field(default_factory=lambda: NOBODY)
    merges: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=MERGE_SCHEMA))
    rejected: tuple[int, ...] = ()
    aliases: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ALIAS_SCHEMA))


def _tie(rows: pl.DataFrame, known: Known | None, index_key: str) -> _Tied:
    """Tie the identifiers of contested rows, one row after the other."""
    ties = _Ties()
    if known:
        asked = rows.drop("row_no").unpivot(variable_name="kind", value_name="hash").drop_nulls().unique()
        asked = asked.select(pl.col("kind").cast(pl.Int16), "hash")
        elsewhere = known.moved(asked)
        elsewhere = elsewhere.join(known.people(elsewhere["id"].unique()), on="id", how="semi")  # not those of nobody
        themselves = known.founders(asked.join(elsewhere, on="hash", how="anti"))
        people = known.people(pl.concat([elsewhere["id"], themselves["hash"]]).unique())
        people = people.rename({"identity": "k1"}).with_columns(identity=hashed(1, index_key))
        for person, origin, identity in people.select("id", "origin", "identity").iter_rows():
            ties.know(person, origin, identity)
        for hash_, person in elsewhere.iter_rows():
            ties.join(hash_, person)
    kinds = [int(kind) for kind in rows.columns[1:]]
    rejected = [
        row_no
        for row_no, *hashes in rows.iter_rows()
        if not ties.add(row_no, [(kind, each) for kind, each in zip(kinds, hashes, strict=True) if each is not None])
    ]
    aliases = ties.aliases()
    if known:
        aliases = aliases.join(pl.concat([elsewhere["hash"], themselves["hash"]]).to_frame(), on="hash", how="anti")
    return _Tied(*ties.result(), tuple(rejected), aliases)


@dataclass(slots=True)
class _Person:
    """One person while identifiers are tied: all that two of them need when they become one."""

    identity: int | None = None
    stored: tuple[bool, int, int] | None = None
    """(has no identity, origin, id) of the one who survives: the least."""
    best: tuple[int, int, int] | None = None
    """(kind, row, hash): the least names somebody who is not stored."""

    @property
    def id(self) -> int:
        named = self.stored or self.best
        assert named is not None  # somebody who was known before, or whom a row has named
        return named[-1]


class _Ties:
    """Disjoint sets of identifiers. A stored person's id is the hash of an identifier and stands for the person."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}
        self._people: dict[int, _Person] = {}
        self._known: list[int] = []
        self._primaries: set[int] = set()
        self._kinds: dict[int, int] = {}

    def know(self, person: int, origin: int, identity: int | None) -> None:
        """Begin with a stored person."""
        self._people[self._find(person)] = _Person(identity, (identity is None, origin, person))
        self._known.append(person)

    def join(self, one: int, other: int) -> int:
        """Make two sets one."""
        root, gone = self._find(one), self._find(other)
        if root != gone:
            self._parent[gone] = root
            kept, lost = self._people[root], self._people.pop(gone)
            kept.identity = kept.identity or lost.identity
            kept.stored = min(filter(None, (kept.stored, lost.stored)), default=None)
            kept.best = min(filter(None, (kept.best, lost.best)), default=None)
        return root

    def add(self, row_no: int, identifiers: list[tuple[int, int]]) -> bool:
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
        self._kinds.update((hash_, kind) for kind, hash_ in identifiers)
        return True

    def aliases(self) -> pl.DataFrame:
        """All identifiers of the rows that were added, whose hash is not the id of their person."""
        named = ((self._people[self._find(hash_)].id, kind, hash_) for hash_, kind in self._kinds.items())
        return pl.DataFrame([each for each in named if each[0] != each[2]], schema=ALIAS_SCHEMA, orient="row")

    def result(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """What `Resolution` calls moved and merges."""
        moved, merges = (
            [(hash_, person) for hash_ in hashes if (person := self._people[self._find(hash_)].id) != hash_]
            for hashes in (self._primaries, self._known)
        )
        return (
            pl.DataFrame(moved, schema=PERSON_SCHEMA, orient="row"),
            pl.DataFrame(merges, schema=MERGE_SCHEMA, orient="row"),
        )

    def _find(self, hash_: int) -> int:
        if hash_ not in self._parent:
            self._parent[hash_] = hash_
            self._people[hash_] = _Person()
        root = hash_
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[hash_] != root:
            self._parent[hash_], hash_ = root, self._parent[hash_]
        return root
