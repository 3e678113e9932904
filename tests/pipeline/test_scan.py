"""The scanner against Python's strict csv on clean files, and against the grammar read byte by byte on any bytes."""

import csv
import io
import threading
import tracemalloc
from dataclasses import dataclass
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.thorough import examples

from ingestd.domain.plan import Limits
from ingestd.domain.rejection import ROW_REASONS
from ingestd.pipeline.scan import open_scan

thorough = settings(max_examples=examples(500), deadline=None, suppress_health_check=[HealthCheck.too_slow])

DEFAULT = Limits()
SMALL = Limits(line_bytes=24, cell_bytes=9, open_quote_lines=3, open_quote_bytes=14)


class Pipe:
    """A stream of which nothing can be asked but `read`, and which gives less than asked for, as sockets do."""

    def __init__(self, data: bytes, most: int = 1 << 30) -> None:
        self._data = io.BytesIO(data)
        self._most = most

    def read(self, size: int) -> bytes:
        return self._data.read(min(size, self._most))


class Broken(NamedTuple):
    """One broken record, as BROKEN_SCHEMA has it."""

    row_no: int
    line_no: int
    code: str
    found: int
    expected: int | None
    text: str


@dataclass
class Scanned:
    """All batches of a file put together."""

    header: tuple[str, ...]
    rows: list[tuple[str | None, ...]]
    numbers: list[tuple[int, int]]
    broken: list[Broken]
    blank: int

    def outcomes(self) -> list[tuple[int, int, str]]:
        return sorted([(*at, "good") for at in self.numbers] + [(b.row_no, b.line_no, b.code) for b in self.broken])


def scan(data: bytes, *, delimiter=",", limits=DEFAULT, chunk_bytes=1 << 24, most=1 << 30) -> Scanned:
    opened = open_scan(Pipe(data, most), delimiter=delimiter, limits=limits, chunk_bytes=chunk_bytes)
    whole = Scanned(opened.header, [], [], [], 0)
    width = len(opened.header)
    last = 0
    for batch in opened.batches():
        assert batch.rows.columns == [*map(str, range(width)), "row_no", "line_no"]
        assert last <= batch.bytes_read <= len(data)
        last = batch.bytes_read
        for *cells, row_no, line_no in batch.rows.rows():
            whole.rows.append(tuple(cells))
            whole.numbers.append((row_no, line_no))
        whole.broken += map(Broken._make, batch.broken.rows())
        whole.blank += batch.blank
    return whole


def codes(data: bytes, **options) -> list[tuple[int, int, str]]:
    return [(b.row_no, b.line_no, b.code) for b in scan(data, **options).broken]


# The grammar, read byte by byte.


def read_record(lines: list[bytes], first: int, limits: Limits):  # noqa: C901 - a state machine is one function
    """Return (cells, last line) of the record that starts on line `first`, or the reason it has none."""
    cells, cell, state = [], b"", "start"
    for at in range(first, min(first + limits.open_quote_lines, len(lines))):
        line = lines[at]
        if at > first and len(line.removesuffix(b"\r")) > limits.line_bytes:
            return "quote_open"
        for place, octet in enumerate(line):
            char = bytes([octet])
            if state == "quoted":
                state, cell = ("after", cell) if char == b'"' else ("quoted", cell + char)
            elif state == "after" and char == b'"':
                state, cell = "quoted", cell + char
            elif char == b",":
                state, cell = "start", cells.append(cell) or b""
            elif char == b"\r" and place == len(line) - 1:
                pass
            elif char == b'"' and state == "start":
                state = "quoted"
            elif char == b'"' or state == "after":
                return "quote_misplaced" if at == first else "quote_open"
            else:
                state, cell = "plain", cell + char
        if state != "quoted":
            return ([*cells, cell], at) if at == first or near(lines, first, at, limits) else "quote_open"
        cell += b"\n"
    return "quote_open"


def near(lines: list[bytes], first: int, last: int, limits: Limits) -> bool:
    opener = lines[first].rindex(b'"')
    closer = sum(len(line) + 1 for line in lines[first:last]) + lines[last].index(b'"')
    return closer - opener <= limits.open_quote_bytes


def read_slowly(data: bytes, limits: Limits):
    """Return the rows, the outcomes and the number of blank lines of what stands after the header."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    width = lines[0].count(b",") + 1
    rows, outcomes, blank, at, row_no = [], [], 0, 1, 0
    while at < len(lines):
        row_no += 1
        start, content = at, lines[at].removesuffix(b"\r")
        at += 1
        if not content:
            blank += 1
            continue
        found = read_record(lines, start, limits)
        cells, last = found if isinstance(found, tuple) else (None, start)
        at = last + 1
        whole = b"\n".join(lines[start:at])
        if len(content) > limits.line_bytes:
            at, outcome = start + 1, "line_too_long"
        elif b"\0" in whole:
            outcome = "nul_byte"
        elif whole.decode(errors="replace").encode() != whole:
            outcome = "encoding_invalid"
        elif cells is None:
            outcome = found
        elif len(cells) != width:
            outcome = "field_count"
        elif max(map(len, cells)) > limits.cell_bytes:
            outcome = "cell_too_long"
        else:
            outcome = "good"
            rows.append(tuple(cell.decode() or None for cell in cells))
        outcomes.append((row_no, start + 1, outcome))
    return rows, outcomes, blank


PIECES = (
    b"a", b"b", b"aaaa", b",", b",", b"a,b", b"a,b\n", b"a,b\n", b" ", b"\n", b"\n", b"\r\n", b"\r", b"\r,",
    b'"', b'"', b'""', b'","', b'"a', b'a"', b'"\n', b'\n"', b'"\r\n', b'\r"',
    b"\0", b"\xff", b"\xc3\xa9", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xef\xbb\xbf",
)  # fmt: skip


def mostly_text(body: bytes) -> bool:
    lines = body.split(b"\n")
    return 2 * sum(b"\0" in line for line in lines) <= len(lines)  # else the file is refused


anything = st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join).filter(mostly_text)
small_limits = st.builds(
    Limits,
    line_bytes=st.integers(8, 40),
    cell_bytes=st.integers(1, 20),
    open_quote_lines=st.integers(1, 6),
    open_quote_bytes=st.integers(0, 30),
)


@pytest.mark.rule("S128")
@thorough
@given(st.sampled_from([b"x", b"x,y", b"x,y,z"]), anything, small_limits, st.integers(1, 50), st.integers(1, 50))
@example(b"x,y", b'a,"b\n\n"\n', SMALL, 1, 1)
@example(b"x,y", b'"\n' * 7, SMALL, 3, 1)
@example(b"x", b'\xef\xbb\xbfa\n"', SMALL, 4, 9)
def test_any_bytes_give_what_the_grammar_says_however_they_are_cut(header, body, limits, chunk_bytes, most):
    data = header + b"\n" + body
    rows, outcomes, blank = read_slowly(data, limits)
    for scanned in (scan(data, limits=limits), scan(data, limits=limits, chunk_bytes=chunk_bytes, most=most)):
        assert scanned.outcomes() == outcomes
        assert scanned.rows == rows
        assert scanned.blank == blank


@thorough
@given(anything, small_limits, st.integers(1, 50))
def test_where_chunks_end_changes_no_text_and_no_fact(body, limits, chunk_bytes):
    data = b"x,y\n" + body
    assert scan(data, limits=limits, chunk_bytes=chunk_bytes) == scan(data, limits=limits)


@st.composite
def clean_files(draw):
    width, delimiter = draw(st.integers(1, 5)), draw(st.sampled_from([",", "\t"]))
    end, last_end = draw(st.sampled_from(["\n", "\r\n"])), draw(st.booleans())
    text = st.text(
        st.one_of(st.sampled_from('ab,\t"\n\r '), st.characters(exclude_characters="\0", codec="utf-8")), max_size=8
    )
    rows = draw(st.lists(st.lists(st.tuples(text, st.booleans()), min_size=width, max_size=width), max_size=12))
    lines = [delimiter.join(f"c{at}" for at in range(width))]
    for row in rows:
        cells = (
            '"' + cell.replace('"', '""') + '"' if quoted or width == 1 or {*'\r\n"', delimiter} & {*cell} else cell
            for cell, quoted in row
        )
        lines.append(delimiter.join(cells))
    return delimiter, end.join(lines) + end * last_end


@pytest.mark.rule("S86")
@pytest.mark.threat("T81")
@thorough
@given(clean_files(), st.integers(1, 200))
def test_clean_files_give_the_cells_that_strict_csv_gives(file, chunk_bytes):
    delimiter, text = file
    header, *rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    scanned = scan(text.encode(), delimiter=delimiter, chunk_bytes=chunk_bytes)
    assert list(scanned.header) == header
    assert scanned.rows == [tuple(cell or None for cell in row) for row in rows]
    assert [row_no for row_no, _ in scanned.numbers] == list(range(1, len(rows) + 1))
    assert not scanned.broken
    assert not scanned.blank


def test_a_header_alone_has_no_rows():
    for data in (b"id,name", b"id,name\n", b"id,name\r\n"):
        scanned = scan(data)
        assert (scanned.header, scanned.rows, scanned.broken, scanned.blank) == (("id", "name"), [], [], 0)


@pytest.mark.parametrize("header", [b"id,name", b'"id","name"', b'\xef\xbb\xbfid,"name"', b'\xef\xbb\xbf"id",name'])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_byte_order_mark_and_quotes_are_no_part_of_a_header(header, end):
    assert scan(header + end + b"1,a" + end).header == ("id", "name")


def test_a_byte_order_mark_in_a_row_is_data():
    data = b"id,name\n" + b"\xef\xbb\xbf1,a\n" * 2
    assert scan(data).rows == [("\ufeff1", "a")] * 2
    assert scan(data, chunk_bytes=1).rows == [("\ufeff1", "a")] * 2


def test_line_ends_may_be_mixed_and_the_last_one_missing():
    assert scan(b"id,name\r\n1,a\n2,b\r\n3,c").rows == [("1", "a"), ("2", "b"), ("3", "c")]


def test_a_carriage_return_within_a_line_is_data():
    assert scan(b'id,name\n1\r2,a\n"3\r","b\r\nc"\r\n').rows == [("1\r2", "a"), ("3\r", "b\r\nc")]
    assert scan(b'id,name\n1\r,a\n\r,"a\r,b"\n').rows == [("1\r", "a"), ("\r", "a\r,b")]


def test_an_empty_cell_is_null_whether_quoted_or_not():
    assert scan(b'id,name\n,""\n"",\n').rows == [(None, None), (None, None)]
    assert scan(b'id\n""\na\n').rows == [(None,), ("a",)]


def test_blank_lines_are_skipped_and_counted_but_keep_their_numbers():
    scanned = scan(b"id,name\n\n1,a\n\r\n\n2,b\n\n")
    assert scanned.numbers == [(2, 3), (5, 6)]
    assert scanned.blank == 4
    assert scan(b"id\n1\n\n2\n").blank == 1
    assert scan(b"id,name\n,\n").blank == 0


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (b"\xff,a", "encoding_invalid"),
        (b"\xc0\xaf,a", "encoding_invalid"),
        (b"\xed\xa0\x80,a", "encoding_invalid"),
        (b"a\0b,c", "nul_byte"),
        (b"\0\0\0\0", "nul_byte"),
        (b'1,"a', "quote_open"),
        (b'"1,a', "quote_open"),
        (b'1,ab"c', "quote_misplaced"),
        (b'1,"ab"c', "quote_misplaced"),
        (b'1,"ab" ', "quote_misplaced"),
        (b'1, "ab"', "quote_misplaced"),
        (b'1,"a"b"', "quote_misplaced"),
        (b"1,a,b", "field_count"),
        (b"1", "field_count"),
        (b",,,,", "field_count"),
        (b"1," + b"x" * (64 * 1024 + 1), "cell_too_long"),
        (b"1," + b"x" * (10 * 1024 * 1024), "line_too_long"),
    ],
)
def test_a_broken_record_costs_itself_and_no_other(row, code):
    before = [b"1,a", b'2,"b, c"', b'"3","multi\nline"', b"4,d"]
    after = [b'5,"e ""quoted"""', b'"6","f"', b"7,g", b'8,"h\n\ni"', b'"9",j'] * 30
    data = b"\n".join([b"id,name", *before, row, *after, b""])
    clean = b"\n".join([b"id,name", *before, *after, b""])
    for chunk_bytes in (7919, 1 << 24):
        scanned = scan(data, chunk_bytes=chunk_bytes)
        assert [(b.row_no, b.line_no, b.code) for b in scanned.broken] == [(5, 7, code)]
        assert scanned.rows == scan(clean).rows
        assert code in ROW_REASONS


def test_a_wrong_count_says_both_counts():
    (broken,) = scan(b"a,b\n1,2\n1,2,3\n").broken
    assert (broken.found, broken.expected) == (3, 2)


def test_a_quote_is_waited_for_100_lines_and_no_longer():
    def file(lines):
        return b'a,b\n1,"' + b"x\n" * (lines - 1) + b'y"\n3,4\n'

    assert scan(file(100)).rows == [("1", "x\n" * 99 + "y"), ("3", "4")]
    late = scan(file(101))
    assert late.broken[0].code == "quote_open"
    assert late.rows == [("3", "4")]


def test_a_quote_is_waited_for_64_kib_and_no_longer():
    def file(size):
        return b'a,b\n1,"' + b"x" * 1000 + b"\n" + b"y" * (size - 1002) + b'"\n3,4\n'

    limits = Limits(cell_bytes=128 * 1024)
    assert len(scan(file(64 * 1024), limits=limits).rows) == 2
    late = scan(file(64 * 1024 + 1), limits=limits)
    assert [(b.line_no, b.code) for b in late.broken] == [(2, "quote_open"), (3, "quote_misplaced")]
    assert late.rows == [("3", "4")]


def test_a_record_of_several_lines_is_one_record_also_when_it_is_rejected():
    assert codes(b'a,b\n"1\n2","3",4\n5,6\n') == [(1, 2, "field_count")]
    assert codes(b'a,b\n"1\n\xff\n2","3"\n5,6\n') == [(1, 2, "encoding_invalid")]


def test_what_is_quoted_cannot_pass_for_a_record():
    assert scan(b'a,b\n"x\n1,2\n3,4\ny",5,6\n').rows == []


def test_the_longest_line_and_cell_are_allowed():
    limits = Limits(line_bytes=20, cell_bytes=10)
    fits = b"a,b\n" + b"x" * 10 + b"," + b"y" * 9 + b"\r\n"
    assert not scan(fits, limits=limits).broken
    assert codes(fits.replace(b"y\r", b"yy\r"), limits=limits) == [(1, 2, "line_too_long")]
    assert codes(b"a,b\n" + b"x" * 11 + b",y\n", limits=limits) == [(1, 2, "cell_too_long")]
    assert codes(b"a,b\n" + "é".encode() * 6 + b",y\n", limits=limits) == [(1, 2, "cell_too_long")]


def test_the_text_of_a_broken_record_is_cut_between_characters():
    limits = Limits(line_bytes=20, cell_bytes=10)
    (broken,) = scan(b"a,b\n" + b"x" * 9 + "é".encode() * 20 + b"\n1,2\n", limits=limits).broken
    assert broken.text == "x" * 9 + "éé"
    assert scan(b"a,b\n1,\xff,\r\n").broken[0].text == "1,\ufffd,"


@pytest.mark.rule("S52")
def test_tabs_follow_the_same_grammar():
    scanned = scan(b'id\tname\n1\t"a\tb"\n2\ta,b\n3\n', delimiter="\t")
    assert scanned.rows == [("1", "a\tb"), ("2", "a,b")]
    assert [b.code for b in scanned.broken] == ["field_count"]


@pytest.mark.threat("T100")
def test_an_error_file_comes_back_as_it_was():
    scanned = scan(b"'=id,name,Failure Description\n'+91,'',some reason\n'=1+1,',another\n'',b,c\n")
    assert scanned.header == ("=id", "name")
    assert scanned.rows == [("+91", "'"), ("=1+1", None), ("'", "b")]


def test_a_scan_given_up_leaves_no_thread():
    batches = open_scan(Pipe(b"a,b\n" + b"1,2\n" * 99), delimiter=",", limits=Limits(), chunk_bytes=20).batches()
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("scan")]


def test_a_stream_that_breaks_breaks_the_scan():
    class Broke(Pipe):
        def read(self, size: int) -> bytes:
            if data := super().read(size):
                return data
            raise OSError("gone")

    opened = open_scan(Broke(b"a,b\n" + b"1,2\n" * 20_000), delimiter=",", limits=Limits(), chunk_bytes=1000)
    with pytest.raises(OSError, match="gone"):
        list(opened.batches())


class Endless:
    """A header, a line of `size` bytes, and a last row, made as they are read."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._start = io.BytesIO(b"id,name\n")
        self._end = io.BytesIO(b"\n1,a\n")

    def read(self, size: int) -> bytes:
        if start := self._start.read(size):
            return start
        if self._size:
            size = min(size, self._size)
            self._size -= size
            return b"x" * size
        return self._end.read(size)


@pytest.mark.threat("T72")
def test_a_line_that_does_not_end_is_skipped_in_bounded_memory():
    tracemalloc.start()
    try:
        opened = open_scan(Endless(300_000_000), delimiter=",", limits=Limits(), chunk_bytes=1 << 20)
        batches = list(opened.batches())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (broken,) = [Broken._make(row) for batch in batches for row in batch.broken.rows()]
    assert (broken.row_no, broken.line_no, broken.code) == (1, 2, "line_too_long")
    assert broken.text == "x" * (64 * 1024 + 4)
    assert [row for batch in batches for row in batch.rows.rows()] == [("1", "a", 2, 3)]
    assert batches[-1].bytes_read == 8 + 300_000_000 + 5
    assert peak < 24 * 1024 * 1024


@pytest.mark.threat("T72")
@pytest.mark.parametrize("line", [b"\n", b",\n", b"x\n", b"," * 500_000 + b"\n"])
def test_however_many_records_a_chunk_holds_memory_is_bounded(line):
    data = b"id,name\n" + line * (12_000_000 // len(line))
    batches = open_scan(Pipe(data), delimiter=",", limits=Limits()).batches()
    tracemalloc.start()
    try:
        batch = next(batches)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0 < batch.rows.height + batch.broken.height + batch.blank <= 250_000
    assert peak < 256 * 1024 * 1024


@pytest.mark.parametrize("line", [b"\n", b",\n", b"x\n", b'"\n', b'"",\n', b"," * 500_000 + b"\n"])
def test_crowded_chunks_lose_no_record(line):
    data = b"id,name\n" + line * (1_200_000 // len(line)) + b"1,a\n"
    scanned = scan(data, chunk_bytes=1_100_000)
    assert scanned.rows[-1] == ("1", "a")
    last = max([*scanned.numbers, *((b.row_no, b.line_no) for b in scanned.broken)])
    assert last[1] == data.count(b"\n")
    assert len(scanned.rows) + len(scanned.broken) + scanned.blank == last[0]
