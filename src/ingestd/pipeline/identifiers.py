"""The identifiers in the rows of a file, and the hashes by which people are known."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl
import polars_hash as plh

from ingestd.hashes import from_digits


def kinds_of(columns: Iterable[str]) -> list[int]:
    """The kinds of identifier that a frame has, highest precedence first."""
    return sorted(int(column[1:]) for column in columns if column.startswith("k") and column[1:].isdecimal())


def naming(rows: pl.DataFrame) -> list[int]:
    """The kinds of which an identifier is the best of some row: its hash may be the id of the row's person."""
    named, kinds = pl.repeat(False, rows.height, eager=True), []
    for kind in kinds_of(rows.columns):
        given = rows[f"k{kind}"].is_not_null()
        if (given & ~named).any():
            kinds.append(kind)
        named |= given
    return kinds


def hashed(kind: int, index_key: str) -> pl.Expr:
    """The hash of the column `k<kind>`: HMAC-SHA-256 of kind, NUL and value, the first 128 bits, as a number.

    The same as `store.profiles.identifier_hash`. `index_key` is the account's, never rotated.
    """
    return digits_of(kind, index_key).map_batches(from_digits, return_dtype=pl.UInt128)


def digits_of(kind: int, index_key: str) -> pl.Expr:
    """The same in hexadecimal digits."""
    return plh.concat_str(pl.lit(f"{kind}\0"), f"k{kind}").chash.hmac_sha256(key=index_key).str.head(32)


def identifiers(rows: pl.DataFrame, index_key: str, *, moved: bool = True) -> pl.DataFrame:
    """The identifiers in the rows of a part, some more than once: "id" (whose it is), "kind" and "hash".

    Where no row was `moved` the hash of the best kind is the id, which need not be computed again.
    """
    kinds = kinds_of(rows.columns)
    hashes = {kind: hashed(kind, index_key) for kind in kinds}
    if not moved:
        hashes[kinds[0]] = pl.when(pl.col(f"k{kinds[0]}").is_not_null()).then("id")
    return pl.concat(
        rows.select("id", pl.lit(kind, dtype=pl.Int16).alias("kind"), hash=hash_).drop_nulls()
        for kind, hash_ in hashes.items()
    )
