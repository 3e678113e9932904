"""Values as PostgreSQL writes them, in JSON: equal ones have equal texts, but for noughts at the end of numbers."""

from __future__ import annotations

from decimal import Decimal

import polars as pl


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
