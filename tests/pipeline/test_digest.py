"""Digests: the same rows have the same, and whatever else a fold could make of others shows."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.pipeline.digest import digests
from ingestd.pipeline.fold import fold, in_order

SCHEMA = {
    "id": pl.UInt128, "row_no": pl.Int64, "k1": pl.String, "k2": pl.String, "ts": pl.Int64, "a:L": pl.String,
    "o:L": pl.Int8, "a:M": pl.String, "p:sms": pl.Boolean,
}  # fmt: skip
ROW = st.fixed_dictionaries(
    {
        "k1": st.sampled_from(["ann", "bob", None]),
        "k2": st.sampled_from(["ann", None]),
        "a:L": st.sampled_from(['"x"', '"y"', None]),
        "o:L": st.sampled_from([1, 2, 3, None]),
        "a:M": st.sampled_from(['"x"', '"y"', None]),
        "p:sms": st.sampled_from([True, False, None]),
    }
)


def frame(people):
    """Rows of people, each person's in a row, numbered in the order of the file."""
    rows = [{"id": who << 120, **row} for who, rows in enumerate(people, start=10) for row in rows]
    return pl.DataFrame([{"row_no": number, "ts": number} | row for number, row in enumerate(rows)], schema=SCHEMA)


@pytest.mark.rule("S97")
@given(st.lists(st.lists(ROW, min_size=1, max_size=3), min_size=2, max_size=6))
def test_two_people_have_one_digest_where_and_only_where_their_rows_say_the_same(people):
    rows = frame(people)
    found = digests(in_order(rows.sample(fraction=1, shuffle=True, seed=1)))
    assert found["id"].to_list() == sorted(rows["id"].unique())
    assert found["rows"].to_list() == [len(each) for each in people]
    for one, says in zip(found["digest"], people, strict=True):
        for other, also in zip(found["digest"], people, strict=True):
            assert (one == other) == (says == also)
    folded = fold(rows).drop("id", "rows", "ts")
    same = pl.DataFrame({"digest": found["digest"]}).hstack(folded).unique()
    assert same.height == found["digest"].n_unique()


def test_a_digest_names_the_columns():
    rows = frame([[{"k1": "ann", "a:L": '"x"'}]])
    renamed = rows.rename({"a:L": "a:N"})
    assert digests(rows)["digest"].item() != digests(renamed)["digest"].item()


def test_rows_that_were_dropped_are_counted():
    rows = frame([[{"k1": "ann"}] * 2, [{"k1": "bob"}]]).with_columns(n=pl.Series([0, 7, None], dtype=pl.UInt32))
    assert digests(rows)["rows"].to_list() == [7, 1]
