"""Which file is the latest, and why it is picked (S7, S20, D1, D2)."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.domain.errors import NotFound
from ingestd.domain.remote_file import RemoteFile, choose, fits, is_safe, newest_first

START = datetime(2020, 10, 1, 2, tzinfo=UTC)


def file(name, hours=0, size=1):
    return RemoteFile(name, size, START + timedelta(hours=hours))


@pytest.mark.rule("S20", "D2")
@pytest.mark.parametrize(
    ("name", "does"),
    [
        ("demo__points.csv", True),
        ("demo__a__b.csv", True),
        ("demo__.csv.csv", True),
        ("demo_points.csv", False),
        ("demo2__x.csv", False),
        ("Demo__x.csv", False),
        ("demo__x_csv", False),
        ("demo__.csv", False),
        ("demo__x.csv.part", False),
        ("demo__x.CSV", True),
        ("demo__.CSV", False),
        ("a demo__x.csv", False),
    ],
)
def test_a_name_is_the_segments_two_underscores_and_any_suffix(name, does):
    assert fits(name, "demo", ".csv") == does


@pytest.mark.rule("D2")
def test_a_name_is_compared_in_its_normal_form_and_may_hold_spaces():
    assert fits("High Cafe\u0301__x.csv", "High Caf\u00e9", ".csv")
    assert not fits("High  Cafe__x.csv", "High Cafe", ".csv")


@pytest.mark.rule("S7", "D1")
def test_the_newest_is_picked_and_it_is_said_why():
    assert choose([file("demo__a.csv")], "demo", ".csv").why == "The only file named demo__….csv."
    choice = choose([file("demo__a.csv", 1), file("demo__b.csv", 3), file("demo__c.csv", 2)], "demo", ".csv")
    assert (choice.file.name, choice.why) == ("demo__b.csv", "The newest of 3 files named demo__….csv.")


@pytest.mark.rule("D1")
def test_of_equally_new_files_the_last_by_name_is_picked():
    choice = choose([file("demo__a.csv"), file("demo__c.csv"), file("demo__b.csv")], "demo", ".csv")
    assert choice.file.name == "demo__c.csv"
    assert choice.why.endswith("; 3 are equally new, of which it is the last by name.")


@pytest.mark.rule("D1")
def test_one_that_grows_is_passed_over():
    files = [file("demo__a.csv", 1), file("demo__b.csv", 2)]
    choice = choose(files, "demo", ".csv", growing={"demo__b.csv"})
    assert choice.file.name == "demo__a.csv"
    assert choice.why.endswith("; what is newer is still being written.")
    with pytest.raises(NotFound, match="still being written"):
        choose(files, "demo", ".csv", growing={"demo__a.csv", "demo__b.csv"})


@pytest.mark.rule("D1", "S21")
def test_where_nothing_fits_that_is_told():
    with pytest.raises(NotFound, match="are not there") as refused:
        choose([file("other__a.csv")], "demo", ".csv")
    assert refused.value.code == "no_file"


@given(
    st.lists(st.builds(file, st.sampled_from(["demo__a.csv", "demo__b.csv", "x.csv"]), st.integers(-9, 9)), max_size=9)
)
def test_no_other_that_fits_is_newer_whatever_the_order(files):
    fitting = [each for each in files if fits(each.name, "demo", ".csv")]
    if fitting:
        picked = choose(files, "demo", ".csv").file
        assert picked == newest_first(fitting)[0] == choose(files[::-1], "demo", ".csv").file
        assert all((each.modified_at, each.name) <= (picked.modified_at, picked.name) for each in fitting)


@pytest.mark.threat("T136")
@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\nb", "a\0", "a\u202eb", "a\udcffb", "x" * 201])
def test_a_name_that_could_lead_elsewhere_or_hide_something_is_not_safe(name):
    assert not is_safe(name)
    assert is_safe("Größe & more (1)__x.csv")
    assert is_safe("高い\u3000客__x.csv")
