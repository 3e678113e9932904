import json
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.domain import manifest
from ingestd.domain.column import DataType
from ingestd.domain.errors import Invalid
from ingestd.domain.plan import RESTRICTED_EVENTS, Format, Limits, Target

FILES = resources.files("ingestd.cli") / "samples"
GOOD = {"type": "profile", "fileName": "x.csv", "clientEmail": "team@example.org"}


def parse(**changes):
    return manifest.parse(json.dumps(GOOD | changes).encode())


def problems(text):
    with pytest.raises(Invalid) as caught:
        manifest.parse(text if isinstance(text, bytes) else json.dumps(text).encode())
    assert caught.value.code == "manifest_incorrect"
    return [(problem.pointer, problem.code) for problem in caught.value.problems]


@pytest.mark.rule("S105", "S109", "S110", "S111", "S112", "S113", "S116")
def test_the_samples_are_read_to_the_letter():
    events = manifest.parse((FILES / "events.manifest").read_bytes())
    assert (events.file_name, events.client_email, events.target) == (
        "events.csv",
        "data-team@example.org",
        Target.EVENTS,
    )
    assert {header: (rule.name, rule.type) for header, rule in events.columns.items()} == {
        "event_name": ("evtName", DataType.STRING), "time_stamp": ("ts", DataType.INTEGER),
        "identity": ("identity", DataType.STRING), "cookie_id": ("objectId", DataType.STRING),
        "item_name": ("Name", DataType.STRING), "item_price": ("Price", DataType.FLOAT),
        "item_delivery_date": ("DeliveryDate", DataType.STRING),
        "status_delivered": ("DeliveryStatus", DataType.BOOLEAN),
    }  # fmt: skip
    profiles = manifest.parse((FILES / "profiles.manifest").read_bytes())
    assert profiles.target is Target.PROFILES
    assert len(profiles.columns) == 10
    assert events.warnings == profiles.warnings == ()


@pytest.mark.rule("S112", "D26")
def test_three_keys_are_enough_and_unknown_ones_warn():
    made = parse(note="hello")
    assert dict(made.columns) == {}
    assert made.warnings == ("The key 'note' is unknown and was ignored.",)


@pytest.mark.rule("D26")
@pytest.mark.threat("T90")
def test_a_number_under_an_unknown_key_is_a_warning_and_under_a_known_one_a_problem():
    text = json.dumps(GOOD)[:-1]
    made = manifest.parse(f'{text}, "version": 1.5, "size": -{"9" * 300}, "rows": 1e99}}'.encode())
    assert made.warnings == tuple(f"The key '{key}' is unknown and was ignored." for key in ("version", "size", "rows"))
    assert problems(GOOD | {"type": 1, "columns": {"x": 1, "y": {"ctName": 2}, "z": {"dataType": 3}}}) == [
        ("/type", "type"), ("/columns/x", "type"), ("/columns/y/ctName", "type"), ("/columns/z/dataType", "unknown"),
    ]  # fmt: skip


@pytest.mark.rule("D26")
def test_unknown_keys_of_columns_warn_once_each():
    made = parse(columns={"x": {"ctName": "A", "datatype": "LONG"}, "y": {"datatype": "LONG"}, "z": {"k" * 99: ""}})
    assert made.warnings == (
        "The key 'datatype' of a column is unknown and was ignored.",
        f"The key '{'k' * 60}' of a column is unknown and was ignored.",
    )


@pytest.mark.threat("T90")
def test_of_very_many_problems_the_first_hundred_are_told():
    columns = {f"x{number}": {"dataType": "DATE"} for number in range(4000)}
    found = problems(GOOD | {"columns": columns})
    assert len(found) == 101
    assert found[-1] == ("", "too_many")


@pytest.mark.rule("S86", "D36")
def test_the_plan_is_a_csv_plan_with_the_accounts_limits_and_events():
    plan = parse(type="event").plan(Limits(columns=3), ("Mine",))
    assert (plan.format, plan.target, plan.limits.columns) == (Format.CSV, Target.EVENTS, 3)
    assert plan.restricted_events == ("Mine",)
    assert parse().plan().restricted_events == RESTRICTED_EVENTS


@pytest.mark.rule("S108", "D26")
@pytest.mark.parametrize("key", sorted(GOOD))
def test_each_mandatory_key_is_missed_and_must_be_a_text_that_is_not_blank(key):
    assert problems({name: value for name, value in GOOD.items() if name != key}) == [(f"/{key}", "missing")]
    for wrong in (None, True, [], {}, "", "  "):
        assert problems(GOOD | {key: wrong}) == [(f"/{key}", "type")]
    assert problems(GOOD | {key: "a\nb"}) == [(f"/{key}", "characters")]


@pytest.mark.rule("S111")
@pytest.mark.threat("T94", "T104")
@pytest.mark.parametrize(
    "address", ["team", "a@x.org,b@x.org", "a@x.org b@x.org", "Team <a@x.org>", "a" * 1024 + "@x.org", "ä@x.org", "a@b"]
)
def test_the_client_s_address_is_one_address(address):
    assert problems(GOOD | {"clientEmail": address}) == [("/clientEmail", "address")]


@pytest.mark.rule("S108")
def test_all_problems_are_told_at_once():
    text = {"type": "other", "columns": {"a/b": {"dataType": "DATE"}, "c": True}}
    assert problems(text) == [
        ("/type", "unknown"), ("/fileName", "missing"), ("/clientEmail", "missing"),
        ("/columns/a~1b/dataType", "unknown"), ("/columns/c", "type"),
    ]  # fmt: skip


@pytest.mark.rule("S109")
@pytest.mark.parametrize("word", ["Profile", "events", "segment"])
def test_another_type_is_unknown(word):
    assert problems(GOOD | {"type": word}) == [("/type", "unknown")]


@pytest.mark.rule("S113")
@pytest.mark.parametrize("word", ["DATE", "EMAIL", "PHONE", "integer", "", False, None, []])
def test_a_data_type_is_one_of_five(word):
    assert problems(GOOD | {"columns": {"x": {"dataType": word}}}) == [("/columns/x/dataType", "unknown")]


@pytest.mark.rule("S112", "D26")
def test_a_columns_name_may_be_written_in_two_ways_but_not_both():
    made = parse(columns={"x": {"ctName": "A"}, "y": {"name": "B"}, "z": {}})
    assert {header: (rule.name, rule.type) for header, rule in made.columns.items()} == {
        "x": ("A", DataType.STRING), "y": ("B", DataType.STRING), "z": (None, DataType.STRING),
    }  # fmt: skip
    assert problems(GOOD | {"columns": {"x": {"ctName": "A", "name": "A"}}}) == [("/columns/x", "duplicate_key")]


@pytest.mark.rule("D46")
@pytest.mark.parametrize(
    ("name", "code"),
    [("", "name"), ("x" * 121, "name"), ('a"', "name"), ("$x", "reserved"), ("x.Operation", "reserved"), ([], "type")],
)
def test_a_target_has_a_name_that_can_be_kept(name, code):
    assert problems(GOOD | {"columns": {"x": {"ctName": name}}}) == [("/columns/x/ctName", code)]


@pytest.mark.rule("D46")
def test_two_columns_may_not_have_one_target_or_one_header():
    assert problems(GOOD | {"columns": {"x": {"ctName": "A"}, "A": {}}}) == [("/columns/A", "duplicate_target")]
    assert ("/columns/\u00e9", "duplicate_key") in problems(
        GOOD | {"columns": {"e\u0301": {"ctName": "A"}, "\u00e9": {}}}
    )


@pytest.mark.rule("S105", "S122")
@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "json"), (b"{", "json"), (b"{'a': 1}", "json"), (b'{"a": NaN}', "json"), (b'{"a": 01}', "json"),
        (b"1.5", "type"), (b"[]", "type"), (b'"x"', "type"), (b"null", "type"), (b"\xff\xfe{\x00", "encoding"),
        (b'{"type": "a", "type": "b"}', "duplicate_key"), (b'{"a\\u0000": ""}', "characters"),
        (b'{"\\ud800": ""}', "characters"), (b"[" * 9 + b"]" * 9, "too_deep"), (b" " * (256 * 1024 + 1), "too_large"),
        (b"{} {}", "json"), (b"[" * 100_000, "too_deep"),
    ],
    ids=range(17),
)  # fmt: skip
def test_what_is_no_strict_json_object_is_refused(text, code):
    assert [found for _, found in problems(text)] == [code]


def test_a_byte_order_mark_is_allowed():
    assert manifest.parse(b"\xef\xbb\xbf" + json.dumps(GOOD).encode()).file_name == "x.csv"


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.binary() | st.fixed_dictionaries({}, optional=dict.fromkeys([*GOOD, "columns", "x"], ANY)).map(json.dumps))
def test_any_input_is_read_or_refused_with_problems(text):
    try:
        made = manifest.parse(text if isinstance(text, bytes) else text.encode())
    except Invalid as error:
        assert error.problems  # noqa: PT017  a refusal is one of the two good ends
    else:
        assert made.file_name.strip()
