"""Fold and load together against a naive interpreter: one row after the other, one attribute after the other."""

from __future__ import annotations

import json
from datetime import timedelta
from uuid import uuid4

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store.load.world import KEY, NOW, Account, frame
from tests.thorough import examples

from ingestd.domain.column import OPERATION_CODES, Operation
from ingestd.pipeline import rules
from ingestd.store.load.profiles import apply_profiles
from ingestd.store.load.stage import Load
from ingestd.store.profiles import identifier_hash

ADD, SET, REMOVE, DELETE = (OPERATION_CODES[each] for each in Operation)
WORDS = ['"Rock"', '"Pop"', '"Jazz"', '"a\\\\b\\"c"', "7", "true", '{"$D":5}']
COLUMNS = {
    "a:L": pl.String,
    "o:L": pl.Int8,
    "a:M": pl.String,
    "o:M": pl.Int8,
    "a:Age": pl.String,
    "p:MSG-sms": pl.Boolean,
}

ABSENT = object()


class Person:
    """A person as the naive interpreter knows them."""

    def __init__(self, origin: int) -> None:
        self.attributes, self.preferences, self.identifiers, self.origins = {}, {}, {}, {}
        self.origin = origin

    def seen(self):
        return json.dumps([self.attributes, self.preferences, self.identifiers], sort_keys=True)


def as_list(value):
    return [] if value is ABSENT else list(value) if isinstance(value, list) else [value]


def in_any_order(people):
    def plain(value):
        return sorted(value, key=json.dumps) if isinstance(value, list) else value

    return {person: {name: plain(value) for name, value in has.items()} for person, has in people.items()}


class Change:
    """What a file does to one attribute: a value to begin with, and the list it became."""

    def __init__(self, value) -> None:
        self.value, self.list = value, None

    def take(self, value, code):
        if code == DELETE:
            self.value, self.list = ABSENT, None
        elif value is None:
            return
        elif code in (None, 0, SET):
            self.value, self.list = value, None
        else:
            self.list = as_list(self.value) if self.list is None else self.list
            if code == ADD and value not in self.list:
                self.list.append(value)
            if code == REMOVE and value in self.list:
                self.list.remove(value)

    def end(self):
        return self.value if self.list is None or self.list == as_list(self.value) else self.list


def interpret(people, rows, seq):
    """Apply a file to `people` (by identity) and count."""
    before = {identity: person.seen() for identity, person in people.items()}
    changes = {}
    for row in rows:
        person = people.setdefault(row["k1"], Person(seq))
        for kind, word in (("k1", "identity"), ("k2", "objectId")):
            known = person.identifiers.setdefault(word, [])
            if row[kind] is not None and row[kind] not in known:
                known.append(row[kind])
        if row["p:MSG-sms"] is not None:
            person.preferences["MSG-sms"] = row["p:MSG-sms"]
        for name in ("L", "M", "Age"):
            value = row[f"a:{name}"] and json.loads(row[f"a:{name}"])
            change = changes.setdefault((row["k1"], name), Change(person.attributes.get(name, ABSENT)))
            change.take(value, row.get(f"o:{name}"))
    for (identity, name), change in changes.items():
        person, value = people[identity], change.end()
        if value is not ABSENT and person.attributes.get(name, ABSENT) != value:
            person.attributes[name], person.origins[name] = value, seq
        elif value is ABSENT and person.attributes.pop(name, ABSENT) is not ABSENT:
            person.origins[name] = seq
    touched = {row["k1"] for row in rows}
    created = len(touched - before.keys())
    updated = sum(people[identity].seen() != before[identity] for identity in touched & before.keys())
    return {"created": created, "updated": updated, "unchanged": len(touched) - created - updated}


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "k1": st.sampled_from(["ann", 'b"o\\b', "cy"]),
            "k2": st.none() | st.sampled_from(["x", "y"]),
            "a:L": st.none() | st.sampled_from(WORDS),
            "o:L": st.sampled_from([None, 0, ADD, ADD, REMOVE, SET, DELETE]),
            "a:M": st.none() | st.sampled_from(WORDS[:3]),
            "o:M": st.sampled_from([None, ADD, REMOVE]),
            "a:Age": st.none() | st.sampled_from(["1", "2", "3"]),
            "p:MSG-sms": st.none() | st.booleans(),
        }
    ).map(lambda row: row | {"k2": row["k2"] and f"{row['k1']}-{row['k2']}"}),
    min_size=1,
    max_size=12,
)


@pytest.mark.rule("S97", "S98", "S99", "S100", "S101", "S102", "S103", "S104", "D24", "D48")
@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.lists(ROWS, min_size=1, max_size=3), buckets=st.sampled_from([1, 16]))
def test_files_do_what_their_rows_do_one_by_one(connection, files, buckets):
    account, people = Account(connection), {}
    for seq, rows in enumerate(files, start=1):
        expected = interpret(people, rows, seq)
        found = account.push(frame(rows, **COLUMNS), buckets=buckets)
        assert {word: found[word] for word in expected} == expected
        stored = account.rows(
            "SELECT identifiers -> 'identity' ->> 0, attributes, preferences, identifiers, origin, origins"
            " FROM profiles WHERE account_id = %s"
        )
        assert {row[0] for row in stored} == people.keys()
        for identity, attributes, preferences, identifiers, origin, origins in stored:
            person = people[identity]
            assert attributes == person.attributes
            assert preferences == person.preferences
            assert identifiers == {word: values for word, values in person.identifiers.items() if values}
            assert origin == person.origin
            assert all((origins or {}).get(name, origin) == person.origins[name] for name in attributes)


@pytest.mark.rule("S98", "S99", "S100", "S101", "D24")
@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.lists(ROWS, min_size=1, max_size=2))
def test_whatever_a_file_does_it_does_once(connection, files):
    """Sent again it moves to the end of a list what it takes out and puts in again; sent once more it does nothing."""
    account = Account(connection)
    for rows in files:
        account.push(frame(rows, **COLUMNS))
    before = account.people()
    account.push(frame(files[-1], **COLUMNS))
    assert in_any_order(account.people()) == in_any_order(before)
    everything = "SELECT profile_id, attributes, preferences, identifiers, xmin::text, ctid::text FROM profiles"
    settled = account.rows(f"{everything} WHERE account_id = %s ORDER BY 1")
    again = account.push(frame(files[-1], **COLUMNS))
    assert (again["created"], again["updated"]) == (0, 0)
    assert account.rows(f"{everything} WHERE account_id = %s ORDER BY 1") == settled


@pytest.mark.rule("S98", "D24")
def test_a_file_sent_again_costs_next_to_no_writing(account):
    def written(rows):
        before = account.connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()[0]
        account.push(rows)
        return account.connection.execute("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", [before]).fetchone()[0]

    people = [{"k1": f"p{n}", "a:L": '"Rock"', "o:L": ADD, "a:Age": "7", "p:MSG-sms": True} for n in range(3000)]
    first, again = written(frame(people, **COLUMNS)), written(frame(people, **COLUMNS))
    assert again < first / 20


@pytest.mark.rule("S98", "D24")
def test_a_repeated_file_writes_nothing(account):
    rows = frame([{"k1": "ann", "a:L": '"Rock"', "o:L": ADD}, {"k1": "ann", "a:L": '"Pop"', "o:L": REMOVE}], **COLUMNS)
    account.push(rows)
    before = account.rows("SELECT xmin::text, ctid::text FROM profiles WHERE account_id = %s")
    assert account.push(rows)["unchanged"] == 1
    assert account.rows("SELECT xmin::text, ctid::text FROM profiles WHERE account_id = %s") == before


@pytest.mark.rule("S99", "S101")
def test_removing_from_a_scalar_and_deleting_with_a_value(account):
    account.push(frame([{"k1": "ann", "a:L": '"Rock"', "a:M": '"Pop"'}], **COLUMNS))
    account.push(frame([{"k1": "ann", "a:L": '"Rock"', "o:L": REMOVE, "a:M": '"Pop"', "o:M": DELETE}], **COLUMNS))
    assert account.people() == {"ann": {"L": []}}


@pytest.mark.rule("D54")
def test_names_that_look_like_statements_are_kept_to_the_byte(account):
    names = ["'; drop table profiles;--", "%s", "%(x)s", ":x", "a.b", "$", "{0}", "a,b", "é", "__proto__", "[0]"]
    columns = {f"a:{name}": pl.String for name in names} | {f"o:{name}": pl.Int8 for name in names}
    for word in ('"1"', '"2"'):
        account.push(frame([{"k1": "ann"} | {f"a:{name}": word for name in names}], **columns))
    assert account.people() == {"ann": dict.fromkeys(names, "2")}
    account.push(frame([{"k1": "ann"} | {f"o:{name}": DELETE for name in names}], **columns))
    assert account.people() == {"ann": {}}


def test_a_thousand_attributes_twenty_of_them_lists(account):
    names = [f"attribute {number}" for number in range(1000)]
    columns = {f"a:{name}": pl.String for name in names} | {f"o:{name}": pl.Int8 for name in names[:20]}
    for word in ('"x"', '"y"'):
        row = {"k1": "ann"} | {f"a:{name}": word for name in names} | {f"o:{name}": ADD for name in names[:20]}
        account.push(frame([row], **columns))
    assert account.people() == {"ann": {name: ["x", "y"] if name in names[:20] else "y" for name in names}}


@pytest.mark.rule("S97", "S113")
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("123.0", "123"), ("1.50", "1.5"), ("1e+20", "100000000000000000000"), ("1.1e-6", "0.0000011"), ("7", "7"),
        ('{"$D":5}', '{"$D": 5}'), ('{"$E":"x"}', '{"$E": "x"}'), ('"a\\nb, c"', '"a\\nb, c"'), ('"[1]"', '"[1]"'),
    ],
)  # fmt: skip
def test_a_value_is_the_same_however_it_is_written(account, one, other):
    account.push(frame([{"k1": "ann", "a:L": one}], **COLUMNS))
    assert account.push(frame([{"k1": "ann", "a:L": other}] * 2, **COLUMNS))["unchanged"] == 1


@pytest.mark.rule("S97")
@pytest.mark.parametrize(
    ("stored", "given"), [('"7"', "7"), ("7", '"7"'), ('"true"', "true"), ("7", "70"), ("7", "7.1")]
)
def test_a_value_of_another_type_is_another(account, stored, given):
    account.push(frame([{"k1": "ann", "a:L": stored}], **COLUMNS))
    assert account.push(frame([{"k1": "ann", "a:L": given}], **COLUMNS))["updated"] == 1
    assert account.people() == {"ann": {"L": json.loads(given)}}


@pytest.mark.rule("S97", "S98")
@pytest.mark.parametrize("change", [{"a:L": '"x"'}, {"a:L": "123", "o:L": REMOVE}])
def test_numbers_are_the_same_beside_somebody_who_has_something_else(account, change):
    account.push(frame([{"k1": name, "a:L": "123.0", "a:M": "1"} for name in "abc"], **COLUMNS))
    first = "SELECT identifiers -> 'identity' ->> 0 FROM profiles WHERE account_id = %s ORDER BY profile_id LIMIT 1"
    ((odd,),) = account.rows(first)
    account.push(frame([{"k1": odd} | change], **COLUMNS))
    rows = [{"k1": name, "a:M": "1"} | ({} if name == odd else {"a:L": "123"}) for name in "abc"]
    assert account.push(frame(rows, **COLUMNS))["unchanged"] == 3


@pytest.mark.rule("S98", "S100")
def test_a_number_that_is_taken_out_and_put_in_again_at_the_end_changes_nothing(account):
    account.push(frame([{"k1": "ann", "a:L": value, "o:L": ADD} for value in ("7.0", "8.0")], **COLUMNS))
    edits = [{"k1": "ann", "a:L": "8", "o:L": operation} for operation in (REMOVE, ADD)]
    assert account.push(frame(edits, **COLUMNS))["unchanged"] == 1
    assert account.people() == {"ann": {"L": [7, 8]}}


@pytest.mark.rule("S113")
def test_texts_are_escaped_as_postgresql_does_it(account):
    texts = [*map(chr, range(1, 0x30)), "\\", "\x7f", "é", "\u2028", "😀"]
    written = pl.select(rules.quote(rules.escaped(pl.Series(texts)))).to_series()
    ours = account.connection.execute("SELECT t::jsonb::text FROM unnest(%s::text[]) AS t", [written.to_list()])
    assert [text for (text,) in ours.fetchall()] == written.to_list()


@pytest.mark.rule("S98", "S99", "S100")
def test_lists_of_awkward_values_are_edited_value_by_value(account):
    texts = [", ", '"', "\\", "a, b", "[", "]", "[]", "\n", '", "', "é", ""]
    words = [
        *(json.dumps(text, ensure_ascii=False) for text in texts),
        '{"$D":5}',
        '{"$E":"x"}',
        "true",
        "100000000000000000000",
        "7.0",
    ]
    values = [json.loads(word) for word in words]
    account.push(frame([{"k1": "ann", "a:L": word, "o:L": ADD} for word in words], **COLUMNS))
    assert account.people() == {"ann": {"L": values}}
    edits = [*((word, ADD) for word in reversed(words)), ("7", ADD), ('"new"', ADD)]
    account.push(frame([{"k1": "ann", "a:L": word, "o:L": edit} for word, edit in edits], **COLUMNS))
    assert account.people() == {"ann": {"L": [*values, "new"]}}
    for word, value in zip(words, values, strict=True):
        account.push(frame([{"k1": "ann", "a:L": word, "o:L": REMOVE}], **COLUMNS))
        (has,) = account.people().values()
        assert value not in has["L"]
    assert has == {"L": ["new"]}


@pytest.mark.rule("S97", "S102")
def test_what_a_file_does_not_name_stays_and_what_it_deletes_goes(account):
    account.push(frame([{"k1": "ann", "a:Age": "1", "a:Zip": '"z"', "a:L": '"x"'}], **COLUMNS, **{"a:Zip": pl.String}))
    account.push(frame([{"k1": "ann", "o:L": DELETE, "a:M": '"m"'}], **COLUMNS))
    assert account.people() == {"ann": {"Age": 1, "Zip": "z", "M": "m"}}
    assert account.rows("SELECT origins FROM profiles WHERE account_id = %s") == [({"L": 2, "M": 2},)]


@pytest.mark.threat("T115")
def test_people_erased_after_the_file_came_are_skipped_and_counted(account):
    erase = "INSERT INTO tombstones VALUES (%s, %s, %s, %s)"
    account.connection.execute(erase, (account.id, 2, identifier_hash(KEY, 2, "x"), NOW))
    rows = frame([{"k1": "ann", "k2": "x"}, {"k1": "ann", "a:Age": "1"}, {"k1": "bob", "a:Age": "2"}], **COLUMNS)
    found = account.push(rows, received_at=NOW - timedelta(seconds=1))
    assert (found["created"], found["erased"]) == (1, 2)
    assert account.people() == {"bob": {"Age": 2}}
    assert account.named(2, "x") is None
    assert account.push(rows, received_at=NOW + timedelta(seconds=1))["created"] == 1
    assert account.people().keys() == {"ann", "bob"}


@pytest.mark.rule("D48")
def test_many_rows_of_one_person_are_folded_in_file_order(account):
    rows = [{"k1": "ann", "a:Age": str(number), "a:L": f'"{number % 50}"', "o:L": ADD} for number in range(20_000)]
    account.push(frame(rows, **COLUMNS))
    assert account.people() == {"ann": {"Age": 19_999, "L": [str(number) for number in range(50)]}}


@pytest.mark.rule("D16")
def test_of_many_attributes_those_that_changed_are_known(account):
    names = [f'Größe "{number}" %s' for number in range(20)]
    columns = dict.fromkeys((f"a:{name}" for name in names), pl.String)
    people = [{"k1": "ann"} | {f"a:{name}": "1" for name in names}]
    account.push(frame(people, **columns))
    changed = names[::3]
    account.push(frame([people[0] | {f"a:{name}": "2" for name in changed}], **columns))
    ((origins,),) = account.rows("SELECT origins FROM profiles WHERE account_id = %s")
    assert origins == dict.fromkeys(changed, 2)


def test_a_part_of_an_older_version_whose_ids_are_digits_is_not_applied(account):
    load = Load(account_id=account.id, ingestion_id=uuid4(), seq=1, received_at=NOW, now=NOW)
    digests = pl.DataFrame({"id": ["0" * 31 + "7"], "rows": [1], "digest": [1]})
    with pytest.raises(TypeError), account.connection.transaction():
        apply_profiles(account.connection, digests, pytest.fail, pytest.fail, columns=["k1"], load=load)
    assert account.people() == {}
