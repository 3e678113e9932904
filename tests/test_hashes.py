"""Hashes as numbers: whatever their digits, halves and bytes are, they come back as they were, and sort as they do."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingestd.hashes import from_bytes, from_digits, joined, names_of_halves, split, to_bytes

EDGES = [0, 1, 2**63, 2**64 - 1, 2**64, 2**127 - 1, 2**127, 2**128 - 1]
HASHES = st.lists(st.integers(0, 2**128 - 1) | st.sampled_from(EDGES))


def numbers(hashes):
    return pl.Series("id", hashes, dtype=pl.UInt128)


@given(st.lists(st.none() | st.integers(0, 2**128 - 1)))
@example([None, None])
def test_digits_are_read_and_null_stays(hashes):
    digits = pl.Series("id", [None if each is None else f"{each:032x}" for each in hashes], dtype=pl.String)
    assert from_digits(digits).equals(numbers(hashes), check_dtypes=True, check_names=True)


@given(HASHES)
@example(EDGES)
def test_bytes_are_those_of_a_uuid_and_come_back(hashes):
    content = b"".join(each.to_bytes(16) for each in hashes)
    assert to_bytes(numbers(hashes)).tobytes() == content
    assert from_bytes(content, "id")["id"].to_list() == hashes
    assert from_bytes(content * 2, "hash", "id").to_dict(as_series=False) == {
        "hash": (hashes * 2)[::2],
        "id": (hashes * 2)[1::2],
    }


@given(HASHES)
@example(EDGES)
def test_halves_come_together_again(hashes):
    rows = pl.DataFrame({"id": numbers(hashes), "hash": numbers(hashes[::-1]), "a:id_high": ["x"] * len(hashes)})
    halves = split(rows)
    assert halves.columns == names_of_halves(rows.columns)
    assert halves.to_arrow().num_rows == len(hashes)
    assert joined(halves).equals(rows)
    assert split(rows.drop("id", "hash")).columns == ["a:id_high"]


def test_nothing_comes_from_nothing():
    assert from_bytes(None, "hash").equals(pl.DataFrame(schema={"hash": pl.UInt128}))


@pytest.mark.parametrize("shift", [0, 1, 63, 64, 100])
def test_what_polars_does_with_numbers_of_any_size_is_right(shift):
    """Half of all hashes are beyond what Python hands over as a literal, and beyond the signed numbers of 128 bits."""
    hashes = [each >> shift for each in EDGES] * 2
    rows = pl.DataFrame({"id": numbers(hashes), "place": range(len(hashes))})
    assert rows.sort("id")["id"].to_list() == sorted(hashes)
    assert rows.select(pl.col("id") // 2**124).to_series().to_list() == [each >> 124 for each in hashes]
    assert set(rows["id"].unique()) == set(hashes)
    some = numbers([each for each in set(hashes) if each % 2])
    within = [each % 2 == 1 for each in hashes]
    assert rows["id"].is_in(some.implode()).to_list() == within
    assert rows.join(some.to_frame(), on="id", how="semi")["place"].sort().to_list() == [
        place for place, is_in in enumerate(within) if is_in
    ]
    last = {each: place for place, each in enumerate(hashes)}
    assert rows.select(pl.col("place").max().over("id")).to_series().to_list() == [last[each] for each in hashes]
    assert dict(rows.group_by("id").max().iter_rows()) == last
