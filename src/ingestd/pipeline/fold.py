"""Several rows of one person become one change of what is stored of them (S97 to S103, D24, B55).

The rows of a part are sorted by person and then by their place in the file. "The last value that counts" is then a
running maximum over row numbers, without any grouping; only values that `$add` and `$remove` name are grouped. The work
is linear in the rows, however many belong to one person.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Final

import polars as pl

from ingestd.domain.column import OPERATION_CODES, Operation
from ingestd.domain.identity import kind_word
from ingestd.pipeline.lists import edited, with_all
from ingestd.pipeline.written import are_numbers, as_stored, differ

_ADD, _REMOVE, _DELETE = (OPERATION_CODES[each] for each in (Operation.ADD, Operation.REMOVE, Operation.DELETE))

CHANGE_SCHEMA: Final = {
    "id": pl.UInt128,
    "rows": pl.UInt32,
    "ts": pl.Int64,
    "identifiers": pl.String,
    "preferences": pl.String,
    "attributes": pl.String,
    "changed": pl.String,
    "moves": pl.Boolean,
}
"""One change of a person.

`id` is the profile's id, `rows` the number of rows folded, `ts` the last one given. `moves`:
the rows remove and add values of one stored list, whose order is another when they come again.

The others are JSON text: `identifiers` {kind: [values]}, `preferences` {name: boolean} and `attributes` {name: value}.
Of people who are stored each is all that they have from now on, or null where that is so already;
`changed` [names] are the attributes that are others now, or gone, or null.
"""


def fold(
    rows: pl.DataFrame,
    started: int | None = None,
    *,
    sealed: Collection[int] = (),
    stored: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Fold the accepted rows of a part, which are `in_order`, into one change per person; see CHANGE_SCHEMA.

    `rows` has "id", "row_no", "ts", "k<kind>", "p:<name>" (Boolean), "a:<name>" (JSON text) and "o:<name>"
    (OPERATION_CODES). Later is what has the greater `row_no`; `ts` decides nothing (D48), and where it is missing it is
    `started`, the time in epoch seconds when the ingestion started (D55). Identifiers of the kinds `sealed` are JSON
    text (`pipeline.seal`).

    `stored` is what the same people, in their order, have now in the columns "k", "p:" and "a:" of `rows`: JSON text as
    PostgreSQL writes it, or null; and in "identifiers", "preferences" and "attributes" what else they have there, as
    members of an object, or null. None says that they are new.
    """
    people = _People(rows["id"])
    before = {} if stored is None else stored.to_dict()
    identifiers, preferences, attributes = (
        _Change(people.height, known=stored is not None, others=before.get(part))
        for part in ("identifiers", "preferences", "attributes")
    )
    last = people.last(rows.select(name for name in rows.columns if name.startswith(("k", "p:", "a:")) or name == "ts"))
    for kind in _names(rows, "k"):
        was = before.get(f"k{kind}")
        named = _list_of_all(people, rows[f"k{kind}"], last[f"k{kind}"], is_json=int(kind) in sealed)
        identifiers.add(kind_word(int(kind)), with_all(was, named), was)
    for name in _names(rows, "p:"):
        was = before.get(f"p:{name}")
        preferences.add(name, _or(last[f"p:{name}"].cast(pl.String), was), was)
    moves = pl.repeat(False, people.height, eager=True)
    for name in _names(rows, "a:"):
        was = before.get(f"a:{name}")
        code = rows.get_column(f"o:{name}", default=None)
        if code is None or not (code > 0).any():
            value = _or(as_stored(last[f"a:{name}"]), was)
        else:
            value, moved = _edited_attribute(people, rows[f"a:{name}"], code, was)
            moves |= moved
        attributes.add(name, value, was, numbers=are_numbers(rows[f"a:{name}"]))
    ts = last["ts"]
    return pl.DataFrame(
        {
            "id": rows["id"].gather(people.ends),
            "rows": _counted(people, rows),
            "ts": ts if started is None else ts.fill_null(started),
            "identifiers": identifiers.json(),
            "preferences": preferences.json(),
            "attributes": attributes.json(),
            "changed": _json_names(attributes.differs, people.height),
            "moves": moves,
        },
        schema=CHANGE_SCHEMA,
    )


def fold_some(
    rows: pl.DataFrame,
    ids: pl.Series,
    stored: pl.DataFrame | None = None,
    started: int | None = None,
    *,
    sealed: Collection[int] = (),
) -> pl.DataFrame:
    """Fold the rows of some people only, given by their ids; the rows are in order."""
    if rows["id"].rle_id().last() != ids.len() - 1:
        rows = rows.filter(pl.col("id").is_in(ids.implode()))
    return fold(rows, started, sealed=sealed, stored=stored)


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows by person ("id") and then by their place in the file ("row_no").

    Nearly always they stand in the order of the file, so that ids alone are compared.
    """
    if not rows["row_no"].is_sorted():
        rows = rows.sort("row_no")
    return rows.sort("id", maintain_order=True)


def _counted(people: _People, rows: pl.DataFrame) -> pl.Series:
    """How many rows each person had, those included that were dropped already (`pipeline.shorten`)."""
    if "n" not in rows.columns:
        return (people.ends - people.starts + 1).cast(pl.UInt32)
    total = rows["n"].fill_null(1).cast(pl.Int64).cum_sum().gather(people.ends)
    return (total - total.shift(1, fill_value=0)).cast(pl.UInt32)


def events(rows: pl.DataFrame, started: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Make events of the accepted rows of a part, and rows of their people to fold: nothing but identifiers (D54).

    An event has "id" (the profile's), "row_no", "name", "ts" and "properties" (a JSON object), in the order of people
    and then of the file.
    """
    rows = in_order(rows)
    properties = _json_object({name: rows[f"a:{name}"] for name in _names(rows, "a:")}, rows.height)
    happened = rows.select(
        "id", "row_no", pl.col("event_name").alias("name"), pl.col("ts").fill_null(started), properties=properties
    )
    bare = rows.select(
        "id", "row_no", pl.lit(None, dtype=pl.Int64).alias("ts"), *(f"k{kind}" for kind in _names(rows, "k"))
    )
    return happened, bare


class _People:
    """Where each person's rows stand in the sorted frame: `number` counts people, `place` rows, both from 0."""

    def __init__(self, ids: pl.Series) -> None:
        self.number = ids.rle_id()
        self.place = pl.int_range(ids.len(), dtype=pl.UInt32, eager=True)
        self.ends = self.place.filter((self.number != self.number.shift(-1)).fill_null(value=True))
        self.starts = (self.ends.shift(1) + 1).fill_null(0)
        self.height = self.ends.len()

    def last_place(self, counts: pl.Expr) -> pl.Expr:
        """Each person's last row that counts, or null."""
        found = pl.when(counts).then(pl.lit(self.place)).forward_fill().gather(pl.lit(self.ends))
        return pl.when(found >= pl.lit(self.starts)).then(found)

    def last(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Each person's last value in each column that is not null: of all in one query, which is most of its cost."""
        if self.height == self.place.len():
            return rows
        columns = map(pl.col, rows.columns)
        return rows.select(column.gather(self.last_place(column.is_not_null())) for column in columns)


class _Change:
    """What becomes of the identifiers, the preferences or the attributes of some people, name by name."""

    def __init__(self, height: int, *, known: bool, others: pl.Series | None) -> None:
        """`known`: they are stored; `others` is what they have under names that will not be added."""
        self._height = height
        self._known = known
        self._others = others
        self._values: dict[str, pl.Series] = {}
        self.differs: dict[str, pl.Series] = {}
        """Whose value is another than it was; without a name where nobody is stored."""

    def add(self, name: str, now: pl.Series, before: pl.Series | None, *, numbers: bool = False) -> None:
        """Add what stands under a name from now on, and stood there before; `numbers`: the file's values are some."""
        self._values[name] = now
        if before is not None:
            self.differs[name] = differ(now, before, numbers=numbers)

    def json(self) -> pl.Series:
        """One object of all names, null for those of the stored in whom nothing differs."""
        text = _json_object(self._values, self._height, self._others)
        if not self._known:
            return text
        differs = pl.any_horizontal(pl.lit(value=False), *self.differs.values())
        return pl.select(pl.when(differs).then(text)).to_series()


def _edited_attribute(
    people: _People, values: pl.Series, code: pl.Series, before: pl.Series | None
) -> tuple[pl.Series, pl.Series | bool]:
    """Fold one attribute that has operations onto what was stored `before`; also gives whose list it moves.

    Whatever stands before a person's last assignment, `$set` or `$delete` is forgotten. If `$add` and `$remove` follow
    it, they change the list that begins with the assigned value; otherwise the stored one.
    """
    rows = pl.DataFrame({"number": people.number, "value": as_stored(values), "code": code.fill_null(0)})
    edits, given = pl.col("code").is_in([_ADD, _REMOVE]), pl.col("value").is_not_null()
    reset = rows.select(people.last_place((pl.col("code") == _DELETE) | (given & ~edits))).to_series()
    value: pl.Expr = pl.when(pl.col("code") != _DELETE).then("value")
    if before is not None:
        value = pl.when(pl.col("code").is_null()).then(pl.lit(before)).otherwise(value)
    assigned = rows.select(pl.col("value", "code").gather(pl.lit(reset))).select(value).to_series()
    after = (pl.lit(people.place) > pl.lit(reset).gather("number")).fill_null(value=True)
    some = rows.filter(edits & given & after).select("number", "value", remove=pl.col("code") == _REMOVE)
    if some.is_empty():
        return assigned, False
    changed, moves = edited(assigned, some)
    return changed, moves & reset.is_null()


def _or(values: pl.Series, others: pl.Series | None) -> pl.Series:
    """Values, and others where they are null."""
    return values if others is None else values.zip_with(values.is_not_null(), others)


def _list_of_all(people: _People, values: pl.Series, last: pl.Series, *, is_json: bool) -> pl.Series:
    """Each person's different identifiers of one kind as a JSON list, or null; nearly everybody has one at most."""
    quote, written = ("", as_stored) if is_json else ('"', _escaped)
    several = people.number.filter((values != last.gather(people.number)).fill_null(value=False)).unique()
    last = written(last)
    if several.len():
        named = pl.DataFrame({"number": people.number, "value": values}).drop_nulls()
        named = named.filter(pl.col("number").is_in(several.implode()))
        text = (
            named.with_columns(written(named["value"]))
            .unique(maintain_order=True)
            .group_by("number", maintain_order=True)
            .agg(pl.col("value").str.join(f"{quote}, {quote}"))
        )
        last = last.clone().scatter(text["number"], text["value"])
    return pl.select(pl.concat_str(pl.lit(f"[{quote}"), last, pl.lit(f"{quote}]"))).to_series()


def _escaped(texts: pl.Series) -> pl.Series:
    """Texts as they stand between the quotes of JSON."""
    if not texts.str.contains_any(['"', "\\"]).any():
        return texts
    return texts.str.replace_all("\\", "\\\\", literal=True).str.replace_all('"', '\\"', literal=True)


def _names(rows: pl.DataFrame, prefix: str) -> list[str]:
    return [column.removeprefix(prefix) for column in rows.columns if column.startswith(prefix)]


def _json_object(columns: Mapping[str, pl.Series], height: int, others: pl.Series | None = None) -> pl.Series:
    """Join columns of JSON text to one object per row, without the nulls; `others` are its first members."""
    present = {name: column for name, column in columns.items() if column.null_count() < height}
    pieces: list[pl.Expr | pl.Series] = [pl.lit("{")]
    begun: pl.Series | None = None
    if others is not None and others.null_count() < height:
        pieces, begun = [*pieces, others], others.is_not_null()
    for name in sorted(present):
        values, given = present[name], present[name].is_not_null()
        key = f"{json.dumps(name, ensure_ascii=False)}:"
        if begun is None:
            before = pl.lit(key)
        elif begun.all():
            before = pl.lit(f",{key}")
        else:
            before = pl.when(begun).then(pl.lit(f",{key}")).otherwise(pl.lit(key))
        pieces += [before if given.all() else pl.when(given).then(before), values]
        begun = given if begun is None else begun | given
    if begun is None:
        return pl.repeat("{}", height, eager=True)
    return pl.select(pl.concat_str(*pieces, pl.lit("}"), ignore_nulls=True)).to_series()


def _json_names(columns: Mapping[str, pl.Series], height: int) -> pl.Series:
    """Per row, the JSON list of the columns that are true, or null."""
    entries = [
        pl.when(column).then(pl.lit(json.dumps(name, ensure_ascii=False)))
        for name, column in columns.items()
        if column.any()
    ]
    if not entries:
        return pl.repeat(None, height, dtype=pl.String, eager=True)
    names = pl.concat_str(entries, separator=",", ignore_nulls=True)
    return pl.select(pl.when(names != "").then(pl.concat_str(pl.lit("["), names, pl.lit("]")))).to_series()
