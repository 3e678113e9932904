"""Lists in JSON as PostgreSQL writes them, of many people at once: values are added and removed (S98, S99, S103)."""

from __future__ import annotations

import json
from typing import Final

import polars as pl

from ingestd.pipeline.written import are_numbers, number

_DECODER: Final = json.JSONDecoder()


def edited(values: pl.Series, edits: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """Values, taken as lists, after `edits` ("number" of the person, "value", "remove"), in the order of the file.

    A value stands where it was added first since it was last removed; what ends as it began is left as it was. Also
    gives whose list had values removed and others added.
    """
    values, edits = _with_single_edits(values, edits)
    moves = pl.repeat(False, values.len(), eager=True)
    if edits.is_empty():
        return values, moves
    numbers = edits["number"].unique(maintain_order=True)
    old = _elements(numbers, values.gather(numbers)).with_columns(remove=pl.lit(False), edit=pl.lit(False))
    kept = pl.concat([old, edits.with_columns(edit=pl.lit(True))]).sort("number", maintain_order=True)
    key = number("value") if are_numbers(edits["value"]) else pl.col("value")
    if edits["remove"].any():
        kept = (
            kept.with_row_index("place")
            .with_columns(key=key, removed=pl.when("remove").then("place"))
            .with_columns(pl.col("removed").max().over("number", "key"))
            .filter(~pl.col("remove") & (pl.col("place") > pl.col("removed")).fill_null(value=True))
        )
    kept = kept.with_columns(key=key).unique(["number", "key"], keep="first", maintain_order=True)
    was, now = (
        each.group_by("number", maintain_order=True).agg(
            pl.col("value").str.join(", "), pl.col("edit").any(), key=key.str.join(", ")
        )
        for each in (old, kept)
    )
    lists = numbers.to_frame().join(now, on="number", how="left").join(was, on="number", how="left", suffix="_was")
    other = lists.filter(pl.col("key").ne_missing(pl.col("key_was")))
    text = other.select(pl.concat_str(pl.lit("["), pl.col("value").fill_null(""), pl.lit("]"))).to_series()
    moved = lists.filter("edit")["number"]
    moved = moved.filter(moved.is_in(edits.filter("remove")["number"].unique().implode()))
    return values.clone().scatter(other["number"], text), moves.scatter(moved, True)


def with_all(before: pl.Series | None, named: pl.Series) -> pl.Series:
    """The stored identifiers of each person, as a JSON list or null, and behind them those named that are not there."""
    if before is None:
        return named
    some = (before != named).fill_null(value=False).arg_true()
    more = _elements(some, named.gather(some)).with_columns(remove=pl.lit(False)).sort("number", maintain_order=True)
    whole = before.zip_with(before.is_not_null(), named)
    return edited(whole, more)[0] if more.height else whole


def _with_single_edits(values: pl.Series, edits: pl.DataFrame) -> tuple[pl.Series, pl.DataFrame]:
    """Values after those edits, sorted by "number", that are a person's only one, of a value not there; and the others.

    Nearly all are. A text that does not stand in that of a list is none of its values, but if these are numbers.
    """
    person, before = pl.col("number"), pl.col("before")
    alone = (person != person.shift()).fill_null(value=True) & (person != person.shift(-1)).fill_null(value=True)
    absent = before.is_null()
    if not are_numbers(edits["value"]):
        absent |= (before != "[]") & ~before.str.contains(pl.col("value"), literal=True)
    edits = edits.with_columns(before=values.gather(edits["number"])).with_columns(single=alone & absent)
    opened = pl.when(before.str.starts_with("[")).then(before.str.strip_suffix("]")).otherwise("[" + before)
    list_ = pl.concat_str(pl.coalesce(opened + ", ", pl.lit("[")), "value", pl.lit("]"))
    added = edits.filter(pl.col("single") & ~pl.col("remove")).select("number", text=list_)
    values = values.clone().scatter(added["number"], added["text"])
    return values, edits.filter(~pl.col("single")).drop("before", "single")


def _elements(numbers: pl.Series, values: pl.Series) -> pl.DataFrame:
    """The elements ("number", "value") of values taken as lists: PostgreSQL's text of each, in their order."""
    found = pl.DataFrame({"number": numbers, "value": values}).drop_nulls()
    is_list = pl.col("value").str.starts_with("[")
    lists = found.filter(is_list & (pl.col("value") != "[]"))
    inside = pl.col("value").str.strip_prefix("[").str.strip_suffix("]")
    pieces = lists.with_columns(inside.str.split(", ")).explode("value")
    opens, closes = pl.col("value").str.starts_with('"'), pl.col("value").str.ends_with('"')
    torn = (opens != closes) | (pl.col("value") == '"') | pl.col("value").str.contains("\\", literal=True)
    odd = pieces.filter(torn)["number"].unique()
    if odd.len():
        is_odd = pl.col("number").is_in(odd.implode())
        whole = lists.filter(is_odd)
        read = whole.with_columns(pl.Series("value", map(_cut, whole["value"]), dtype=pl.List(pl.String)))
        pieces = pl.concat([pieces.filter(~is_odd), read.explode("value")])
    return pl.concat([found.filter(~is_list), pieces])


def _cut(text: str) -> list[str]:
    """The elements of a list, which is not empty, as they stand in its text."""
    found, at = [], 1
    while at < len(text):
        _, end = _DECODER.raw_decode(text, at)
        found.append(text[at:end])
        at = end + len(", ")
    return found
