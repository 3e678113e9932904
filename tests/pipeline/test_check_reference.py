"""The check against a naive interpreter of the same rules: plain Python, one cell after the other."""

import json
import math
import re
import unicodedata

import phonenumbers
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import examples

from ingestd.domain.column import DataType
from ingestd.domain.layout import Column, Layout, Role, bind
from ingestd.domain.plan import RESTRICTED_EVENTS, ColumnRule, Format, Limits, Plan, Target
from ingestd.domain.rejection import ROW_REASONS
from ingestd.pipeline.check import Check

NOW = 1_790_000_000
CELL_BYTES = 1500
SPACE = "".join(char for char in map(chr, range(0x3001)) if char.isspace() and not "\x1c" <= char <= "\x1f")
TYPES = {
    "i": DataType.INTEGER, "l": DataType.LONG, "f": DataType.FLOAT, "b": DataType.BOOLEAN, "d": DataType.DATE,
    "Email": DataType.STRING, "Phone": DataType.STRING, "s": DataType.STRING,
}  # fmt: skip
ATTRIBUTES = ["s", "i", "l", "f", "b", "d", "Email", "Phone"]
HEADERS = {
    Target.PROFILES: [
        "identity",
        "guid",
        "ts",
        *ATTRIBUTES,
        "s.operation",
        "b.operation",
        "Phone.operation",
        "msg-SMS",
    ],
    Target.EVENTS: ["evtName", "fbId", "ts", *ATTRIBUTES, "s.operation", "MSG-push"],
}


def plan_of(target):
    rules = {name: ColumnRule(type=data_type) for name, data_type in TYPES.items()}
    return Plan(format=Format.CSV, target=target, columns=rules, limits=Limits(cell_bytes=CELL_BYTES))


class Naive:
    """One row read by the rules: `values` as accepted columns, `found` the pairs (code, sentence) in any order."""

    def __init__(self, layout: Layout, plan: Plan, row: list[str | None]) -> None:
        self.row, self.plan, self.layout = row, plan, layout
        self.values, self.found = {}, []
        if any(cell is not None and len(cell.encode()) > plan.limits.cell_bytes for cell in row):
            self.fault("cell_too_long", expected=plan.limits.cell_bytes)
        self.identifiers(layout.of(Role.IDENTIFIER))
        self.values["ts"] = None
        for column in layout.columns:
            getattr(self, column.role.value, lambda _: None)(column)

    def fault(self, code, **facts):
        entry = code, ROW_REASONS[code].sentence.format(**facts)
        if entry not in self.found:
            self.found.append(entry)

    def failure(self):
        order = list(ROW_REASONS)
        return [entry for _, entry in sorted(enumerate(self.found), key=lambda pair: order.index(pair[1][0]))]

    def identifiers(self, columns):
        found = []
        for column in columns:
            cell = self.row[column.position]
            normal = cell and unicodedata.normalize("NFC", cell.strip(" \t\r\n\v\f"))
            normal = normal if normal and normal.strip(SPACE) else None
            self.values[f"k{column.kind.value}"] = normal
            if normal is None:
                continue
            found.append(normal)
            if any(unicodedata.category(char) in {"Cc", "Cf", "Co", "Cs"} for char in normal):
                self.fault("identifier_characters", column=column.header)
        if not found or any(len(each) > 1023 for each in found):
            self.fault("identifier_missing")

    def ts(self, column):
        cell = self.row[column.position]
        if cell is None:
            return
        number = int(cell) if re.fullmatch(r"[+-]?[0-9]+", cell) else None
        if number is not None and 10**12 <= number < 10**13:
            self.fault("ts_milliseconds", column=column.header)
        elif number is None or not -62135596800 <= number < 10**11:
            self.fault("ts_invalid", column=column.header)
        elif self.plan.target is Target.EVENTS and not 946684800 <= number <= NOW + 86400:
            self.fault("ts_out_of_range", column=column.header)
        self.values["ts"] = number

    def event_name(self, column):
        name = (self.row[column.position] or "").strip(SPACE)
        self.values["event_name"] = name
        if not name:
            self.fault("event_name_missing")
        if len(name) > 512:
            self.fault("event_name_too_long")
        if name in RESTRICTED_EVENTS:
            self.fault("event_name_restricted")

    def preference(self, column):
        cell = self.row[column.position]
        value = None if cell is None else truth(cell)
        if cell is not None and value is None:
            self.fault("boolean_invalid", column=column.header)
        self.values[f"p:{column.name}"] = value

    def attribute(self, column: Column):
        cell = self.row[column.position]
        operation = None if column.operation is None else self.row[column.operation]
        if self.plan.target is Target.EVENTS:
            if operation is not None:
                self.fault("operation_on_event", column=column.header)
            operation = None
        elif column.operation is not None:
            words = {"$add": 1, "$set": 2, "$remove": 3, "$delete": 4}
            if operation is not None and operation not in words:
                self.fault("operation_invalid")
            if operation == "$set" and cell is None:
                self.fault("set_blank", column=column.header)
            done = operation == "$delete" or cell is not None
            self.values[f"o:{column.name}"] = words.get(operation) if done else None
        value = None
        if operation != "$delete" and cell is not None:
            value = self.value(column, cell)
        self.values[f"a:{column.name}"] = value

    def value(self, column, cell):
        kind = column.type
        if kind in {DataType.INTEGER, DataType.LONG, DataType.FLOAT, DataType.BOOLEAN}:
            value = number(kind, cell)
            if value is None:
                code = "date_in_number" if cell.startswith("$D_") else f"{kind.value.lower()}_invalid"
                self.fault(code, column=column.header)
            return value
        if kind is DataType.DATE:
            return moment(cell) or self.fault("moment_invalid", column=column.header)
        if kind is DataType.STRING and cell.startswith("$D_"):
            found = re.fullmatch(r"\$D_(-?[0-9]{1,11})", cell)
            if found and int(found[1]) >= -62135596800:
                return {"$D": int(found[1])}
            return self.fault("date_invalid", column=column.header)
        if kind in {DataType.EMAIL, DataType.PHONE}:
            known = phone(cell) if kind is DataType.PHONE else is_address(cell) and cell
            return known or self.fault(f"{kind.value.lower()}_invalid")
        return cell


def moment(cell):
    found = re.fullmatch(r"(?:\$D_)?(-?[0-9]{1,11})", cell)
    if found:
        return {"$D": int(found[1])} if int(found[1]) >= -62135596800 else None
    return {"$D": 1577836800} if cell == "2020-01-01" else None


def truth(cell):
    if cell.lower() in {"true", "1", "y", "yes"}:
        return True
    return False if cell.lower() in {"false", "0", "n", "no"} else None


def number(kind, cell):
    if kind is DataType.BOOLEAN:
        return truth(cell)
    if kind is DataType.FLOAT:
        if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", cell):
            return None
        return float(cell) if math.isfinite(float(cell)) else None
    bits = 32 if kind is DataType.INTEGER else 64
    if not re.fullmatch(r"[+-]?[0-9]+", cell) or not -(2 ** (bits - 1)) <= int(cell) < 2 ** (bits - 1):
        return None
    return int(cell)


def is_address(cell):
    local, at, domain = cell.partition("@")
    labels = domain.split(".")
    outside = [char for char in domain if char.isascii() and not char.isalnum() and char not in "-."]
    return bool(
        at
        and len(cell.encode()) <= 254
        and all(local.split("."))
        and not any(char.isspace() or char in '"(),:;<>[\\]' or char < "!" or char == "\x7f" for char in local + domain)
        and not outside
        and len(labels) > 1
        and all(label and label[0] != "-" and label[-1] != "-" for label in labels)
        and len(labels[-1]) > 1
        and not (labels[-1][0].isascii() and labels[-1][0].isdigit())
    )


def phone(cell):
    if not re.fullmatch(r"\+?[1-9][0-9]{3,14}", cell):
        return None
    try:
        parsed = phonenumbers.parse("+" + cell.removeprefix("+"))
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(parsed):
        return None
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


# The alphabet leaves out what differs between the Unicode versions of the interpreter and of the engine.
CHARACTERS = st.sampled_from(
    list("ab1 0-+.@$D_\"'\\/,;\t\n\x01\x1c\x7f\u00e9e\u0301\u00a0\u200b\u202e\ue000\u0958\uff19\u017f😀")
)
WORDS = [
    "true", "TRUE", "yEs", "n", "0", "1", "t", " 1", "-0", "+7", "007", "1_000", "0x10", "\uff19", "1.0", "2147483647",
    "2147483648", "-2147483648", "9223372036854775807", "9223372036854775808", "1e400", "-1e400", "NaN", "inf",
    "Infinity", "1e16", "5e-324", ".5", "5.", "-.5E+3", "1e", "0" * 30 + "5", "$D_", "$D_-1", "$D_1e9", "$D_+1",
    "$D_1589274432", "$D_99999999999", "$D_-62135596800", "$D_-62135596801", "$D_999999999999", "$d_1", " $D_1",
    "1578503667", "1578503667000", "157850366700", "946684799", "946684800", "1790086400", "1790086401", "-1",
    "2020-01-01", "+918876543211", "918876543211", "8876543211", "+12025550123", "+442079460000", "+4402079460000",
    "++918876543211", "+91 8876543211", "a@example.org", "a@example", "a@b@example.org", "ä.ö@bücher.example",
    "a..b@example.org", "a@-b.org", "a@b.c1", "a@b.1c", "$add", "$ADD", "$set", "$remove", "$delete", "$incr", " ",
    "\u3000", "App Launched", " App Launched ", "app launched", "x" * 512, "x" * 513, "é" * 1023, "y" * 1024,
    "e\u0301" * 749, "z" * CELL_BYTES, "z" * (CELL_BYTES + 1), "a\u200b", 'say "hi" \\ \x01', "John",
]  # fmt: skip
OPERATIONS = st.sampled_from([None, None, "$add", "$set", "$remove", "$delete", "$ADD", "$incr"])
CELL = st.none() | st.sampled_from(WORDS) | st.text(CHARACTERS, min_size=1, max_size=8) | st.sampled_from(["7", "John"])


@st.composite
def batches(draw):
    target = draw(st.sampled_from(list(HEADERS)))
    headers = HEADERS[target]
    usual = {"identity": "p-1", "fbId": "p-1", "evtName": "Bought"}
    cells = {header: OPERATIONS if header.endswith(".operation") else CELL for header in headers}
    mostly = {header: st.just(usual.get(header)) | strategy for header, strategy in cells.items()}
    odd = draw(st.sets(st.sampled_from(headers)))
    row = st.tuples(*(cells[each] if each in odd else mostly[each] for each in headers)).map(list)
    return target, draw(st.lists(row, min_size=1, max_size=6))


def frame(rows):
    schema = {str(position): pl.String for position in range(len(rows[0]))}
    numbers = pl.int_range(1, pl.len() + 1, dtype=pl.Int64)
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(row_no=numbers, line_no=numbers + 1)


@pytest.mark.rule("S113", "S143", "D34", "D45")
@settings(max_examples=examples(250), deadline=None)
@given(batches())
def test_the_check_says_what_a_naive_reading_of_the_rules_says(batch):
    target, rows = batch
    plan = plan_of(target)
    layout = bind(plan, tuple(HEADERS[target]))
    checked = Check(layout, plan, NOW).batch(frame(rows))
    readings = {row_no: Naive(layout, plan, row) for row_no, row in enumerate(rows, start=1)}
    failed = {row_no: reading for row_no, reading in readings.items() if reading.found}

    assert checked.accepted["row_no"].to_list() == [row_no for row_no in readings if row_no not in failed]
    assert checked.rejected["row_no"].to_list() == list(failed)
    for row in checked.rejected.rows(named=True):
        expected = failed[row["row_no"]].failure()
        assert row["codes"] == [code for code, _ in expected]
        assert row["failure"] == "; ".join(sentence for _, sentence in expected)
        assert [row[str(position)] for position in range(len(rows[0]))] == rows[row["row_no"] - 1]
    for row in checked.accepted.rows(named=True):
        expected = readings[row["row_no"]].values
        assert set(row) == {"row_no", "line_no", *expected}
        for name, value in expected.items():
            found = row[name]
            if name.startswith("a:") and found is not None:
                found = json.loads(found)
                assert type(found) is type(value)
            assert found == value, name
