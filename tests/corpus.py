"""Bad inputs, kept as code: what a partner can send, and what must come of it (B1 to B56).

Every item goes through each door (`test_corpus.py`) and through `ingestd check`. A fault found later adds an item.
What needs more than one file and one manifest is elsewhere: B58 in `sftpd/test_pairing.py`, B59 in
`sftpd/test_drops.py`, B61 in `sftpd/test_inbox.py`.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ingestd.domain.rejection import IDENTIFIER_SENTENCE

CANARY = "C4N4RY"
"""Stands in cells of many items; nobody may meet it outside of profiles, events and sealed files (P9, T102)."""

UNREADABLE = "file_unreadable"
NOBODY = "identifier_missing"
NO_FILE = "no_data_file"
INCORRECT = "manifest_incorrect"
NOTHING = "nothing_applied"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One input and its outcome.

    `error` is the code of the failure, `says` a word of its detail; without it the ingestion completes. `failures` are
    the beginnings of the reasons of the rejected rows, in file order. `people` are attributes by identity afterwards,
    `events` the names and properties of events.
    """

    name: str
    data: bytes
    manifest: Mapping[str, Any] | bytes = field(default_factory=dict)
    error: str | None = None
    says: str = ""
    accepted: int = 0
    failures: Sequence[str] = ()
    blank: int = 0
    warning: str | None = None
    people: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    events: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]] = field(default_factory=dict)
    error_rows: Sequence[Sequence[str]] = ()

    def text(self, file_name: str) -> bytes:
        """The manifest's bytes."""
        if isinstance(self.manifest, bytes):
            return self.manifest.replace(b"FILE", file_name.encode())
        good = {"fileName": file_name, "type": "profile", "clientEmail": "data@example.org"}
        text = {key: value for key, value in (good | dict(self.manifest)).items() if value is not DROPPED}
        return json.dumps(text).encode()


DROPPED = object()
"""A mandatory key that a manifest lacks."""


def lines(*rows: str | bytes, end: bytes = b"\n") -> bytes:
    """The bytes of a file."""
    return b"".join((row if isinstance(row, bytes) else row.encode()) + end for row in rows)


def typed(**types: str) -> dict[str, Any]:
    """A manifest that declares the types of columns."""
    return {"columns": {header: {"dataType": word} for header, word in types.items()}}


def refused(name: str, data: bytes, says: str, *, error: str = UNREADABLE, manifest: Any = None) -> Item:
    """An input that is refused as a whole."""
    return Item(name=name, data=data, manifest={} if manifest is None else manifest, error=error, says=says)


def zipped(name: str) -> bytes:
    """An archive with one file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, FIVE)
    return out.getvalue()


FIVE = lines("identity,x", *(f"b1-{n},{CANARY}" for n in range(5)))
GOOD_LINE = "identity,x"

BYTES = [
    refused("B1 gzip named csv", gzip.compress(FIVE), "compressed"),
    refused("B2 gzip bomb", gzip.compress(bytes(64 << 20), 9), "compressed"),
    refused("B3 zip", zipped("data.csv"), "compressed"),
    refused("B3 xlsx", zipped("xl/workbook.xml"), "compressed"),
    refused("B3 parquet", b"PAR1" + bytes(99), "binary"),
    refused("B3 pdf", b"%PDF-1.7\n%\xe2\xe3\n1 0 obj\n", "binary"),
    refused("B3 png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary"),
    refused("B4 empty", b"", "empty"),
    refused("B4 byte order mark alone", b"\xef\xbb\xbf", "empty"),
    Item(name="B6 header alone", data=b"identity,x\n", warning="The file has a header and no rows."),
    Item(name="B6 header without line end", data=b"identity,x", warning="The file has a header and no rows."),
    refused("B7 no header", lines("1,a", "2,b"), "is the first line a header?", error=NOBODY),
    Item(name="B8 byte order mark", data=b"\xef\xbb\xbfidentity,x\nb8,1\n", accepted=1, people={"b8": {"x": "1"}}),
    Item(
        name="B8 byte order mark and quotes",
        data=b'\xef\xbb\xbf"identity","x"\nb8q,1\n',
        accepted=1,
        people={"b8q": {"x": "1"}},
    ),
    refused("B9 UTF-16 LE", b"\xff\xfe" + FIVE.decode().encode("utf-16-le"), "UTF-16"),
    refused("B9 UTF-16 BE", b"\xfe\xff" + FIVE.decode().encode("utf-16-be"), "UTF-16"),
    refused("B9 UTF-16 without a mark", FIVE.decode().encode("utf-16-le"), "UTF-16"),
    *(
        Item(
            name=f"B11 {word}",
            data=lines(GOOD_LINE, f"b11-{word},1", f"bad,{CANARY}".encode() + octets, "b11-end,2"),
            accepted=2,
            failures=["The record is not valid UTF-8 (line 3)"],
            people={f"b11-{word}": {"x": "1"}, "b11-end": {"x": "2"}},
        )
        for word, octets in (("invalid", b"\xff"), ("overlong", b"\xc0\xaf"), ("surrogate", b"\xed\xa0\x80"))
    ),
    Item(
        name="B12 NUL in a cell",
        data=lines(GOOD_LINE, "b12,1", f"{CANARY},a\0b"),
        accepted=1,
        failures=["The record holds a NUL byte (line 3)"],
    ),
    Item(
        name="B12 a line of NULs",
        data=lines(GOOD_LINE, "b12,1", bytes(20), "b12,2"),
        accepted=2,
        failures=["The record holds a NUL byte (line 3)"],
        people={"b12": {"x": "2"}},
    ),
    refused("B12 NUL in the header", lines("identity,n\0x", "a,1"), "NUL"),
    Item(name="B13 CRLF", data=lines(GOOD_LINE, "b13,1", end=b"\r\n"), accepted=1, people={"b13": {"x": "1"}}),
    Item(
        name="B13 mixed ends, the last one missing",
        data=b"identity,x\r\nb13a,1\nb13b,2\r\nb13c,3",
        accepted=3,
        people={"b13a": {"x": "1"}, "b13b": {"x": "2"}, "b13c": {"x": "3"}},
    ),
    refused("B14 CR alone", FIVE.replace(b"\n", b"\r"), "CR"),
    Item(name="B17 blank lines", data=b"identity,x\n\nb17,1\n\r\n\nb17,2\n\n", accepted=2, blank=4),
    Item(name="B17 blank line of one column", data=b"identity\nb17\n\n", accepted=1, blank=1),
    Item(
        name="B18 a row of nothing",
        data=lines("identity,a,b,c,d", ",,,,", "b18,1,2,3,4"),
        accepted=1,
        failures=[IDENTIFIER_SENTENCE],
    ),
    refused("B19 2,001 columns", lines("identity," + ",".join(f"c{n}" for n in range(2000)), "a"), "2001 columns"),
    refused("B20 a million columns", lines("identity" + ",c" * 999_999, ",".join("1" * 1_000_000)), "header"),
    refused("B21 no line end", b"x" * (17 << 20), "No line ends"),
    Item(
        name="B22 a cell of 10 MiB",
        data=lines(GOOD_LINE, "b22,1", f"{CANARY}," + "x" * (10 << 20), "b22,2"),
        accepted=2,
        failures=["The line is longer than 1048576 bytes"],
        people={"b22": {"x": "2"}},
    ),
    Item(
        name="B23 a quote that is never closed",
        data=lines(GOOD_LINE, "b23,1", f'{CANARY},"open', *(f"b23-{n},{n}" for n in range(150))),
        accepted=151,
        failures=["The quote opened on line 3 is not closed"],
        people={"b23-0": {"x": "0"}, "b23-149": {"x": "149"}},
    ),
    Item(
        name="B25 a quote inside a plain field",
        data=lines(GOOD_LINE, "b25,1", 'bad,ab"c', 'b25,"2"'),
        accepted=2,
        failures=["A quote stands inside an unquoted field"],
        people={"b25": {"x": "2"}},
    ),
    Item(
        name="B27 what quotes are for",
        data=lines(GOOD_LINE, 'b27a,"a\nb"', 'b27b,"a\r\nb"', 'b27c,"a,b"', 'b27d,"say ""hi"""'),
        accepted=4,
        people={
            "b27a": {"x": "a\nb"}, "b27b": {"x": "a\r\nb"}, "b27c": {"x": "a,b"}, "b27d": {"x": 'say "hi"'},
        },
    ),
    Item(
        name="B30 a field too many, a field too few",
        data=lines(GOOD_LINE, "b30,1", f"b30,2,{CANARY}", "b30"),
        accepted=1,
        failures=["The record has 3 fields, the header has 2", "The record has 1 fields, the header has 2"],
        people={"b30": {"x": "1"}},
    ),
]  # fmt: skip

STRANGE = ("a.b", "$", "$.x", "a[0]", "__proto__", "'; drop table profiles;--", "%s", ":x", "{0}", "é")

HEADERS = [
    refused("B31 a header twice", lines("identity,name,name", "a,1,2"), "stands twice"),
    refused("B31 a header twice after NFC", lines("identity,e\u0301,\u00e9", "a,1,2"), "stands twice"),
    Item(
        name="B31 headers that differ in case",
        data=lines("identity,id,ID", "b31,1,2"),
        accepted=1,
        warning="Columns 'id' and 'ID' differ only in case; they are two properties.",
        people={"b31": {"id": "1", "ID": "2"}},
    ),
    *(
        refused(f"B33 {word}", b"identity," + name + b"\na,1\n", says)
        for word, name, says in (
            ("a quote in a header", b'"n""x"', "quote"),
            ("a backslash in a header", b"n\\x", "backslash"),
            ("a line end in a header", b'"n\nx"', "quote"),
            ("a tab in a header", b"n\tx", "control character"),
            ("a control character in a header", b"n\x01x", "control character"),
            ("a blank header", b"", "blank"),
        )
    ),
    Item(
        name="B34 strange names",
        data=lines("identity," + ",".join(STRANGE), "b34," + ",".join(STRANGE)),
        accepted=1,
        people={"b34": {name: name for name in STRANGE}},
    ),
    refused("B35 semicolons", lines("identity;name", "a;1"), "';'", error=NOBODY),
    refused("B35 tabs", lines("identity\tname", "a\t1"), "a tab", error=NOBODY),
    refused(
        "B50 a column that the file lacks", lines(GOOD_LINE, "a,1"), "'y'", error=INCORRECT, manifest=typed(y="LONG")
    ),
    refused("B54 operations without their column", lines("identity,x.operation", "a,$add"), "no column 'x'"),
    refused("S124 no event name", lines(GOOD_LINE, "a,1"), "evtName", error="event_name_missing",
            manifest={"type": "event"}),
]  # fmt: skip


def wrong(header: str, reason: str, *cells: str, **types: str) -> Item:
    """A file of one typed column in which every cell but the last is wrong."""
    rows = [f"{CANARY}-{n},{cell}" for n, cell in enumerate(cells)]
    return Item(
        name=f"B37 {header}",
        data=lines(f"identity,{header}", *rows[:-1], f"b37-{header},{cells[-1]}"),
        manifest=typed(**types),
        accepted=1,
        failures=[f"{header}: {reason}"] * (len(cells) - 1),
    )


INVISIBLE = "identity: the identifier holds a control or invisible character"
LONG_ID, LONGER_ID = "i" * 1023, CANARY + "i" * 1018

CELLS = [
    wrong("Int", "not an INTEGER", "1_000", "0x10", " 1", "\uff19", "1.0", "2147483648", "-0", Int="INTEGER"),
    wrong("Float", "not a FLOAT", "1e400", "NaN", "inf", "1 ", "1.5", Float="FLOAT"),
    wrong("Long", "not a LONG", "9223372036854775808", "1.0", "9223372036854775807", Long="LONG"),
    wrong("Bool", "not a BOOLEAN", "t", " true", "2", "Y", Bool="BOOLEAN"),
    wrong("Date", "not a date", "$D_", "$D_99999999999999", "$D_1e9", "$D_x", "$D_-1"),
    wrong("Dated", "a $D_ date in a column of numbers", "$D_1", "7", Dated="INTEGER"),
    Item(
        name="B38 booleans and dates",
        data=lines("identity,B,D", "b38a,TRUE,$D_-1", "b38b,Y,$D_0", "b38c,1,$D_1589274432", "b38d,no,$d_1"),
        manifest=typed(B="BOOLEAN"),
        accepted=4,
        people={
            "b38a": {"B": True, "D": "1969-12-31T23:59:59Z"},
            "b38b": {"B": True, "D": "1970-01-01T00:00:00Z"},
            "b38c": {"B": True, "D": "2020-05-12T09:07:12Z"},
            "b38d": {"B": False, "D": "$d_1"},
        },
    ),
    Item(
        name="B39 identifiers",
        data=lines(
            GOOD_LINE, f"{LONG_ID},1", f"{LONGER_ID},1", '"   ",1', "a\u200b,1", "\u202ea,1", "\U0001f600,1",
            "caf\u00e9,1", "cafe\u0301,2",
        ),
        accepted=4,
        failures=[IDENTIFIER_SENTENCE, IDENTIFIER_SENTENCE, INVISIBLE, INVISIBLE],
        people={LONG_ID: {"x": "1"}, "\U0001f600": {"x": "1"}, "caf\u00e9": {"x": "2"}},
    ),
    Item(
        name="B51 formulas",
        data=lines("identity,x,n", *(f'{CANARY},"{cell}",z' for cell in (
            "=1+1", "+cmd|'/C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\uff1d1", "'x"
        )), "b51,=1+1,1"),
        manifest=typed(n="INTEGER"),
        accepted=1,
        failures=["n: not an INTEGER"] * 7,
        people={"b51": {"x": "=1+1", "n": 1}},
        error_rows=[[CANARY, "'" + cell, "z"] for cell in (
            "=1+1", "+cmd|'/C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\uff1d1", "'x"
        )],
    ),
    Item(
        name="B53 quotes and line ends in a row that fails",
        data=lines("identity,x,n", f'"{CANARY}","a\r\nb ""c"", d",z', "b53,1,1"),
        manifest=typed(n="INTEGER"),
        accepted=1,
        failures=["n: not an INTEGER"],
        error_rows=[[CANARY, 'a\r\nb "c", d', "z"]],
    ),
    Item(
        name="an error file as it was sent out",
        data=lines(
            '"identity","x","Failure Description"',
            '"bob,1,2","","The record has 3 fields, the header has 2 (line 3)"',
            '"cut","","The record was broken before: mend it in the error file, and upload that"',
            '"\'=back","\'-1","n: not an INTEGER of 32 bits (LONG has 64)"',
            '"cut anew","","The record was broken before: mend it, or empty its last cell if it is right as it stands"',
            '"right","",""',
            '"back","mended","The record has 1 fields, the header has 2 (line 9)"',
            '"\'=blank","","Phone number is not valid"',
            end=b"\r\n",
        ),
        accepted=4,
        failures=["The record was broken before: mend it, or empty its last cell if it is right as it stands"] * 3,
        people={"=back": {"x": "-1"}, "back": {"x": "mended"}, "=blank": {}, "right": {}},
        error_rows=[["bob,1,2", ""], ["cut", ""], ["cut anew", ""]],
    ),
    Item(
        name="B54 operations",
        data=lines(
            "identity,L,L.operation", "b54,Rock,", "b54,Rock,$remove", "b54,Pop,$add", "b54,Pop,$add",
            f"b54,{CANARY},$incr", f"b54,{CANARY},$ADD", "b54b,x,", "b54b,anything,$delete", "b54c,,$set",
        ),
        accepted=6,
        failures=["Profile operation must be one of"] * 2 + ["L: $set needs a value"],
        people={"b54": {"L": ["Pop"]}, "b54b": {}},
    ),
    Item(
        name="B55 one person, many rows",
        data=lines(GOOD_LINE, *(f"b55,{n}" for n in range(20_000))),
        accepted=20_000,
        people={"b55": {"x": "19999"}},
    ),
    Item(
        name="B56 events",
        data=lines(
            "identity,evtName," + ",".join(f"p{n}" for n in range(101)),
            "b56,Bought," + "1," * 100,
            f"{CANARY},," + "," * 100,
            f"{CANARY},App Launched," + "," * 100,
            f"{CANARY},Bought," + ",".join("1" * 101),
            f"{CANARY},{'n' * 513}," + "," * 100,
        ),
        manifest={"type": "event"},
        accepted=1,
        failures=[
            "Event name is mandatory", "Event name belongs to restricted system events",
            "Cannot have more than 100 event properties", "The event name is longer than 512 characters",
        ],
        events={"b56": [("Bought", {f"p{n}": "1" for n in range(100)})]},
    ),
    Item(
        name="B19 a value in each of 2,000 columns",
        data=lines("identity," + ",".join(f"c{n}" for n in range(1999)), "b19," + ",".join(["1"] * 1999)),
        accepted=1,
        people={"b19": {f"c{n}": "1" for n in range(1999)}},
    ),
    Item(
        name="S76 not one good row",
        data=lines("identity,n", f"{CANARY},x", ",1"),
        manifest=typed(n="INTEGER"),
        error=NOTHING,
        says="All 2 rows were rejected",
        failures=["n: not an INTEGER", IDENTIFIER_SENTENCE],
    ),
]  # fmt: skip


def bad_manifest(name: str, says: str, manifest: Any, *, error: str = INCORRECT) -> Item:
    """A good file with a bad manifest."""
    return refused(name, lines(GOOD_LINE, f"{CANARY},1"), says, error=error, manifest=manifest)


KEYS = b'"type": "profile", "clientEmail": "data@example.org", "fileName": "FILE"'

MANIFESTS = [
    bad_manifest("B40 100,000 arrays", "nested deeper", b"[" * 100_000),
    bad_manifest("B40 20,000 objects", "nested deeper", b'{"a":' * 20_000),
    *(
        bad_manifest(f"B42 {word}", "", b'{%s, "x": %s}' % (KEYS, word.encode()))
        for word in ("NaN", "Infinity", "1e999", "1" * 5000)
    ),
    bad_manifest("B43 a key twice", "stands twice", b'{%s, "fileName": "FILE"}' % KEYS),
    bad_manifest("B43 a column twice", "stands twice", b'{%s, "columns": {"x": {}, "x": {}}}' % KEYS),
    bad_manifest("B46 too large", "262144 are allowed", b'{%s, "x": "%s"}' % (KEYS, b"x" * (260 << 10))),
    bad_manifest("B46 6,000 columns", "5000 are allowed", {"columns": {f"c{n}": {} for n in range(6000)}}),
    *(bad_manifest(f"B47 no {key}", "mandatory", {key: DROPPED}) for key in ("type", "fileName", "clientEmail")),
    bad_manifest("B47 type foo", "'profile' or 'event'", {"type": "foo"}),
    bad_manifest("B47 type EVENT", "'profile' or 'event'", {"type": "EVENT"}),
    bad_manifest("B47 dataType DATE", "dataType", typed(x="DATE")),
    bad_manifest("B47 no JSON", "Not JSON", b"fileName = FILE"),
    Item(
        name="B47 unknown keys",
        data=lines(GOOD_LINE, "b47,1"),
        manifest={"comment": "hello", "columns": {"x": {"type": "LONG"}}},
        accepted=1,
        warning="The key 'comment' is unknown and was ignored.",
        people={"b47": {"x": "1"}},
    ),
    *(
        bad_manifest(f"B48 {name}", "waits for a manifest", {"fileName": name}, error=NO_FILE)
        for name in ("../other/x.csv", "*.csv", "[ab].csv", "http://127.0.0.1/x.csv", "s3://a/x.csv", "~/x.csv", ".")
    ),
    *(
        bad_manifest(f"B49 {address[:20]!r}", "", {"clientEmail": address})
        for address in (
            "a@example.org\r\nBcc: b@example.org", "a@example.org,b@example.org", "a@attacker.example.net",
            "a" * 1024 + "@example.org",
        )
    ),
    bad_manifest(
        "B50 two columns, one target", "target of two columns", {"columns": {"identity": {"ctName": "x"}, "x": {}}}
    ),
    bad_manifest("B50 a target with a dollar", "'$'", {"columns": {"x": {"ctName": "$x"}}}),
    bad_manifest("B50 a target that is an operation", "'$'", {"columns": {"x": {"ctName": "x.operation"}}}),
    Item(
        name="B50 no columns",
        data=lines(GOOD_LINE, "b50,1"),
        manifest={"columns": {}},
        accepted=1,
        people={"b50": {"x": "1"}},
    ),
]  # fmt: skip

CORPUS = [*BYTES, *HEADERS, *CELLS, *MANIFESTS]
