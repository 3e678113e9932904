"""Seal: personal values in the rows of a part become tokens, before anything of them is stored (S61, D13, D55).

Equal values have equal tokens, so whether a value changed, and which values a list has, is seen from the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from ingestd.domain.identity import kind_word
from ingestd.domain.personal import canonical, canonical_of, identifier_place, sealed
from ingestd.keyring import AccountKeys


def seal(rows: pl.DataFrame, personal: Mapping[str, int | None], keys: AccountKeys) -> tuple[pl.DataFrame, set[int]]:
    """Seal the columns "a:<name>" and "k<kind>" of personal attributes, which are given by name with their kind.

    Also gives the kinds of which the identifiers are sealed: JSON text then, as values are.
    """
    changed, kinds = [], set()
    for name, kind in personal.items():
        if (column := f"a:{name}") in rows.columns:
            distinct = rows[column].drop_nulls().unique()
            changed.append(_replaced(rows[column], distinct, keys.seal_values(name, map(canonical, distinct))))
        if kind is not None and (column := f"k{kind}") in rows.columns:
            distinct, place = rows[column].drop_nulls().unique(), identifier_place(kind_word(kind))
            changed.append(_replaced(rows[column], distinct, keys.seal_values(place, map(canonical_of, distinct))))
            kinds.add(kind)
    return rows.with_columns(changed), kinds


def _replaced(values: pl.Series, distinct: pl.Series, tokens: list[str]) -> pl.Series:
    """Values by the tokens of the distinct ones among them; null stays."""
    texts = pl.Series(map(sealed, tokens), dtype=pl.String)
    return values.replace_strict(distinct, texts, default=None, return_dtype=pl.String)
