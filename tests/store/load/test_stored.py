"""Whoever was last changed by the very same rows is left alone without another look, and nobody else."""

from __future__ import annotations

import polars as pl
import pytest
from tests.store.load import world
from tests.store.load.world import frame

from ingestd.domain.column import OPERATION_CODES, Operation
from ingestd.domain.errors import Unavailable
from ingestd.pipeline.fold import fold
from ingestd.store.load import merge, profiles, sealing, sources, stage, stored

ROWS = [{"k1": f"user {number}", "k2": f"x{number}", "a:Name": f'"n{number}"'} for number in range(40)]
NAMES = {"a:Name": pl.String}


@pytest.fixture
def folded(monkeypatch):
    """How many people were folded, file by file."""
    counts = []

    def counting(rows, **stored):
        changes = fold(rows, **stored)
        counts.append(changes.height)
        return changes

    monkeypatch.setattr(world, "fold", counting)
    return counts


@pytest.mark.rule("S97", "S103")
@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("crowd", [1, 2, 100])
@pytest.mark.parametrize("at_once", [7, 1000])
def test_who_comes_again_is_known_by_range_or_one_by_one(account, folded, monkeypatch, few, crowd, at_once):
    for name, value in {"FEW": few, "CROWD": crowd, "AT_ONCE": at_once}.items():
        monkeypatch.setattr(stored, name, value)
    account.push(frame(ROWS, **NAMES))
    some = [*ROWS[:9], ROWS[9] | {"a:Name": '"other"'}, {"k1": "new", "a:Name": '"n"'}]
    found = account.push(frame(some, **NAMES))
    assert (found["created"], found["updated"], found["unchanged"]) == (1, 1, 9)
    assert (folded[0], sum(folded[1:])) == (40, 2)
    assert account.people()["user 9"] == {"Name": "other"}


@pytest.mark.rule("S97", "S103")
@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("long", [1, 300, 10_000])
@pytest.mark.parametrize("texts", [0, 64])
def test_people_are_changed_a_few_at_a_time_where_they_have_much(account, monkeypatch, few, long, texts):
    for name, value in {"FEW": few, "LONG": long, "MOST_BYTES": 700, "SHORT_AT_ONCE": 7}.items():
        monkeypatch.setattr(stored, name, value)
    monkeypatch.setattr(profiles, "STATEMENT_BYTES", 100)
    monkeypatch.setattr(stage, "FEW_TEXTS", texts)
    zips = ["z" * (1 + number % 3 * 200) for number in range(40)]
    first = [row | {"a:Zip": f'"{text}"'} for row, text in zip(ROWS, zips, strict=True)]
    account.push(frame(first, **NAMES, **{"a:Zip": pl.String}))
    other = [row | {"a:Name": f'"other {number % 3}"', "k3": f"y{number}"} for number, row in enumerate(ROWS)]
    found = account.push(frame(other, **NAMES))
    assert (found["created"], found["updated"], found["unchanged"]) == (0, 40, 0)
    assert account.people() == {
        row["k1"]: {"Name": row["a:Name"].strip('"'), "Zip": text} for row, text in zip(other, zips, strict=True)
    }
    assert account.named(3, "y39") == account.named(1, "user 39")
    assert (account.push(frame(other, **NAMES)))["unchanged"] == 40


@pytest.mark.rule("S97", "S103")
@pytest.mark.parametrize("few", [0, 1000])
def test_people_with_much_that_is_stored_as_little_are_changed_a_few_at_a_time(account, folded, monkeypatch, few):
    """PostgreSQL compresses what repeats itself to a hundredth, and what is asked for at once has to fit in memory."""
    for name, value in {"FEW": few, "MOST_BYTES": 100_000}.items():
        monkeypatch.setattr(stored, name, value)
    people = [{"k1": f"user {n}"} for n in range(6)]
    account.push(frame([row | {"a:Name": f'"{"z" * 60_000}"'} for row in people], **NAMES))
    sizes = "SELECT max(pg_column_size(attributes) + pg_column_size(identifiers)) FROM profiles WHERE account_id = %s"
    assert account.rows(sizes) < [(stored.LONG,)]
    account.push(frame([{"k1": "another"}]))
    folded.clear()
    assert account.push(frame([row | {"a:Name": '"n"'} for row in people], **NAMES))["updated"] == 6
    assert sum(folded) == 6
    assert max(folded) <= 2
    assert account.people() == {row["k1"]: {"Name": "n"} for row in people} | {"another": {}}


@pytest.mark.rule("S97", "S103")
def test_who_was_changed_otherwise_since_is_changed_back(account, folded):
    account.push(frame(ROWS[:1], **NAMES))
    account.push(frame([ROWS[0] | {"a:Name": '"other"'}], **NAMES))
    assert account.push(frame(ROWS[:1], **NAMES))["updated"] == 1
    account.connection.execute("DELETE FROM profiles WHERE account_id = %s", (account.id,))
    assert account.push(frame(ROWS[:1], **NAMES))["created"] == 1
    assert folded == [1, 1, 1, 1]


@pytest.mark.rule("S98", "S100")
def test_a_value_that_moves_in_its_list_moves_again(account):
    add, remove = OPERATION_CODES[Operation.ADD], OPERATION_CODES[Operation.REMOVE]
    edits = [('"a"', remove), ('"a"', add), ('"b"', add)]
    rows = frame([{"k1": "ann", "a:L": v, "o:L": o} for v, o in edits], **{"a:L": pl.String, "o:L": pl.Int8})
    assert account.push(rows)["created"] == 1
    assert account.people()["ann"] == {"L": ["a", "b"]}
    assert account.push(rows)["updated"] == 1
    assert account.people()["ann"] == {"L": ["b", "a"]}


@pytest.mark.rule("D54")
def test_people_who_were_merged_are_not_known_by_what_they_were(account):
    one, other = [{"k1": "ann", "k2": "x"}], [{"k3": "y"}]
    account.push(frame(one))
    account.push(frame(other))
    assert account.push(frame([{"k1": "ann", "k3": "y"}]))["merged"] == 1
    assert account.rows("SELECT digest FROM profiles WHERE account_id = %s") == [(None,)]


def test_slices_are_vacuumed_by_their_numbers(account):
    counts = "SELECT relname, vacuum_count FROM pg_stat_user_tables WHERE relname LIKE 'profiles_p___'"
    before = dict(account.connection.execute(counts).fetchall())
    named, vacuumed = {"profiles_p_03", "profiles_p_07", "profiles_p_15"}, set()
    for _ in range(1000):  # the server may be looking at a table just now, which is not waited for
        stored.vacuum(account.connection, "profiles", [3, 7, 15])
        after = dict(account.connection.execute(counts).fetchall())
        vacuumed = {name for name, count in after.items() if count > before[name]}
        if vacuumed == named:
            break
    assert vacuumed == named


@pytest.mark.parametrize("statement", [merge.MERGE, sources.FORGET, sealing.CHANGE])
def test_whoever_else_writes_people_takes_their_digest_away(statement):
    assert "digest = NULL" in statement


@pytest.mark.rule("S97", "D55")
@pytest.mark.parametrize("texts", [0, 2, 64])
def test_preferences_and_origins_are_each_persons_own(account, monkeypatch, texts):
    monkeypatch.setattr(stage, "FEW_TEXTS", texts)
    types = {**NAMES, "a:City": pl.String, "p:sms": pl.Boolean, "p:push": pl.Boolean}
    account.push(frame([row | {"p:sms": True} for row in ROWS], **types))
    choices = [{}, {"a:Name": '"other"'}, {"a:City": '"Oslo"'}, {"p:sms": False}, {"p:push": True, "a:City": '"Rome"'}]
    changes = [choices[number % 5] for number in range(40)]
    rows = [{"k1": row["k1"]} | change for row, change in zip(ROWS, changes, strict=True)]
    found = account.push(frame(rows, **types), buckets=16)
    assert (found["updated"], found["unchanged"]) == (32, 8)
    columns = "identifiers -> 'identity' ->> 0, preferences, origins"
    people = account.rows(f"SELECT {columns} FROM profiles WHERE account_id = %s")
    preferences = [{}, {}, {}, {"sms": False}, {"push": True}]
    origins = [None, {"Name": 2}, {"City": 2}, None, {"City": 2}]
    assert {name: rest for name, *rest in people} == {
        f"user {number}": [{"sms": True} | preferences[number % 5], origins[number % 5]] for number in range(40)
    }


def test_a_row_that_is_not_where_it_was_found_stops_the_part(account, monkeypatch):
    account.push(frame(ROWS[:1], **NAMES))
    found = profiles.with_stored

    def elsewhere(*given):
        return found(*given).with_columns(place=pl.col("place") + 1)

    monkeypatch.setattr(profiles, "with_stored", elsewhere)
    with pytest.raises(Unavailable):
        account.push(frame([ROWS[0] | {"a:Name": '"other"'}], **NAMES))
    assert account.people()["user 0"] == {"Name": "n0"}
