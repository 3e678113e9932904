"""A look at a file before it is ingested."""

from __future__ import annotations

import pytest

from ingestd.domain.errors import FileRefused
from ingestd.domain.plan import Limits
from ingestd.pipeline import preview as module
from ingestd.pipeline.preview import preview

ROWS = [
    "id\tphone\tmail\tborn\tn\tbig\tx\tvip\ttext\tempty",
    "a\t+919972752991\ta@example.org\t1990-05-17\t1\t9000000000\t1.5\tyes\tJosé 7\t",
    "b\t919972752992\tb@example.org\t2001-01-31T10:00:00Z\t-2\t1\t2\tno\tb\t",
]
FILE = "".join(row + "\n" for row in ROWS).encode()


def test_formats_are_inferred_and_no_value_is_shown():
    seen = preview(b"\xef\xbb\xbf" + FILE, Limits(), personal=False)
    assert (seen.encoding, seen.delimiter, seen.rows_looked_at) == ("utf-8-sig", "tab", 2)
    assert {column.header: column.format for column in seen.columns} == {
        "id": "STRING", "phone": "PHONE", "mail": "EMAIL", "born": "DATE", "n": "INTEGER", "big": "LONG",
        "x": "FLOAT", "vip": "BOOLEAN", "text": "STRING", "empty": None,
    }  # fmt: skip
    first = ["x", "+000000000000", "x@xxxxxxx.xxx", "0000-00-00", "0", "0000000000", "0.0", "xxx", "xxxx 0", None]
    assert seen.rows[0] == first


def test_a_column_that_tells_people_apart_scores_best():
    rows = "".join(f"c-{n}\t{n % 3}\tname {n}\n" for n in range(100))
    seen = preview(f"crmid\ttier\tname\n{rows}".encode(), Limits(), personal=False)
    scores = {column.header: column.identifier for column in seen.columns}
    assert scores["crmid"] == 1.0 > scores["name"] > scores["tier"]
    assert len(seen.rows) == module.SHOWN_ROWS


def test_what_a_data_source_would_refuse_is_named():
    seen = preview(b"crm id,tier-1,ok\n1,2,3\n1,2\n", Limits(), personal=False)
    assert (seen.delimiter, seen.broken_rows) == ("comma", 1)
    problems = [column.problem for column in seen.columns]
    assert "two words" in problems[0]
    assert "two words" in problems[1]
    assert problems[2] is None


def test_of_a_long_file_the_beginning_is_looked_at():
    file = b"id\n" + b"abcdefg\n" * (module.HEAD_BYTES // 8)
    seen = preview(file[: module.HEAD_BYTES], Limits(), personal=False)
    assert (seen.broken_rows, seen.rows_looked_at) == (0, module.HEAD_BYTES // 8 - 1)


def test_what_is_no_text_is_refused():
    with pytest.raises(FileRefused):
        preview(b"PK\x03\x04" + bytes(100), Limits(), personal=False)


def test_the_first_row_of_a_file_without_a_header_is_not_shown_to_everybody():
    file = b"c-1\tAnn\tann@example.org\t+49 160 1234567\nc-2\tBob\tbob@example.org\t491601234568\n"
    hidden = preview(file, Limits(), personal=False)
    assert [column.header for column in hidden.columns] == ["x-0", "xxx", "xxx@xxxxxxx.xxx", "+00 000 0000000"]
    assert [column.problem == module.LOOKS_LIKE_A_VALUE for column in hidden.columns] == [False, False, True, True]
    shown = preview(file, Limits(), personal=True)
    assert [column.header for column in shown.columns] == ["c-1", "Ann", "ann@example.org", "+49 160 1234567"]
    assert [column.problem for column in shown.columns] == [column.problem for column in hidden.columns]


@pytest.mark.parametrize(
    ("header", "hidden"),
    [
        ("crmid,2024,tier", ["crmid", "0000", "tier"]),
        ("crmid,1990-05-17,tier", ["xxxxx", "0000-00-00", "xxxx"]),
        ("crmid,score_2024,e-mail", None),
        ("crmid,1st,@type", None),
    ],
)
def test_what_looks_like_a_value_in_a_header_is_masked(header, hidden):
    seen = preview(f"{header}\n1,2,3\n".encode(), Limits(), personal=False)
    assert [column.header for column in seen.columns] == (hidden or header.split(","))
