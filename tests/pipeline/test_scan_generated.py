"""The scanner against the benchmark's files, which know what is wrong with them."""

import csv

import pytest

from benchmarks.generate import events, profiles
from ingestd.domain.plan import Limits
from ingestd.domain.rejection import ROW_REASONS
from ingestd.pipeline.grammar import VERDICTS
from ingestd.pipeline.scan import open_scan


def scanned(path, chunk_bytes=1 << 24):
    with path.open("rb") as stream:
        return list(open_scan(stream, delimiter=",", limits=Limits(), chunk_bytes=chunk_bytes).batches())


@pytest.mark.parametrize("write", [profiles, events])
@pytest.mark.parametrize("variant", ["first", "quoted"])
def test_exactly_the_records_that_the_truth_names_are_broken(tmp_path, write, variant):
    made = write(tmp_path / "x.csv", mb=3, bad_share=0.02, variant=variant)
    with made.truth.open() as file:
        truth = [(int(bad["record"]), int(bad["line"]), bad["kind"]) for bad in csv.DictReader(file)]
    assert len(truth) == made.rejected
    assert len({kind for *_, kind in truth}) >= 11
    assert {kind for *_, kind in truth} <= set(ROW_REASONS)
    expected = [bad for bad in truth if bad[2] in VERDICTS]
    for chunk_bytes in (100_000, 1 << 24):
        batches = scanned(made.data, chunk_bytes)
        assert [row for batch in batches for row in batch.broken.select("row_no", "line_no", "code").rows()] == expected
        assert sum(batch.rows.height for batch in batches) == made.rows - len(expected)


def test_the_clean_copy_is_clean_and_holds_the_people_it_says(tmp_path):
    made = profiles(tmp_path / "x.csv", mb=2)
    batches = scanned(made.clean)
    assert not any(batch.broken.height for batch in batches)
    identities = [row[1] for batch in batches for row in batch.rows.rows()]
    cookies = {(row[2], row[1]) for batch in batches for row in batch.rows.rows() if row[2]}
    assert len(identities) == made.rows - made.rejected
    assert len(set(identities)) == made.people
    assert len(cookies) == len({cookie for cookie, _ in cookies}) == len({identity for _, identity in cookies})


def test_the_same_seed_gives_the_same_bytes_and_updates_the_same_people(tmp_path):
    first, again = profiles(tmp_path / "a.csv", mb=0.3), profiles(tmp_path / "b.csv", mb=0.3)
    assert first.data.read_bytes() == again.data.read_bytes()
    updates = profiles(tmp_path / "c.csv", mb=0.3, variant="updates")
    assert updates.data.read_bytes() != first.data.read_bytes()
    people = [[row[1] for row in scanned(made.clean)[0].rows.rows()] for made in (first, updates)]
    assert people[0] == people[1]
