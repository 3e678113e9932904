"""Who is the same person: files resolved and applied, against people joined row by row in plain Python (D54)."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store.load.world import KEY, NOW, Account, frame
from tests.thorough import examples

from ingestd.domain.identity import IdentifierKind
from ingestd.store.profiles import identifier_hash


class Person:
    """Identifiers (kind, value) of one person; `stored` lists (has no identity, seq, hash) of profiles it was."""

    def __init__(self, identifiers) -> None:
        self.identifiers, self.stored, self.best = set(identifiers), [], None

    @property
    def identities(self):
        return {value for kind, value in self.identifiers if kind == 1}

    @property
    def id(self):
        return min(self.stored)[-1] if self.stored else self.best[-1]


def interpret(people, rows, seq):
    """Take a file's rows one by one; gives the people, the rows rejected and how many profiles were merged."""
    rejected = []
    for row_no, row in enumerate(rows, start=1):
        named = sorted((int(kind[1]), value) for kind, value in row.items() if value is not None)
        met = [person for person in people if person.identifiers & set(named)]
        if len(set().union(*(person.identities for person in met), Person(named).identities)) > 1:
            rejected.append(row_no)
            continue
        one = Person(named)
        kind, value = named[0]
        bests = [(kind, row_no, identifier_hash(KEY, kind, value)), *(person.best for person in met if person.best)]
        for person in met:
            one.identifiers |= person.identifiers
            one.stored += person.stored
        one.best = min(bests)
        people = [person for person in people if person not in met] + [one]
    merged = sum(len(person.stored) - 1 for person in people if person.stored)
    for person in people:
        origin = min(person.stored)[1] if person.stored else seq
        person.stored, person.best = [(not person.identities, origin, person.id)], None
    return people, rejected, merged


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "k1": st.none() | st.sampled_from("ABC"),
            "k2": st.none() | st.sampled_from("uvwx"),
            "k3": st.none() | st.sampled_from("mno"),
        }
    ).filter(lambda row: any(row.values())),
    min_size=1,
    max_size=7,
)


@pytest.mark.rule("D54")
@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.lists(ROWS, min_size=1, max_size=4), buckets=st.sampled_from([1, 16]))
def test_people_are_those_that_the_rows_tie_one_by_one(connection, files, buckets):
    account, people = Account(connection), []
    for seq, rows in enumerate(files, start=1):
        people, rejected, merged = interpret(people, rows, seq)
        found = account.push(frame(rows), buckets=buckets)
        assert (found["rejected"], found["merged"]) == (rejected, merged)
        for person in people:
            assert {account.named(*identifier) for identifier in person.identifiers} == {person.id}
        stored = account.rows("SELECT profile_id, identifiers FROM profiles WHERE account_id = %s")
        assert {
            id_: {(IdentifierKind.IDENTITY, v) for v in held.get("identity", [])}
            | {(IdentifierKind.OBJECT_ID, v) for v in held.get("objectId", [])}
            | {(IdentifierKind.FB_ID, v) for v in held.get("fbId", [])}
            for id_, held in stored
        } == {person.id: person.identifiers for person in people}


@pytest.mark.rule("D54")
def test_of_two_profiles_the_one_with_an_identity_survives_and_the_later_change_wins(account):
    columns = {f"a:{name}": pl.String for name in ("Old", "New", "Gone", "Same")} | {"o:Gone": pl.Int8}
    account.push(frame([{"k2": "u", "a:Old": "1", "a:New": "1", "a:Gone": "1"}], **columns))
    account.push(frame([{"k1": "A", "a:Old": "2", "a:Gone": "2"}], **columns))
    account.push(frame([{"k2": "u", "a:New": "3", "o:Gone": 4}], **columns))
    loser, survivor = account.named(2, "u"), account.named(1, "A")
    assert account.push(frame([{"k1": "A", "k2": "u", "a:Same": "4"}], **columns))["merged"] == 1
    assert account.named(2, "u") == account.named(1, "A") == survivor != loser
    assert account.people() == {"A": {"Old": 2, "New": 3, "Same": 4}}


@pytest.mark.rule("D54", "S101")
def test_what_a_row_says_of_those_whom_it_ties_wins_over_all_that_was_stored_of_either(account):
    columns = {f"a:{name}": pl.String for name in ("Same", "Gone", "List")} | {"o:Gone": pl.Int8, "o:List": pl.Int8}
    account.push(frame([{"k1": "A", "a:Same": "1", "a:List": "1"}], **columns))
    account.push(frame([{"k2": "u", "a:Same": "2", "a:Gone": "2", "a:List": "2"}], **columns))
    row = {"k1": "A", "k2": "u", "a:Same": "1", "o:Gone": 4, "a:List": "3", "o:List": 1}
    assert account.push(frame([row], **columns))["merged"] == 1
    assert account.people() == {"A": {"Same": 1, "List": [2, 3]}}


@pytest.mark.rule("D54", "S104")
def test_of_the_preferences_of_two_profiles_those_win_that_came_later(account):
    columns = {"p:MSG-sms": pl.Boolean, "p:MSG-push": pl.Boolean}
    account.push(frame([{"k1": "A", "p:MSG-sms": True, "p:MSG-push": False}], **columns))
    account.push(frame([{"k2": "u", "p:MSG-sms": False, "p:MSG-push": False}], **columns))
    assert account.push(frame([{"k1": "A", "k2": "u", "p:MSG-push": True}], **columns))["merged"] == 1
    stored = account.rows("SELECT preferences FROM profiles WHERE account_id = %s")
    assert stored == [({"MSG-sms": False, "MSG-push": True},)]


@pytest.mark.rule("D54", "S104")
def test_of_several_profiles_that_become_one_the_latest_change_of_each_value_wins(account):
    columns = {"p:MSG-sms": pl.Boolean, "a:City": pl.String, "a:Lists": pl.String, "o:Lists": pl.Int8}
    account.push(frame([{"k1": "A", "p:MSG-sms": True, "a:City": '"Rome"'}], **columns))
    account.push(frame([{"k2": "u", "p:MSG-sms": True, "a:City": '"Oslo"', "a:Lists": '"x"'}], **columns))
    account.push(frame([{"k3": "m", "p:MSG-sms": False, "a:City": '"Bern"'}], **columns))
    account.push(frame([{"k2": "u", "a:Lists": '"y"'}], **columns))
    ties = [{"k1": "A", "k3": "m"}, {"k1": "A", "k2": "u"}]
    assert account.push(frame(ties, **columns))["merged"] == 2
    assert account.rows("SELECT attributes, preferences, identifiers, origins FROM profiles WHERE account_id = %s") == [
        (
            {"City": "Bern", "Lists": "y"},
            {"MSG-sms": True},
            {"identity": ["A"], "objectId": ["u"], "fbId": ["m"]},
            {"City": 3, "Lists": 4},
        )
    ]


@pytest.mark.rule("D54")
def test_a_row_that_ties_two_identities_is_rejected_alone_and_ties_nothing(account):
    rows = [{"k1": "A", "k2": "u"}, {"k1": "B", "k2": "u", "k3": "m"}, {"k1": "B", "k2": "v"}, {"k3": "m"}]
    assert account.push(frame(rows))["rejected"] == [2]
    assert len({account.named(1, "A"), account.named(1, "B"), account.named(3, "m")}) == 3


@pytest.mark.rule("D54")
def test_a_chain_of_merges_leads_to_the_last_survivor(account):
    for row in ({"k2": "u"}, {"k3": "m"}, {"k2": "u", "k3": "m"}, {"k1": "A"}, {"k1": "A", "k3": "m"}):
        account.push(frame([row]))
    assert {account.named(1, "A"), account.named(2, "u"), account.named(3, "m")} == {account.named(1, "A")}
    assert account.push(frame([{"k2": "u"}, {"k3": "m"}]))["unchanged"] == 1


@pytest.mark.rule("D54")
def test_events_make_and_tie_people(account):
    columns = {"event_name": pl.String, "a:Price": pl.String}
    rows = [{"k1": "A", "k2": "u", "event_name": "Bought", "a:Price": "1.5"}, {"k2": "u", "event_name": "Seen"}]
    assert account.push(frame(rows, **columns))["created"] == 2
    assert account.people() == {"A": {}}
    stored = account.rows("SELECT profile_id, name, ts, properties FROM events WHERE account_id = %s ORDER BY event_id")
    person = account.named(2, "u")
    assert stored == [
        (person, "Bought", 1_790_000_000, {"Price": 1.5}),
        (person, "Seen", 1_790_000_000, {}),
    ]


@pytest.mark.rule("D54")
def test_an_identifier_of_somebody_who_is_not_there_is_the_next_ones(account):
    ann, bob = (identifier_hash(KEY, 1, name) for name in ("ann", "bob"))
    account.push(frame([{"k1": "ann", "k2": "x", "k3": "m"}]))
    account.connection.execute("DELETE FROM profiles WHERE account_id = %s", (account.id,))
    assert account.named(2, "x") is None
    account.push(frame([{"k1": "bob", "k2": "x"}]))
    assert account.named(2, "x") == bob
    account.push(frame([{"k2": "x"}, {"k3": "m"}]))
    assert account.named(2, "x") == bob
    assert account.named(3, "m") == ann
    assert account.rows("SELECT count(*) FROM profiles WHERE account_id = %s") == [(2,)]


@pytest.mark.threat("T115")
def test_of_who_was_erased_after_the_file_came_no_identifier_is_left(account):
    stone = (account.id, 2, identifier_hash(KEY, 2, "x"), NOW)
    account.connection.execute("INSERT INTO tombstones VALUES (%s, %s, %s, %s)", stone)
    rows = frame([{"k1": "ann", "k2": "x", "k3": "m"}, {"k1": "bob", "k2": "y"}])
    assert account.push(rows, received_at=NOW - timedelta(seconds=1))["erased"] == 1
    aliases = account.rows("SELECT hash FROM profile_aliases WHERE account_id = %s")
    assert aliases == [(identifier_hash(KEY, 2, "y"),)]


@pytest.mark.rule("D54")
def test_thousands_who_share_an_identifier_are_one_in_time_that_grows_with_them(connection):
    many, account = 10_000, Account(connection)  # a minute and more, if each of them were compared with each other
    number = pl.int_range(many, eager=True).cast(pl.String)
    apart = frame([{}] * many).with_columns(k2="browser-" + number)
    assert account.push(apart)["created"] == many
    assert account.push(apart.with_columns(k3=pl.lit("unknown")))["merged"] == many - 1
    assert account.named(2, "browser-0") == account.named(2, f"browser-{many - 1}") == account.named(3, "unknown")
