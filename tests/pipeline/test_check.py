"""Each rule of a row, on both of its sides, and the specification's own samples."""

import csv
import json
from importlib import resources

import polars as pl
import pytest

from ingestd.domain import manifest
from ingestd.domain.column import DataType
from ingestd.domain.identity import normalise
from ingestd.domain.layout import bind
from ingestd.domain.plan import ColumnRule, Format, Limits, Plan, Target
from ingestd.pipeline.check import Check

NOW = 1_790_000_000
FILES = resources.files("ingestd.cli") / "samples"
IDENTIFIER = "Atleast one of identity / fbId / gpId / objectId is mandatory under 1024 chars to identify the user"


def frame(rows):
    schema = {str(position): pl.String for position in range(len(rows[0]))}
    numbers = pl.int_range(1, pl.len() + 1, dtype=pl.Int64)
    cells = [[cell or None for cell in row] for row in rows]
    return pl.DataFrame(cells, schema=schema, orient="row").with_columns(row_no=numbers, line_no=numbers + 1)


def check(headers, *rows, target=Target.PROFILES, types=None, limits=None):
    rules = {name: ColumnRule(type=data_type) for name, data_type in (types or {}).items()}
    plan = Plan(format=Format.CSV, target=target, columns=rules, limits=limits or Limits())
    return Check(bind(plan, tuple(headers)), plan, NOW).batch(frame(rows))


def sample(name):
    plan = manifest.parse((FILES / f"{name}.manifest").read_bytes()).plan()
    header, *rows = csv.reader((FILES / f"{name}.csv").read_text().splitlines())
    return Check(bind(plan, tuple(header)), plan, NOW).batch(frame(rows))


def value(data_type, cell):
    """The stored value of one cell, or the sentence that rejects it."""
    checked = check(["identity", "x"], ["p", cell], types={"x": data_type})
    if checked.rejected.height:
        return checked.rejected["failure"].item()
    return json.loads(checked.accepted["a:x"].item())


def event(name="Bought", **cells):
    checked = check(["evtName", "identity", *cells], [name, "p", *cells.values()], target=Target.EVENTS)
    return checked.rejected["failure"].item() if checked.rejected.height else checked.accepted.row(0, named=True)


@pytest.mark.rule("S96", "S98", "S99", "S100", "S101", "S102", "S104", "S116", "D25")
def test_the_five_rows_of_the_profile_sample_are_accepted():
    checked = sample("profiles")
    assert checked.rejected.height == 0
    assert checked.accepted.to_dict(as_series=False) == {
        "row_no": [1, 2, 3, 4, 5],
        "line_no": [2, 3, 4, 5, 6],
        "k1": [f"{name}@example.org" for name in
               ("john.doe-001", "jane.doe-002", "john.roe-003", "jane.roe-004", "jane.roe-005")],
        "k2": [f"dummy_cookie-00{number}" for number in range(1, 6)],
        "ts": [1574668407, 1574668408, 1574668409, 1574668410, None],
        "a:Name": ['"JohnDoe-001"', '"JaneDoe-002"', '"JohnRoe-003"', '"JaneRoe-004"', '"JaneRoe-005"'],
        "a:Email": [f'"{name}@example.org"' for name in
                    ("john.doe-001", "jane.doe-002", "john.roe-003", "jane.roe-004", "jane.roe-005")],
        "o:Phone": [None, None, 2, 4, None],
        "a:Phone": ['"+918876543211"', '"+918876543212"', '"+918876543213"', None, '"+918876543213"'],
        "a:Married": ["true", "false", "true", "false", None],
        "a:Age": ["21", "22", "25", "28", "32"],
        "o:Playlist": [1, 3, None, None, None],
        "a:Playlist": ['"Rock"', '"Pop"', None, None, None],
        "p:MSG-sms": [True, False, True, False, None],
        "p:MSG-dndSMS": [False, True, False, True, None],
    }  # fmt: skip


@pytest.mark.rule("S94", "S95", "S116")
def test_the_four_rows_of_the_event_sample_are_accepted():
    checked = sample("events")
    assert checked.rejected.height == 0
    assert checked.accepted.to_dict(as_series=False) == {
        "row_no": [1, 2, 3, 4],
        "line_no": [2, 3, 4, 5],
        "k1": ["john.doe-001@example.org"] * 4,
        "k2": ["cookie_123"] * 4,
        "ts": [1578503667] * 4,
        "event_name": ["Purchased"] * 4,
        "a:Name": [f'"Awesome Ring - {number}"' for number in range(10, 14)],
        "a:Price": ["123.0"] * 4,
        "a:DeliveryDate": ['{"$D":1589274432}'] * 4,
        "a:DeliveryStatus": ["true", "false", "true", "false"],
    }


INTEGER = "x: not an INTEGER of 32 bits (LONG has 64)"
LONG = "x: not a LONG (64-bit whole number)"
FLOAT = "x: not a FLOAT"
BOOLEAN = "x: not a BOOLEAN (true, false, 1, 0, y, n, yes, no)"
DATE = "x: not a date ($D_ and epoch seconds)"
MOMENT = "x: not a date (ISO 8601 such as 2026-01-31, or epoch seconds)"
DATE_IN_NUMBER = "x: a $D_ date in a column of numbers or booleans"


@pytest.mark.rule("S113", "D21", "D22", "D55")
@pytest.mark.parametrize(
    ("data_type", "cell", "expected"),
    [
        ("INTEGER", "2147483647", 2147483647), ("INTEGER", "2147483648", INTEGER),
        ("INTEGER", "-2147483648", -2147483648), ("INTEGER", "-2147483649", INTEGER),
        ("INTEGER", "-0", 0), ("INTEGER", "+7", 7), ("INTEGER", "007", 7),
        ("INTEGER", "1_000", INTEGER), ("INTEGER", "0x10", INTEGER), ("INTEGER", " 1", INTEGER),
        ("INTEGER", "\uff19", INTEGER), ("INTEGER", "1.0", INTEGER), ("INTEGER", "$D_1", DATE_IN_NUMBER),
        ("LONG", "9223372036854775807", 2**63 - 1), ("LONG", "9223372036854775808", LONG),
        ("LONG", "-9223372036854775808", -(2**63)), ("LONG", "-9223372036854775809", LONG),
        ("FLOAT", "123", 123.0), ("FLOAT", "-0", 0.0), ("FLOAT", ".5", 0.5), ("FLOAT", "1e16", 1e16),
        ("FLOAT", "0.30000000000000004", 0.30000000000000004), ("FLOAT", "1.7e308", 1.7e308),
        ("FLOAT", "1e400", FLOAT), ("FLOAT", "NaN", FLOAT), ("FLOAT", "inf", FLOAT), ("FLOAT", "1 ", FLOAT),
        ("FLOAT", "$D_1", DATE_IN_NUMBER),
        ("BOOLEAN", "TRUE", True), ("BOOLEAN", "Y", True), ("BOOLEAN", "1", True), ("BOOLEAN", "yes", True),
        ("BOOLEAN", "False", False), ("BOOLEAN", "n", False), ("BOOLEAN", "0", False), ("BOOLEAN", "NO", False),
        ("BOOLEAN", "t", BOOLEAN), ("BOOLEAN", " true", BOOLEAN), ("BOOLEAN", "$D_1", DATE_IN_NUMBER),
        ("STRING", "$D_1589274432", {"$D": 1589274432}), ("STRING", "$D_-1", {"$D": -1}), ("STRING", "$D_", DATE),
        ("STRING", "$D_99999999999", {"$D": 99999999999}), ("STRING", "$D_100000000000", DATE),
        ("STRING", "$D_-62135596800", {"$D": -62135596800}), ("STRING", "$D_-62135596801", DATE),
        ("STRING", "$D_1e9", DATE), ("STRING", "$d_1", "$d_1"), ("STRING", " $D_1", " $D_1"),
        ("STRING", 'a "b" \\ \x01\t\x7f é', 'a "b" \\ \x01\t\x7f é'), ("STRING", "  ", "  "),
        ("DATE", "$D_0", {"$D": 0}), ("DATE", "2020-05-12", {"$D": 1589241600}), ("DATE", "15", {"$D": 15}),
        ("DATE", "2020-05-12T09:07:12Z", {"$D": 1589274432}), ("DATE", "2020-05-12T14:37+05:30", {"$D": 1589274420}),
        ("DATE", "2020-05-12 14:37:12.9+0530", {"$D": 1589274432}), ("DATE", "0001-01-01", {"$D": -62135596800}),
        ("DATE", "0000-12-31", MOMENT), ("DATE", "2020-02-30", MOMENT), ("DATE", "20200512", MOMENT),
        ("DATE", "9999-12-31T18:59:59-05:00", {"$D": 253402300799}), ("DATE", "9999-12-31T19:00-05:00", MOMENT),
        ("DATE", "0001-01-01T00:00+05:00", MOMENT), ("DATE", "12.05.2020", MOMENT),
        ("DATE", "2020-05-12T25:00", MOMENT), ("DATE", "1589274432000", MOMENT),
    ],
)  # fmt: skip
def test_a_typed_cell_is_stored_in_its_canonical_form_or_its_row_is_rejected(data_type, cell, expected):
    found = value(DataType(data_type), cell)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.rule("S113", "D55")
@pytest.mark.parametrize(
    ("data_type", "cell", "fragment"),
    [
        ("FLOAT", "-0", "0.0"),
        ("FLOAT", "+1.50", "1.5"),
        ("FLOAT", "7", "7.0"),
        ("INTEGER", "-0", "0"),
        ("LONG", "+007", "7"),
    ],
)
def test_equal_numbers_are_written_alike(data_type, cell, fragment):
    for rows in (1, 3):  # Polars adds to one row otherwise than to several
        checked = check(["identity", "x"], *[["p", cell]] * rows, types={"x": DataType(data_type)})
        assert checked.accepted["a:x"].to_list() == [fragment] * rows


@pytest.mark.rule("D5")
@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("+918876543211", "+918876543211"), ("918876543211", "+918876543211"), ("442079460000", "+442079460000"),
        ("+4402079460000", "+442079460000"), ("8876543211", None), ("+91 8876543211", None), ("++918876543211", None),
        ("+9100000", None), ("phone", None), ("0", None),
    ],
)  # fmt: skip
def test_a_phone_is_stored_as_e164_or_its_row_is_rejected(cell, expected):
    checked = check(["identity", "Phone"], ["p", cell])
    if expected is None:
        assert checked.rejected["failure"].to_list() == ["Phone number is not valid"]
    else:
        assert checked.accepted["a:Phone"].to_list() == [f'"{expected}"']


@pytest.mark.rule("D5")
@pytest.mark.parametrize(
    ("cell", "good"),
    [
        ("Jane.Doe+x@Example.org", True), ("ä@bücher.example", True), ("jane", False), ("jane@example", False),
        ("jane@@example.org", False), ("ja ne@example.org", False), (".jane@example.org", False),
        ("jane@example..org", False), ("jane@-example.org", False), ('"j"@example.org', False),
        ("a" * 242 + "@example.org", True), ("a" * 243 + "@example.org", False),
    ],
)  # fmt: skip
def test_an_address_has_the_shape_of_one_and_is_kept_as_written(cell, good):
    checked = check(["identity", "email"], ["p", cell])
    assert checked.rejected["codes"].to_list() == ([] if good else [["email_invalid"]])
    assert checked.accepted["a:email"].to_list() == ([f'"{cell}"'] if good else [])


@pytest.mark.rule("S91", "S92", "S115", "S143", "D19", "D27")
@pytest.mark.threat("T117")
@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("x" * 1023, "x" * 1023), ("é" * 1023, "é" * 1023), ("x" * 1024, IDENTIFIER), ("", IDENTIFIER),
        ("   ", IDENTIFIER), ("\u00a0", IDENTIFIER), (" John Doe\t", "John Doe"), ("e\u0301", "é"), ("😀", "😀"),
        ("А", "А"), ("ß", "ß"),  # noqa: RUF001  a Cyrillic letter stays one
        ("a\u200b", "identity: the identifier holds a control or invisible character"),
        ("\u202ea", "identity: the identifier holds a control or invisible character"),
        ("a\x01b", "identity: the identifier holds a control or invisible character"),
    ],
)  # fmt: skip
def test_an_identifier_is_brought_to_its_normal_form_or_its_row_is_rejected(cell, expected):
    checked = check(["identity"], [cell], ["other"])
    if checked.rejected.height:
        assert checked.rejected["failure"].item() == expected
        assert normalise(cell) is None
    else:
        assert checked.accepted["k1"].to_list() == [expected, "other"]
        assert normalise(cell) == expected


@pytest.mark.rule("S23", "D5")
@pytest.mark.threat("T117")
@pytest.mark.parametrize("others", [[], ["ä@bücher.example"], ["Bo@example.org"] * 30])
def test_an_address_that_identifies_has_its_domain_in_lower_case(others):
    cells = ["Ann@Example.ORG", "ann@example.org", "ann@BÜCHER.example", "e\u0301@EXAMPLE.org", "a@İ.example", *others]
    plan = Plan(format=Format.CSV, target=Target.SEGMENT)
    checked = Check(bind(plan, ("email", "level")), plan, NOW).batch(frame([[cell, "High"] for cell in cells]))
    assert checked.accepted["k6"].to_list() == [normalise(cell, DataType.EMAIL) for cell in cells]


@pytest.mark.rule("S115")
def test_one_identifier_is_enough_but_none_may_be_too_long():
    checked = check(["identity", "fbId"], ["p", ""], ["", "f"], ["p", "f" * 1024], ["", ""])
    assert checked.accepted.select("k1", "k3").rows() == [("p", None), (None, "f")]
    assert checked.rejected["row_no"].to_list() == [3, 4]
    assert set(checked.rejected["failure"]) == {IDENTIFIER}


@pytest.mark.rule("S90", "S93", "D20", "D48")
@pytest.mark.parametrize(
    ("target", "cell", "expected"),
    [
        (Target.PROFILES, "1578503667", 1578503667), (Target.PROFILES, "", None), (Target.PROFILES, "-5", -5),
        (Target.PROFILES, "2020-01-01", "ts_invalid"), (Target.PROFILES, "1578503667000", "ts_milliseconds"),
        (Target.PROFILES, "100000000000", "ts_invalid"), (Target.PROFILES, "1578503667.0", "ts_invalid"),
        (Target.EVENTS, "946684800", 946684800), (Target.EVENTS, "946684799", "ts_out_of_range"),
        (Target.EVENTS, str(NOW + 86400), NOW + 86400), (Target.EVENTS, str(NOW + 86401), "ts_out_of_range"),
        (Target.EVENTS, "-5", "ts_out_of_range"), (Target.EVENTS, "1578503667000", "ts_milliseconds"),
    ],
)  # fmt: skip
def test_ts_is_in_epoch_seconds_and_that_of_an_event_is_plausible(target, cell, expected):
    checked = check(["identity", "evtName", "ts"], ["p", "Bought", cell], target=target)
    if isinstance(expected, str):
        assert checked.rejected["codes"].to_list() == [[expected]]
    else:
        assert checked.accepted["ts"].to_list() == [expected]


@pytest.mark.rule("S124", "S125", "D36")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (" Bought ", "Bought"), ("x" * 512, "x" * 512), ("x" * 513, "The event name is longer than 512 characters"),
        ("", "Event name is mandatory"), ("  ", "Event name is mandatory"),
        ("App Launched", "Event name belongs to restricted system events"),
        (" UTM Visited ", "Event name belongs to restricted system events"), ("app launched", "app launched"),
    ],
)  # fmt: skip
def test_an_event_has_a_name_that_is_not_the_systems(name, expected):
    found = event(name)
    assert (found if isinstance(found, str) else found["event_name"]) == expected


@pytest.mark.rule("S126", "D28")
def test_an_event_has_at_most_a_hundred_properties_that_are_not_blank():
    headers = ["evtName", "ts", "identity", *(f"x{number}" for number in range(102))]
    most = ["Bought", "1578503667", "p", *["1"] * 100, "", ""]
    many = ["Bought", "1578503667", "p", *["1"] * 101, ""]
    checked = check(headers, most, many, target=Target.EVENTS)
    assert checked.accepted["row_no"].to_list() == [1]
    assert checked.rejected["failure"].to_list() == ["Cannot have more than 100 event properties"]


@pytest.mark.rule("S114", "S104")
def test_a_preference_of_an_event_is_a_property_of_its_own_name():
    assert event(**{"msg-SMS": "perhaps"})["a:msg-SMS"] == '"perhaps"'


@pytest.mark.rule("S118")
@pytest.mark.parametrize(
    ("name", "cell", "warned"), [("Charged", '["ring","box"]', True), ("Charged", "", False), ("Bought", "ring", False)]
)
def test_the_items_of_a_charged_event_are_text_and_worth_a_warning(name, cell, warned):
    plan = Plan(format=Format.CSV, target=Target.EVENTS)
    check = Check(bind(plan, ("evtName", "identity", "Items")), plan, NOW)
    checked = check.batch(frame([["Viewed", "p", "x"], [name, "p", cell], ["Charged", "", "x"]]))
    assert checked.accepted["a:Items"].to_list()[1] == (json.dumps(cell) if cell else None)
    assert check.warnings == (
        ["Items: the items of Charged events are kept as text; a list of items cannot be imported."] if warned else []
    )


@pytest.mark.rule("D23")
def test_an_events_property_takes_no_operation():
    headers = ["evtName", "identity", "x", "x.operation"]
    checked = check(headers, ["Bought", "p", "1", "$set"], ["Bought", "p", "1", ""], target=Target.EVENTS)
    assert checked.rejected["failure"].to_list() == ["x: an event's property takes no operation"]
    assert checked.accepted.columns == ["row_no", "line_no", "k1", "ts", "event_name", "a:x"]


OPERATION = "Profile operation must be one of $add, $set, $remove, $delete"


@pytest.mark.rule("S97", "S102", "S127", "D24")
@pytest.mark.parametrize(
    ("cell", "operation", "expected"),
    [
        ("5", "", (None, "5")), ("", "", (None, None)), ("5", "$add", (1, "5")), ("5", "$set", (2, "5")),
        ("5", "$remove", (3, "5")), ("5", "$delete", (4, None)), ("", "$delete", (4, None)),
        ("five", "$delete", (4, None)), ("", "$add", (None, None)), ("", "$remove", (None, None)),
        ("", "$set", "x: $set needs a value"), ("5", "$ADD", OPERATION), ("5", "$incr", OPERATION),
        ("5", " $add", OPERATION), ("five", "$incr", f"{OPERATION}; {INTEGER}"),
    ],
)  # fmt: skip
def test_an_operation_is_one_of_four_words_and_set_needs_a_value(cell, operation, expected):
    checked = check(["identity", "x", "x.operation"], ["p", cell, operation], types={"x": DataType.INTEGER})
    if isinstance(expected, str):
        assert checked.rejected["failure"].to_list() == [expected]
    else:
        assert checked.accepted.select("o:x", "a:x").rows() == [expected]


@pytest.mark.rule("S104", "D22")
def test_a_preference_is_a_boolean():
    checked = check(["identity", "msg-WhatsApp"], ["p", "Yes"], ["p", "0"], ["p", ""], ["p", "never"])
    assert checked.accepted["p:MSG-whatsapp"].to_list() == [True, False, None]
    assert checked.rejected["failure"].to_list() == [BOOLEAN.replace("x:", "msg-WhatsApp:")]


@pytest.mark.rule("D47")
def test_a_cell_has_at_most_its_limit_of_bytes():
    checked = check(["identity", "x"], ["p", "é" * 50], ["p", "é" * 50 + "x"], limits=Limits(cell_bytes=100))
    assert checked.accepted["row_no"].to_list() == [1]
    assert checked.rejected["failure"].to_list() == ["A cell is longer than 100 bytes"]


@pytest.mark.rule("S128", "D34")
def test_all_errors_of_a_row_stand_in_rule_order_and_the_cells_as_they_were():
    headers = ["Phone", "x", "y", "identity"]
    types = {"x": DataType.INTEGER, "y": DataType.INTEGER}
    checked = check(headers, ["12", "a", "b", " "], ["", "1", "2", "p"], types=types)
    other = INTEGER.replace("x:", "y:")
    assert checked.rejected.to_dict(as_series=False) == {
        "row_no": [1], "line_no": [2], "0": ["12"], "1": ["a"], "2": ["b"], "3": [" "],
        "failure": [f"{IDENTIFIER}; {INTEGER}; {other}; Phone number is not valid"],
        "codes": [["identifier_missing", "integer_invalid", "integer_invalid", "phone_invalid"]],
    }  # fmt: skip
    assert checked.accepted["row_no"].to_list() == [2]


@pytest.mark.rule("D45")
@pytest.mark.parametrize("rows", [[], [["", ""]], [["p", "x"]]])
def test_the_frames_have_the_same_columns_whatever_the_batch(rows):
    checked = check(["identity", "x"], *(rows or [["p", "x"]]))
    empty = check(["identity", "x"], ["p", "x"])
    assert checked.accepted.schema == empty.accepted.schema
    assert checked.rejected.schema == empty.rejected.schema


def test_a_batch_without_rows_is_checked_too():
    plan = Plan(format=Format.CSV, target=Target.PROFILES)
    checked = Check(bind(plan, ("identity", "Phone", "x")), plan, NOW).batch(frame([["p", "", ""]]).clear())
    assert checked.accepted.height == checked.rejected.height == 0
