"""Frames as COPY takes them."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from ingestd.store.load.binary import Field, encode

FIELDS: dict[str, Field] = {"number": "bigint", "text": "text"}
OVERHEAD = 2 + 4 + 8 + 4
"""Bytes of a row beside its text: the count of its fields, a number with its size, and the size of the text."""


@given(st.lists(st.text("ab", max_size=30), min_size=1, max_size=20), st.integers(1, 200))
def test_pieces_are_whole_rows_as_many_as_fit(texts: list[str], most: int) -> None:
    rows = pl.DataFrame({"number": range(len(texts)), "text": texts})
    (whole,) = encode(rows, FIELDS, {}, 10_000)

    pieces = list(encode(rows, FIELDS, {}, most))

    assert b"".join(pieces) == whole
    sizes = [OVERHEAD + len(text) for text in texts]
    for at, piece in enumerate(map(len, pieces)):
        taken = 1
        while sum(sizes[:taken]) < piece:
            taken += 1
        assert piece == sum(sizes[:taken])
        assert piece <= most or taken == 1
        assert at == len(pieces) - 1 or piece + sizes[taken] > most
        sizes = sizes[taken:]
