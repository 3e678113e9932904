"""A part of very many rows comes to the same without those that decide nothing (S103, B55)."""

from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from tests.store.load.test_profiles import COLUMNS, ROWS
from tests.store.load.world import Memory, frame
from tests.thorough import examples

from ingestd.pipeline.fold import fold, in_order
from ingestd.pipeline.identifiers import hashed
from ingestd.pipeline.parts import PartWriter
from ingestd.pipeline.shorten import batches, people, shorten

KEY = "5a" * 32
MORE = {"ts": st.none() | st.integers(0, 3)}


@pytest.mark.rule("S97", "S98", "S99", "S100", "S101", "S102", "S103", "D24")
@settings(max_examples=examples(40))
@given(rows=st.lists(ROWS, min_size=1, max_size=4), ts=st.none() | st.integers(0, 3), data=st.data())
def test_shortened_rows_fold_to_the_same(rows, ts, data):
    whole = frame([row | {"ts": ts} for some in rows for row in some], **COLUMNS)
    whole = whole.select(hashed(1, KEY).alias("id"), pl.all())
    cuts = sorted({0, whole.height, *data.draw(st.lists(st.integers(0, whole.height), max_size=4))})
    pieces = [whole.slice(start, end - start) for start, end in pairwise(cuts)]
    assert_frame_equal(pl.concat(map(_folded, people(lambda: pieces, most=0))), _folded(whole))


@pytest.mark.threat("T84")
def test_what_is_repeated_is_dropped_piece_by_piece():
    folder = Memory()
    writer = PartWriter(folder, folder, buckets=1, index_key=KEY)
    for start in range(0, 3000, 100):
        rows = [
            {"row_no": start + n, "k1": "ann", "a:Age": str(n), "a:L": '"Rock"', "o:L": 1 + n % 2 * 2, "ts": n}
            for n in range(100)
        ]
        writer.write(frame(rows, **COLUMNS))
    (name,) = writer.close().rows
    (rows,) = people(lambda: batches(folder, name), most=5000)
    assert rows.height < 400
    assert shorten(rows).height <= 4
    assert _folded(rows)["rows"].to_list() == [3000]


@pytest.mark.threat("T84")
def test_very_many_people_come_in_groups_each_with_all_its_rows():
    pieces = [
        frame([{"row_no": start + n, "k1": f"user {(start + n) % 1000}"} for n in range(100)]).select(
            hashed(1, KEY).alias("id"), pl.all()
        )
        for start in range(0, 3000, 100)
    ]
    groups = list(people(lambda: pieces, most=2000))
    assert max(rows.height * rows.width for rows in groups) < 4000
    ids = [set(rows["id"]) for rows in groups]
    assert len(ids) > 4
    assert all(max(one) < min(next_) for one, next_ in pairwise(ids))
    assert sum(map(len, ids)) == 1000
    assert all(_folded(rows)["rows"].unique().to_list() == [3] for rows in groups)


def _folded(rows: pl.DataFrame) -> pl.DataFrame:
    return fold(in_order(rows))
