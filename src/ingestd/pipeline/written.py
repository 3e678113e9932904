"""Values as PostgreSQL writes them, in JSON: equal ones have equal texts, but for noughts at the end of numbers."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Final

import polars as pl

_DECODER: Final = json.JSONDecoder()


def as_stored(values: pl.Series) -> pl.Series:
    """A file's values as PostgreSQL writes them: a space behind the colon of an object, numbers without exponents."""
    is_object = values.str.starts_with("{")
    if is_object.any():
        tight = (is_object & (values.str.slice(len('{"$D":'), 1) != " ")).fill_null(value=False).arg_true()
        values = values.clone().scatter(tight, values.gather(tight).str.replace('":', '": ', literal=True))
    if are_numbers(values) and values.str.contains("e", literal=True).any():
        powers = values.str.contains("^-?[0-9.]+e").fill_null(value=False).arg_true()
        plain = [format(Decimal(each), "f") for each in values.gather(powers)]
        values = values.clone().scatter(powers, pl.Series(plain, dtype=pl.String))
    return values


def are_numbers(values: pl.Series) -> bool:
    """Whether the values of an attribute, which has one type in a file, are numbers."""
    first = values.is_not_null().arg_max()
    return first is not None and (values[first] or "")[:1] in set("-0123456789")


def number(column: str) -> pl.Expr:
    """The one text of a number; any other text as it is."""
    text = pl.col(column)
    is_fraction = text.str.contains(r"^-?[0-9]+\.[0-9]+$")
    return pl.when(is_fraction).then(text.str.strip_chars_end("0").str.strip_suffix(".")).otherwise(text)


def differ(now: pl.Series, before: pl.Series, *, numbers: bool) -> pl.Series:
    """Where two values, as PostgreSQL writes them, are not the same: numbers may have noughts behind the point."""
    differ = now.ne_missing(before)
    if numbers:
        pair = pl.DataFrame({"now": now, "before": before})
        differ &= pair.select(number("now").ne_missing(number("before"))).to_series()
    return differ


def elements(numbers: pl.Series, values: pl.Series) -> pl.DataFrame:
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
