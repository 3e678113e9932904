"""Hashes as numbers of 128 bits: they are sorted and joined for a fraction of what their 32 digits take (D54).

Neither Arrow nor NumPy knows such numbers, so they are written as two halves.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

HALVES: Final = ("high", "low")

_HALF: Final = pl.lit(2**64, dtype=pl.UInt128)


def from_digits(digits: pl.Expr) -> pl.Expr:
    """The hash that stands as hexadecimal digits."""
    return digits.str.to_integer(base=16, dtype=pl.UInt128)


def halves(name: str) -> list[pl.Expr]:
    """The two halves, `<name>_high` and `<name>_low`, of a hash."""
    whole = pl.col(name)
    parts = whole // _HALF, whole % _HALF
    return [part.cast(pl.UInt64).alias(f"{name}_{half}") for half, part in zip(HALVES, parts, strict=True)]


def whole(name: str) -> pl.Expr:
    """The hash that stands as its two halves."""
    high, low = (pl.col(f"{name}_{half}").cast(pl.UInt128) for half in HALVES)
    return (high * _HALF + low).alias(name)


def to_digits(numbers: pl.Series) -> pl.Series:
    """Hashes as 32 hexadecimal digits each."""
    matrix = pl.select(number=numbers).select(halves("number")).to_numpy()
    text = matrix.astype(np.dtype(">u8")).tobytes().hex()
    return pl.Series(numbers.name, [text[at : at + 32] for at in range(0, len(text), 32)], dtype=pl.String)
