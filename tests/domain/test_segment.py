import pytest

from ingestd.domain.errors import Conflict
from ingestd.domain.segment import SegmentStatus, SegmentType, partition_problem, segment_name_problem


@pytest.mark.rule("S9", "S4")
def test_the_words_are_those_of_the_document():
    assert {status.value for status in SegmentStatus} == {"draft", "in_progress", "active", "inactive"}
    assert {kind.value for kind in SegmentType} == {"SCD", "Non-SCD"}


@pytest.mark.rule("S11", "S12", "S14", "S16", "S44")
@pytest.mark.parametrize("status", SegmentStatus)
def test_a_segment_is_activated_and_deactivated_from_every_status_where_that_means_something(status):
    assert status.activated(waits=True) is SegmentStatus.IN_PROGRESS
    assert status.activated(waits=False) is SegmentStatus.ACTIVE
    if status is SegmentStatus.INACTIVE:
        with pytest.raises(Conflict):
            status.deactivated()
    else:
        assert status.deactivated() is SegmentStatus.INACTIVE


@pytest.mark.rule("S10", "S44")
def test_only_what_waited_for_a_refresh_is_made_active_by_it():
    assert SegmentStatus.IN_PROGRESS.refreshed() is SegmentStatus.ACTIVE
    assert SegmentStatus.INACTIVE.refreshed() is SegmentStatus.INACTIVE


@pytest.mark.rule("S20")
@pytest.mark.parametrize(
    ("name", "sound"),
    [("demo", True), ("demo 2_x", True), ("demo__points", False), ("demo_", False), ("e\u0301", False), ("a/b", False)],
)
def test_a_name_can_be_told_from_the_suffix_of_a_file(name, sound):
    assert (segment_name_problem(name) is None) is sound


@pytest.mark.rule("S25", "D6")
@pytest.mark.parametrize(
    ("value", "sound"),
    [
        ("High", True), ("Très\u00a0cher", True), ("高い\u3000客", True), ("क्\u200dष", True), ("👩\u200d👧", True),
        ("a\u200bb", False), ("a\u202eb", False), ("a\u2028b", False), ("a\x85b", False), ("a\tb", False),
        ("\u3000High", False), ("", False), ("x" * 120, True), ("x" * 121, False),
    ],
)  # fmt: skip
def test_a_partition_may_hold_what_words_of_any_script_need(value, sound):
    assert (partition_problem(value) is None) is sound
