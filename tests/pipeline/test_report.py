"""The error file: what a spreadsheet sees, and what comes back."""

import csv
import io

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.domain.plan import Limits
from ingestd.pipeline import report
from ingestd.pipeline.report import ErrorFile, RejectLog, reject
from ingestd.pipeline.scan import BROKEN_SCHEMA, open_scan

ACTIVE = ("'", "=", "+", "-", "@", "\t", "\r", "\n", "\0", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def broken_records(*records):
    """Broken records as the scanner gives them."""
    return pl.DataFrame(records, schema=BROKEN_SCHEMA)


NOTHING = broken_records()


def rejected(*rows, first=1):
    width = len(rows[0]) - 1
    schema = {str(position): pl.String for position in range(width)} | {"failure": pl.String}
    numbers = pl.int_range(first, pl.len() + first, dtype=pl.Int64)
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        row_no=numbers, line_no=numbers + 1, codes=pl.lit([], pl.List(pl.String))
    )


def written(header, *batches, **options):
    """The records of an error file, as Python's csv reads them, and the file."""
    sink = io.BytesIO()
    file = ErrorFile(sink, header, **options)
    for batch in batches:
        file.write(*batch)
    records = list(csv.reader(io.StringIO(sink.getvalue().decode(), newline=""), strict=True))
    assert file.rows == len(records) - 1
    return records, sink.getvalue()


def unguarded(cell):
    return cell.removeprefix("'")


@pytest.mark.rule("S128")
def test_the_original_columns_come_first_and_the_failure_last():
    records, content = written(["identity", "Name"], [rejected(("p", None, "Phone number is not valid"))])
    assert records == [["identity", "Name", "Failure Description"], ["p", "", "Phone number is not valid"]]
    assert content == b'"identity","Name","Failure Description"\r\n"p","","Phone number is not valid"\r\n'


@pytest.mark.threat("T100")
@pytest.mark.parametrize(
    "cell", ["=1+1", "+cmd|'/C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\uff1d1", "'x", "+918876543211"]
)
def test_a_cell_that_could_be_a_formula_gets_a_quote_in_front(cell):
    records, _ = written([cell, "x"], [rejected((cell, f"a{cell}", cell))])
    assert records == [[f"'{cell}", "x", "Failure Description"], [f"'{cell}", f"a{cell}", f"'{cell}"]]


@pytest.mark.rule("S128")
@pytest.mark.threat("T100")
@given(
    st.lists(
        st.tuples(
            *[st.none() | st.text(st.sampled_from([*ACTIVE, ",", '"', "a", "é"]) | st.characters(codec="utf-8"))] * 2
        ),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_stands_in_a_cell_reads_back_the_same(rows):
    records, _ = written(["x", "y"], [rejected(*((*row, "why") for row in rows))])
    assert [[unguarded(cell) for cell in record] for record in records[1:]] == [
        [row[0] or "", row[1] or "", "why"] for row in rows
    ]
    assert all(not cell.startswith(ACTIVE[1:]) for record in records for cell in record)


@pytest.mark.rule("D44")
def test_broken_records_stand_whole_in_the_first_cell_between_the_rejected_rows():
    broken = broken_records(
        {"row_no": 2, "line_no": 3, "code": "field_count", "text": 'a,b,"c', "found": 3, "expected": 2},
        {"row_no": 5, "line_no": 9, "code": "nul_byte", "text": "a\0b"},
    )
    records, _ = written(
        ["x", "y"],
        [rejected(("1", "2", "one"), first=1), broken[:1]],
        [rejected(("4", "4", "four"), first=4), broken[1:]],
    )
    assert records[1:] == [
        ["1", "2", "one"],
        ['a,b,"c', "", "The record has 3 fields, the header has 2 (line 3)"],
        ["4", "4", "four"],
        ["a\0b", "", "The record holds a NUL byte (line 9)"],
    ]


@pytest.mark.rule("D47")
def test_what_is_too_long_is_cut_between_two_characters_and_says_so():
    long_one = broken_records({"row_no": 3, "line_no": 4, "code": "line_too_long", "text": "é" * 52, "expected": 200})
    rows = rejected(("x" * 100, "1", "short enough"), ("y" + "é" * 50, "2", "too long"))
    records, _ = written(["x", "y"], [rows, long_one], cell_bytes=100)
    assert records[1:] == [
        ["x" * 100, "1", "short enough"],
        ["y" + "é" * 49, "2", "too long; only the first 100 bytes stand here"],
        ["é" * 50, "", "The line is longer than 200 bytes (line 4); only the first 100 bytes stand here"],
    ]


@pytest.mark.rule("D47")
@pytest.mark.parametrize("size", [95, 96, 99, 100, 101, 104, 105, 200])
def test_a_broken_record_is_said_to_be_cut_only_where_it_is(size):
    text = '"' + "é" * ((size - 1) // 2) + "x" * ((size - 1) % 2)  # a quote that never ends
    scan = open_scan(io.BytesIO(f"x,y\n{text}\n".encode()), delimiter=",", limits=Limits(cell_bytes=100))
    none_else = rejected(("", "", ""))[:0]
    records, _ = written(["x", "y"], *((none_else, batch.broken) for batch in scan.batches()), cell_bytes=100)
    [(shown, _, why)] = records[1:]
    assert (shown == text, "only the first" in why) == (size <= 100, size > 100)


@pytest.mark.rule("D54")
def test_rows_rejected_later_take_the_same_way():
    rows = rejected(("p", "")).drop("failure", "codes")
    late = reject(rows, "identifiers_of_two_people")
    assert late["codes"].to_list() == [["identifiers_of_two_people"]]
    assert late.schema == rejected(("p", "")).select(late.columns).schema
    records, _ = written(["identity"], [late])
    assert records[1:] == [["p", "identifiers belong to two people"]]


@pytest.mark.rule("S128")
def test_a_row_that_has_one_reason_in_two_columns_is_counted_once():
    sink = io.BytesIO()
    log = RejectLog(sink)
    twice = pl.lit(["integer_invalid", "integer_invalid", "long_invalid"]).alias("codes")
    log.write(rejected(("p", "three sentences")).with_columns(twice))
    log.close()
    assert log.reasons == {"integer_invalid": 1, "long_invalid": 1}
    assert report.reject_counts(io.BytesIO(sink.getvalue())) == {"integer_invalid": 1, "long_invalid": 1}


def logged(*pieces):
    """A log of rejects, to be read again and again; a row's reason is `integer_invalid` unless it says another."""
    sink = io.BytesIO()
    log = RejectLog(sink)
    for rows, broken in pieces:
        reasons = pl.when(pl.col("codes").list.len() == 0).then(pl.lit(["integer_invalid"])).otherwise("codes")
        log.write(rows.with_columns(reasons.alias("codes")), broken)
    log.close()
    return lambda: io.BytesIO(sink.getvalue())


@pytest.mark.rule("S128")
def test_the_log_of_rejects_is_read_in_pages_and_counted_by_reason():
    broken = broken_records(
        {"row_no": 2, "line_no": 3, "code": "field_count", "text": "a,b,c", "found": 3, "expected": 2}
    )
    log = logged((rejected(("", "one"), first=1), broken), (rejected(("", "two"), ("", "three"), first=7), NOTHING))
    read = [report.rejects(log(), after=after, limit=2) for after in (0, 2, 8)]
    assert [page["row_no"].to_list() for page in read] == [[1, 2], [7, 8], []]
    assert read[0]["failure"].to_list() == ["one", "The record has 3 fields, the header has 2 (line 3)"]
    assert report.reject_counts(log()) == {"integer_invalid": 3, "field_count": 1}
    assert report.reject_counts(logged()()) == {}
