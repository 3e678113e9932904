"""Several rows of one person become one change (S97 to S103, D24, B55).

The rows of a part are sorted by person and then by their place in the file. "The last value that counts" is then a
running maximum over row numbers, without any grouping; only values that `$add` and `$remove` name are grouped. The work
is linear in the rows, however many belong to one person.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

import polars as pl

from ingestd.domain.column import OPERATION_CODES, Operation
from ingestd.domain.identity import kind_word

_ADD, _REMOVE, _DELETE = (OPERATION_CODES[each] for each in (Operation.ADD, Operation.REMOVE, Operation.DELETE))

CHANGE_SCHEMA: Final = {
    "id": pl.String,
    "rows": pl.UInt32,
    "ts": pl.Int64,
    "identifiers": pl.String,
    "preferences": pl.String,
    "assigned": pl.String,
    "deleted": pl.String,
    "added": pl.String,
    "removed": pl.String,
}
"""One change of a person.

`id` is the profile's id (32 hexadecimal digits), `rows` the number of rows folded, `ts` the last one given. The others
are JSON text: `identifiers` {kind: [values]}, `preferences` {name: boolean}, and what happens to the attributes:
`assigned` {name: value}, `deleted` [names] or null; and, relative to the stored value taken as a list, `removed` and
`added` {name: [values]} or null: first the removed values go, then those added come to the end, unless they are there.
"""

_NOTHING: Final = pl.Series([None], dtype=pl.String)
_NOWHERE: Final = pl.Series([None], dtype=pl.UInt32)


def fold(rows: pl.DataFrame, started: int | None = None, *, sealed: Collection[int] = ()) -> pl.DataFrame:
    """Fold the accepted rows of a part into one change per person, sorted by id; see CHANGE_SCHEMA.

    `rows` has "id", "row_no", "ts", "k<kind>", "p:<name>" (Boolean), "a:<name>" (JSON text) and "o:<name>"
    (OPERATION_CODES). Later is what has the greater `row_no`; `ts` decides nothing (D48), and where it is missing it is
    `started`, the time in epoch seconds when the ingestion started (D55). Identifiers of the kinds `sealed` are JSON
    text (`pipeline.seal`).
    """
    rows = in_order(rows)
    people = _People(rows["id"])
    ts = people.last(rows["ts"])
    attributes = {name: _attribute(people, rows, name) for name in _names(rows, "a:")}
    preferences = {name: people.last(rows[f"p:{name}"]).cast(pl.String) for name in _names(rows, "p:")}
    identifiers = {
        kind_word(int(kind)): _list_of_all(people, rows[f"k{kind}"], quote="" if int(kind) in sealed else '"')
        for kind in _names(rows, "k")
    }
    return pl.DataFrame(
        {
            "id": rows["id"].gather(people.ends),
            "rows": _counted(people, rows),
            "ts": ts if started is None else ts.fill_null(started),
            "identifiers": _json_object(identifiers, people.height).fill_null("{}"),
            "preferences": _json_object(preferences, people.height).fill_null("{}"),
            "assigned": _json_object({n: a.assigned for n, a in attributes.items()}, people.height).fill_null("{}"),
            "deleted": _json_names({n: a.deleted for n, a in attributes.items()}, people.height),
            "added": _json_object({n: a.added for n, a in attributes.items()}, people.height),
            "removed": _json_object({n: a.removed for n, a in attributes.items()}, people.height),
        },
        schema=CHANGE_SCHEMA,
    )


def fold_some(
    rows: pl.DataFrame, ids: pl.Series, started: int | None = None, *, sealed: Collection[int] = ()
) -> pl.DataFrame:
    """Fold the rows of some people only, given by their ids; the rows are in order."""
    if rows["id"].rle_id().last() != ids.len() - 1:
        rows = rows.filter(pl.col("id").is_in(ids.implode()))
    return fold(rows, started, sealed=sealed)


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows by person ("id") and then by their place in the file ("row_no")."""
    person, place = pl.col("id"), pl.col("row_no")
    behind = (person < person.shift()) | ((person == person.shift()) & (place < place.shift()))
    return rows.sort("id", "row_no") if rows.select(behind.any()).item() else rows


def _counted(people: _People, rows: pl.DataFrame) -> pl.Series:
    """How many rows each person had, those included that were dropped already (`pipeline.shorten`)."""
    if "n" not in rows.columns:
        return (people.ends - people.starts + 1).cast(pl.UInt32)
    total = rows["n"].fill_null(1).cast(pl.Int64).cum_sum().gather(people.ends)
    return (total - total.shift(1, fill_value=0)).cast(pl.UInt32)


def fold_events(rows: pl.DataFrame, started: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Make events of the accepted rows of a part, and the changes of their people: nothing but identifiers (D54).

    An event has "id" (the profile's), "row_no", "name", "ts" and "properties" (a JSON object), in the order of people
    and then of the file.
    """
    rows = in_order(rows)
    properties = _json_object({name: rows[f"a:{name}"] for name in _names(rows, "a:")}, rows.height).fill_null("{}")
    events = rows.select(
        "id", "row_no", pl.col("event_name").alias("name"), pl.col("ts").fill_null(started), properties=properties
    )
    bare = rows.select(
        "id", "row_no", pl.lit(None, dtype=pl.Int64).alias("ts"), *(f"k{kind}" for kind in _names(rows, "k"))
    )
    return events, fold(bare)


class _People:
    """Where each person's rows stand in the sorted frame: `number` counts people, `place` rows, both from 0."""

    def __init__(self, ids: pl.Series) -> None:
        self.number = ids.rle_id()
        self.place = pl.int_range(ids.len(), dtype=pl.UInt32, eager=True)
        self.ends = self.place.filter((self.number != self.number.shift(-1)).fill_null(value=True))
        self.starts = (self.ends.shift(1) + 1).fill_null(0)
        self.height = self.ends.len()

    def last_place(self, counts: pl.Series) -> pl.Series:
        """Each person's last row that counts, or null."""
        found = self.place.zip_with(counts, _NOWHERE).forward_fill().gather(self.ends)
        return found.zip_with((found >= self.starts).fill_null(value=False), _NOWHERE)

    def last(self, values: pl.Series) -> pl.Series:
        """Each person's last value that is not null."""
        if self.height == self.place.len():
            return values
        return values.gather(self.last_place(values.is_not_null()))


class _Attribute(NamedTuple):
    """What happens to one attribute, per person; `deleted` is null where no row names an operation."""

    assigned: pl.Series
    deleted: pl.Series | None = None
    added: pl.Series | None = None
    removed: pl.Series | None = None


def _attribute(people: _People, rows: pl.DataFrame, name: str) -> _Attribute:
    """Fold one attribute.

    Whatever stands before a person's last assignment, `$set` or `$delete` is forgotten. If `$add` and `$remove` follow
    it, the list is known whole, beginning with the assigned value; otherwise they are relative to the stored one.
    """
    values = rows[f"a:{name}"]
    code = rows.get_column(f"o:{name}", default=None)
    if code is None or not (code > 0).any():
        return _Attribute(people.last(values))
    code = code.fill_null(0)
    edits, given = code.is_in([_ADD, _REMOVE]), values.is_not_null()
    reset = people.last_place((code == _DELETE) | (given & ~edits))
    deleted = (code.gather(reset) == _DELETE).fill_null(value=False)
    assigned = values.gather(reset).zip_with(~deleted, _NOTHING)
    edits &= given & (people.place > reset.gather(people.number)).fill_null(value=True)
    if not edits.any():
        return _Attribute(assigned, deleted)

    elements = pl.DataFrame(
        {"number": people.number, "place": people.place, "value": values, "remove": code == _REMOVE, "edit": edits}
    )
    edited = elements.select(pl.col("number").filter("edit").unique())["number"]
    first = reset.gather(edited).filter(~deleted.gather(edited)).drop_nulls()
    elements = elements.filter(pl.col("edit") | pl.col("place").is_in(first.implode()))
    added, removed = _lists(elements, people.height)
    lists = pl.DataFrame({"assigned": assigned, "deleted": deleted, "added": added, "removed": removed})
    known = pl.Series(reset.is_not_null() & (added.is_not_null() | removed.is_not_null()))
    whole = pl.col("added").fill_null("[]")
    same = whole == pl.concat_str(pl.lit("["), "assigned", pl.lit("]"))
    gone = pl.col("deleted") & pl.col("added").is_null()
    replaced = known & ~same.fill_null(value=False) & ~gone
    return _Attribute(
        *lists.select(
            pl.when(replaced).then(whole).otherwise("assigned").alias("assigned"),
            pl.col("deleted") & ~replaced,
            pl.when(~known).then("added").alias("added"),
            pl.when(~known).then("removed").alias("removed"),
        )
    )


def _lists(elements: pl.DataFrame, height: int) -> tuple[pl.Series, pl.Series]:
    """Per person, as JSON lists or null: the values in the list at the end, in order, and all that were ever removed.

    `elements` has "number", "place", "value" and "remove", in the order of the file. A value stands where it was added
    first since it was last removed.
    """
    before, after = elements["number"].shift(1), elements["number"].shift(-1)
    alone = ((elements["number"] != before) & (elements["number"] != after)).fill_null(value=True)
    place, remove = pl.col("place"), pl.col("remove")
    single = elements.filter(alone).select(
        "number",
        added=pl.when(~remove).then("value"),
        removed=pl.when(remove).then("value"),
    )
    several = (
        elements.filter(~alone)
        .with_columns(removed=pl.when(remove).then(place).max().over("number", "value"))
        .with_columns(added=pl.when(~remove & (place > pl.col("removed")).fill_null(value=True)).then(place))
        .group_by("number", "value")
        .agg(pl.col("removed").first(), pl.col("added").min())
    )
    return _joined(single, several, "added", height), _joined(single, several, "removed", height)


def _joined(single: pl.DataFrame, several: pl.DataFrame, column: str, height: int) -> pl.Series:
    """Join each person's values to a JSON list, those of `several` in the order of that column."""
    lists = pl.concat(
        [
            single.select("number", value=column).drop_nulls(),
            several.drop_nulls(column)
            .sort("number", column)
            .group_by("number", maintain_order=True)
            .agg(pl.col("value").str.join(",")),
        ]
    )
    text = lists.select(pl.concat_str(pl.lit("["), "value", pl.lit("]"))).to_series()
    return pl.repeat(None, height, dtype=pl.String, eager=True).scatter(lists["number"], text)


def _list_of_all(people: _People, values: pl.Series, *, quote: str) -> pl.Series:
    """Each person's different identifiers of one kind as a JSON list, or null; nearly everybody has one at most."""
    if quote and values.str.contains_any(['"', "\\"]).any():
        values = values.str.replace_all("\\", "\\\\", literal=True).str.replace_all('"', '\\"', literal=True)
    last = people.last(values)
    several = people.number.filter((values != last.gather(people.number)).fill_null(value=False)).unique()
    if several.len():
        text = (
            pl.DataFrame({"number": people.number, "value": values})
            .filter(pl.col("number").is_in(several.implode()))
            .drop_nulls()
            .unique(maintain_order=True)
            .group_by("number", maintain_order=True)
            .agg(pl.col("value").str.join(f"{quote},{quote}"))
        )
        last = last.scatter(text["number"], text["value"])
    return pl.select(pl.concat_str(pl.lit(f"[{quote}"), last, pl.lit(f"{quote}]"))).to_series()


def _names(rows: pl.DataFrame, prefix: str) -> list[str]:
    return [column.removeprefix(prefix) for column in rows.columns if column.startswith(prefix)]


def _json_object(columns: Mapping[str, pl.Series | None], height: int) -> pl.Series:
    """Join columns of JSON text to one object per row, without the nulls; null where nothing is left.

    The names stand in the order in which PostgreSQL keeps them, shorter ones first, which spares it the sorting. Commas
    stand on the far side of a column without nulls, so that one pass over the text is enough where there is one.
    """
    present = {name: column for name, column in columns.items() if column is not None and column.null_count() < height}
    if not present:
        return pl.repeat(None, height, dtype=pl.String, eager=True)
    names = sorted(present, key=lambda name: (len(name.encode()), name.encode()))
    whole = next((at for at, name in enumerate(names) if present[name].null_count() == 0), None)
    entries: list[pl.Expr | pl.Series] = [pl.lit("{")] if whole is not None else []
    for at, name in enumerate(names):
        before = "," if whole is None or at > whole else ""
        key, after = f"{before}{json.dumps(name, ensure_ascii=False)}:", "," if whole is not None and at < whole else ""
        pieces: list[pl.Expr | pl.Series] = [pl.lit(key), present[name], pl.lit(after)]
        entries += pieces if present[name].null_count() == 0 else [pl.concat_str(pieces)]
    text = pl.concat_str(*entries, pl.lit("}"), ignore_nulls=True)
    if whole is None:
        inside = text.str.slice(1)
        text = pl.when(inside != "").then(pl.concat_str(pl.lit("{"), inside))
    return pl.select(text).to_series()


def _json_names(columns: Mapping[str, pl.Series | None], height: int) -> pl.Series:
    """Per row, the JSON list of the columns that are true, or null."""
    entries = [
        pl.when(column).then(pl.lit(json.dumps(name, ensure_ascii=False)))
        for name, column in columns.items()
        if column is not None and column.any()
    ]
    if not entries:
        return pl.repeat(None, height, dtype=pl.String, eager=True)
    names = pl.concat_str(entries, separator=",", ignore_nulls=True)
    return pl.select(pl.when(names != "").then(pl.concat_str(pl.lit("["), names, pl.lit("]")))).to_series()
