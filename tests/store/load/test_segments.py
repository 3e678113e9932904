"""Refreshes of segments against a naive interpreter: a set of members, and a list of who was where when."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store.load.world import KEY, NOW, Memory
from tests.thorough import examples

from ingestd.pipeline.parts import PartWriter, read_all
from ingestd.store.load.present import CHANGE, beside, changed
from ingestd.store.load.segments import Refresh, TooManyLeave, apply_segment, compare
from ingestd.store.load.stage import Load
from ingestd.store.profiles import identifier_hash

PARTITIONS = ["High", "Medium", "Low"]
PEOPLE = [f"p{number}" for number in range(12)]

Rows = list[tuple[str, str]]


@dataclass
class Group:
    """A segment whose files are applied one after the other."""

    connection: psycopg.Connection[Any]
    reading: psycopg.Connection[Any]
    type: str
    account: UUID = field(default_factory=uuid4)
    id: UUID = field(default_factory=uuid4)

    def __post_init__(self) -> None:
        self.connection.execute(
            "INSERT INTO segments (id, account_id, name, description, type, method, upload_type, status, members,"
            " created_at) VALUES (%s, %s, %s, '', %s, 'upload', 'manual', 'in_progress', 0, now())",
            (self.id, self.account, self.id.hex, self.type),
        )

    def push(self, rows: Rows, *, buckets: int = 1, received_at: datetime = NOW, **refresh: Any) -> dict[str, int]:
        """Apply a file; gives the counts that are not zero."""
        folder = Memory()
        writer = PartWriter(folder, folder, buckets=buckets, index_key=KEY)
        frame = pl.DataFrame(rows, schema={"k1": pl.String, "partition": pl.String}, orient="row")
        writer.write(frame.with_row_index("row_no"))
        parts = writer.close()
        load = Load(account_id=self.account, ingestion_id=uuid4(), seq=1, received_at=received_at, now=NOW)
        what = Refresh(segment_id=self.id, **{"additive": False, "hold_above": None} | refresh)
        files = read_all(folder, parts.rows, buckets)
        there = beside(self.reading, files, buckets, account_id=self.account, segment_id=self.id)
        with self.connection.transaction():
            done = apply_segment(self.connection, there, what, load=load)
        return {name: count for name, count in asdict(done).items() if count}

    def members(self, at: datetime | None = None) -> dict[str, str]:
        """Who is in which partition, or was at a moment."""
        moment = at or self.now()
        found = self.connection.execute(
            "SELECT m.value, p.value FROM segment_members m"
            " JOIN segments s ON s.number = m.segment"
            " JOIN partitions p ON p.segment_id = s.id AND p.number = m.partition"
            " WHERE s.id = %s AND m.valid_from <= %s AND (m.valid_to IS NULL OR m.valid_to > %s)",
            (self.id, moment, moment),
        ).fetchall()
        assert len(dict(found)) == len(found)
        return dict(found)

    def now(self) -> datetime:
        ((moment,),) = self.connection.execute("SELECT clock_timestamp()").fetchall()
        return moment

    def counted(self) -> dict[str, int]:
        """The members of each partition, as they are counted."""
        found = self.connection.execute("SELECT value, members FROM partitions WHERE segment_id = %s", (self.id,))
        return {value: members for value, members in found if members}

    def numbers(self) -> dict[str, int]:
        """The number of each partition that is there."""
        found = self.connection.execute(
            "SELECT value, number FROM partitions WHERE segment_id = %s AND removed_at IS NULL", (self.id,)
        )
        return dict(found.fetchall())

    def noted(self) -> int:
        """How many bytes of changes stand beside what is packed."""
        ((size,),) = self.connection.execute(
            "SELECT sum(length(changes)) FROM packed_members WHERE segment_id = %s", (self.id,)
        ).fetchall()
        return size

    def versions(self) -> int:
        """How many versions of rows there are: it grows with every write."""
        ((count,),) = self.connection.execute(
            "SELECT count(*) FROM segment_members m JOIN segments s ON s.number = m.segment WHERE s.id = %s", (self.id,)
        ).fetchall()
        return count


@pytest.fixture(scope="module")
def reading(database_url):
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


@pytest.fixture(params=["SCD", "Non-SCD"])
def group(connection, reading, request):
    return Group(connection, reading, request.param)


def counts_of(before: dict[str, str], after: dict[str, str]) -> dict[str, int]:
    found = {
        "created": len(after.keys() - before.keys()),
        "removed": len(before.keys() - after.keys()),
        "updated": sum(before[each] != after[each] for each in before.keys() & after.keys()),
        "unchanged": sum(before[each] == after[each] for each in before.keys() & after.keys()),
    }
    return {name: count for name, count in found.items() if count}


def counted(members: dict[str, str]) -> dict[str, int]:
    return {name: list(members.values()).count(name) for name in set(members.values())}


files = st.lists(st.tuples(st.sampled_from(PEOPLE), st.sampled_from(PARTITIONS)), max_size=20)


@pytest.mark.rule("S5", "S6", "S41", "D6")
@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["SCD", "Non-SCD"]), pushed=st.lists(st.tuples(files, st.booleans()), max_size=4))
def test_refreshes_do_what_a_naive_interpreter_does(connection, reading, kind, pushed):
    group, now, moments = Group(connection, reading, kind), {}, []
    for rows, additive in pushed:
        then, now = now, (now if additive else {}) | dict(rows)
        done = group.push(rows, buckets=1 if additive else 16, additive=additive)
        places = len(set(rows)) - len(dict(rows))
        done.pop("doubled", None) if places else None
        expected = counts_of(then, now)
        if additive:  # those who are not in the file are unchanged
            expected = counts_of(then, now)
        assert done == expected
        assert group.members() == now
        assert group.counted() == counted(now)
        moments.append((group.now(), dict(now)))
        versions = group.versions()
        group.push(rows, buckets=16, additive=additive)
        assert group.versions() == versions  # the same file again writes nothing
    if kind == "SCD":
        for moment, members in moments:
            assert group.members(moment) == members


def test_the_last_row_of_a_person_counts_and_the_others_are_told(group):
    assert group.push([("ann", "High"), ("bob", "Low"), ("ann", "Low"), ("ann", "Low")]) == {"created": 2, "doubled": 1}
    assert group.members() == {"ann": "Low", "bob": "Low"}


@pytest.mark.rule("D6")
@pytest.mark.parametrize("buckets", [1, 16])
def test_the_last_of_very_many_rows_of_a_person_counts(group, buckets):
    """A sort that does not keep the order of equals may still keep that of a few."""
    rows = [(f"p{number * 7 % 31}", f"level {number * 13 % 5}") for number in range(5000)]
    assert group.push(rows, buckets=buckets)["created"] == 31
    assert group.members() == dict(rows)


@pytest.mark.rule("S5", "S6")
def test_an_scd_segment_keeps_what_was_and_another_does_not(group):
    group.push([("ann", "High"), ("bob", "Low")])
    before = group.now()
    group.push([("ann", "Low"), ("cem", "Low")])
    assert group.members() == {"ann": "Low", "cem": "Low"}
    assert group.members(before) == ({"ann": "High", "bob": "Low"} if group.type == "SCD" else {})
    assert group.versions() == (4 if group.type == "SCD" else 2)


def test_a_refresh_that_removes_too_many_does_nothing(group):
    group.push([(name, "High") for name in PEOPLE[:10]])
    for buckets in (1, 16):  # who leaves is counted to the end
        with pytest.raises(TooManyLeave) as refused:
            group.push([("new", "Low"), *((name, "High") for name in PEOPLE[:4])], buckets=buckets, hold_above=0.5)
        assert (refused.value.leaving, refused.value.members) == (6, 10)
    assert len(group.members()) == 10
    assert group.push([(name, "High") for name in PEOPLE[:5]], hold_above=0.5) == {"removed": 5, "unchanged": 5}


def test_what_is_packed_of_another_range_serves_as_well_as_the_rows(group):
    rows = [(f"p{number}", PARTITIONS[number % 3]) for number in range(60)]
    group.push(rows)
    for buckets in (1, 16, 1, 32, 16):
        assert group.push(rows, buckets=buckets) == {"unchanged": 60}
    moved = [(name, "Low") for name, _ in rows]
    group.push(moved[:30], buckets=16, additive=True)
    assert group.push(rows, buckets=16) == counts_of(dict(rows) | dict(moved[:30]), dict(rows))


def test_what_is_noted_beside_the_packed_serves_until_it_is_packed_anew(group):
    """Of four hundred a few change each time: noted, over and over, and at last too many to be noted."""
    now = {f"p{number}": PARTITIONS[number % 3] for number in range(400)}
    group.push([*now.items()], buckets=16)
    noted = []
    for turn in range(12):
        gone = [f"p{number}" for number in range(turn * 5, turn * 5 + 5)]
        then = {name: where for name, where in now.items() if name not in gone}
        then |= {f"new{turn}": "High", f"p{300 + turn}": PARTITIONS[turn % 3]} | ({gone[0]: "Low"} if turn % 2 else {})
        assert group.push([*then.items()], buckets=16) == counts_of(now, then)
        assert group.members() == then
        assert group.push([*then.items()], buckets=16) == {"unchanged": len(then)}
        now = then
        noted.append(group.noted())
    assert any(later > before for before, later in pairwise(noted))
    assert any(later < before for before, later in pairwise(noted))


@pytest.mark.threat("T115")
def test_who_was_erased_after_the_file_came_is_skipped(group):
    group.connection.execute(
        "INSERT INTO tombstones VALUES (%s, 1, %s, %s)",
        (group.account, identifier_hash(KEY, 1, "ann"), NOW + timedelta(seconds=1)),
    )
    assert group.push([("ann", "High"), ("bob", "Low")]) == {"created": 1, "erased": 1}
    assert group.push([("ann", "High")], received_at=NOW + timedelta(seconds=2)) == {"created": 1, "removed": 1}


def test_a_new_value_with_the_name_of_a_renamed_partition_gets_another_name(group):
    group.push([("ann", "High")])
    group.connection.execute("UPDATE partitions SET name = 'Top' WHERE segment_id = %s", (group.id,))
    group.push([("ann", "High"), ("bob", "Top (2)")])
    group.push([("ann", "High"), ("bob", "Top (2)"), ("cem", "Top")])
    found = group.connection.execute("SELECT value, name FROM partitions WHERE segment_id = %s", (group.id,))
    assert dict(found.fetchall()) == {"High": "Top", "Top (2)": "Top (2)", "Top": "Top (3)"}


def test_a_name_is_free_whatever_the_number_of_partitions(group):
    group.push([("ann", "High"), ("bob", "Top (3)")])
    group.connection.execute("UPDATE partitions SET name = 'Top' WHERE value = 'High' AND segment_id = %s", (group.id,))
    group.push([("ann", "High"), ("bob", "Top (3)"), ("cem", "Top")])
    found = group.connection.execute("SELECT value, name FROM partitions WHERE segment_id = %s", (group.id,))
    assert dict(found.fetchall()) == {"High": "Top", "Top (3)": "Top (3)", "Top": "Top (2)"}


@pytest.mark.rule("S5", "S41")
def test_partitions_that_come_and_go_use_no_numbers_up(group, monkeypatch):
    """Two thirds of them change each time, so those that are left empty go; an SCD segment gives the same ones back."""
    monkeypatch.setattr("ingestd.store.load.partitions.MAX_PARTITIONS", 40)
    files = [[(f"u{each}", f"p{each % 60}") for each in range(first, first + 30)] for first in range(0, 180, 20)]
    for rows in files:
        group.push(rows)
        assert group.members() == dict(rows)
        assert group.counted() == counted(dict(rows))
        assert set(group.numbers()) >= {value for _, value in rows}
        assert max(group.numbers().values()) <= (60 if group.type == "SCD" else 50)


@pytest.mark.rule("S5", "S41")
def test_a_partition_that_was_hidden_when_it_went_comes_back_as_another(group):
    group.push([("ann", "High"), ("bob", "Low")])
    before = group.numbers()
    for statement in (
        "UPDATE partitions SET disabled = value = 'High', removed_at = now(), members = 0 WHERE segment_id = %s",
        "DELETE FROM segment_members WHERE segment = (SELECT number FROM segments WHERE id = %s)",
        "DELETE FROM packed_members WHERE segment_id = %s",
    ):
        group.connection.execute(statement, (group.id,))
    group.push([("ann", "High"), ("bob", "Low")])
    after = group.numbers()
    assert (after["Low"], after["High"]) == (before["Low"], 3)


@given(st.data())
def test_noted_changes_do_what_a_dictionary_does(data):
    people = st.tuples(st.sampled_from([1, 2, 2**64 - 1]), st.sampled_from([0, 1, 5, 2**64 - 1]))
    there = data.draw(st.dictionaries(people, st.integers(1, 9)))
    changes = data.draw(st.lists(st.tuples(people, st.integers(0, 9)), max_size=30))
    rows = [(high, low, number) for (high, low), number in sorted(there.items())]
    members = pl.DataFrame(rows, schema={"high": pl.UInt64, "low": pl.UInt64, "was": pl.Int16}, orient="row")
    noted = np.array([(high, low, number) for (high, low), number in changes], CHANGE)
    expected = {who: number for who, number in (there | dict(changes)).items() if number}
    assert changed(members, noted).rows() == [(*who, number) for who, number in sorted(expected.items())]


def test_people_whose_hashes_begin_alike_are_told_apart():
    halves = {"high": pl.UInt64, "low": pl.UInt64}
    there = pl.DataFrame({"high": [1, 1, 2], "low": [1, 2, 1], "was": [7, 8, 9]}, schema=halves | {"was": pl.Int16})
    wanted = pl.DataFrame({"high": [1, 2, 2], "low": [2, 1, 2], "is": [8, 5, 6]}, schema=halves | {"is": pl.Int16})
    found = compare(there, wanted)
    assert found.entered.rows() == [(2, 2, 6)]
    assert found.moved.rows() == [(2, 1, 5, 9)]
    assert found.left.rows() == [(1, 1, 7)]
    assert found.unchanged == 1
