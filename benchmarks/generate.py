"""Seeded customer files with the truth beside them: what a correct service must reject, row by row.

`profiles` and `events` write four files:

    x.csv          the data, a known share of it bad, in every way that `PROFILE_FAULTS` or `EVENT_FAULTS` names
    x.clean.csv    the same without the bad rows, for a raw COPY
    x.truth.csv    record,line,kind of each bad row; `kind` is a code of `ingestd.domain.rejection.ROW_REASONS`
    x.manifest     the manifest of x.csv

The same arguments give the same bytes. All rows of one person carry the same identity and, where they have one, the
same cookie. 78 of 100 rows bring a person whom no earlier row had. Nobody in these files exists.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

Variant = Literal["first", "updates", "plain", "quoted", "tabs", "wide"]
"""`updates`: the people of `first`, other values; `plain`: ASCII without quotes; `quoted`: every cell quoted; `tabs`:
tabs between the cells; `wide`: a thousand columns."""

Integers: TypeAlias = npt.NDArray[np.int64]
Fault: TypeAlias = tuple[str, Callable[[list[str]], str]]
"""A reason's code, and what makes of the cells of a good row a record that breaks that rule and no other."""

BLOCK_ROWS: Final = 100_000
NEW_PEOPLE: Final = 78  # of 100 rows
PROFILE_BYTES: Final = 150  # a row, on average
EVENT_BYTES: Final = 110
WIDE_COLUMNS: Final = 1_000
WIDE_BYTES: Final = 6_600

FIRST: Final = ("Asha", "Bela", "Chidi", "Dunya", "Emre", "Farah", "Goro", "Hedda", "Ines", "Jonas", "Kaya", "Lindiwe")
ACCENTED: Final = ("Zoë", "Łucja", "Jürgen", "Noël", "आशा", "Søren", "美咲", "Ümit")
LAST: Final = ("Doe", "Roe", "Poe", "Moss", "Field", "Brook", "Stone", "Hill", "Marsh", "Vale", "Heath", "Lake")
PLAYLISTS: Final = ("Rock", "Pop", "Jazz", "Folk", "Blues", "Techno", "Raga", "Fado", "")
LIST_OPERATIONS: Final = ("", "", "$add", "$add", "$remove", "$set")
PHONE_OPERATIONS: Final = ("", "", "", "", "", "", "$set", "$delete")
BOOLEANS: Final = ("true", "false", "1", "0", "")
EVENT_NAMES: Final = ("Purchased", "Viewed", "Added to cart", "Charged", "Returned", "Rated")

PROFILE_HEADER: Final = (
    "time_stamp", "identity", "cookie_id", "id_name", "id_email", "id_phone", "id_phone.operation", "is_married", "age",
    "Playlist", "Playlist.operation", "MSG-SMS", "MSG-DNDSMS",
)  # fmt: skip
EVENT_HEADER: Final = (
    "event_name", "time_stamp", "identity", "cookie_id", "item_name", "item_price", "item_delivery_date",
    "status_delivered",
)  # fmt: skip
PROFILE_COLUMNS: Final = {
    "time_stamp": {"ctName": "ts", "dataType": "INTEGER"},
    "identity": {"ctName": "identity", "dataType": "STRING"},
    "cookie_id": {"ctName": "objectId", "dataType": "STRING"},
    "id_name": {"ctName": "Name", "dataType": "STRING"},
    "id_email": {"ctName": "Email", "dataType": "STRING"},
    "id_phone": {"ctName": "Phone", "dataType": "STRING"},
    "is_married": {"ctName": "Married", "dataType": "BOOLEAN"},
    "age": {"ctName": "Age", "dataType": "INTEGER"},
    "MSG-SMS": {"ctName": "MSG-sms", "dataType": "BOOLEAN"},
    "MSG-DNDSMS": {"ctName": "MSG-dndSMS", "dataType": "BOOLEAN"},
}
EVENT_COLUMNS: Final = {
    "event_name": {"ctName": "evtName", "dataType": "STRING"},
    "time_stamp": {"ctName": "ts", "dataType": "INTEGER"},
    "identity": {"ctName": "identity", "dataType": "STRING"},
    "cookie_id": {"ctName": "objectId", "dataType": "STRING"},
    "item_name": {"ctName": "Name", "dataType": "STRING"},
    "item_price": {"ctName": "Price", "dataType": "FLOAT"},
    "item_delivery_date": {"ctName": "DeliveryDate", "dataType": "STRING"},
    "status_delivered": {"ctName": "DeliveryStatus", "dataType": "BOOLEAN"},
}


def _put(values: dict[int, str]) -> Callable[[list[str]], str]:
    """Return what puts `values` (position to cell) in place of a row's own."""
    return lambda cells: ",".join(values.get(at, cell) for at, cell in enumerate(cells))


def _grammar_faults(text: int) -> tuple[Fault, ...]:
    """Return the faults that a scanner finds; the free text stands at `text`; odd bytes are escaped as surrogates."""
    return (
        ("quote_open", lambda cells: ",".join([*cells[:text], f'"{cells[text]}', *cells[text + 1 :]])),
        ("quote_misplaced", _put({text: 'ab"c'})),
        ("quote_misplaced", _put({text: '"ab"c'})),
        ("field_count", lambda cells: ",".join([*cells, "more"])),
        ("field_count", lambda cells: ",".join(cells[:-2])),
        ("encoding_invalid", _put({text: "a\udcffb"})),
        ("encoding_invalid", _put({text: "\udced\udca0\udc80"})),  # half of a surrogate pair
        ("nul_byte", _put({text: "a\0b"})),
    )


PROFILE_FAULTS: Final[tuple[Fault, ...]] = (
    *_grammar_faults(3),
    ("identifier_missing", _put({1: "", 2: ""})),
    ("identifier_characters", _put({1: "a\x07b"})),
    ("ts_invalid", _put({0: "2019-11-25"})),
    ("ts_milliseconds", _put({0: "1574668407123"})),
    ("operation_invalid", _put({9: "Rock", 10: "$increment"})),
    ("set_blank", _put({9: "", 10: "$set"})),
    ("integer_invalid", _put({8: "twelve"})),
    ("integer_invalid", _put({8: "2147483648"})),
    ("boolean_invalid", _put({7: "perhaps"})),
    ("phone_invalid", _put({5: "+9112", 6: ""})),
)
EVENT_FAULTS: Final[tuple[Fault, ...]] = (
    *_grammar_faults(4),
    ("identifier_missing", _put({2: "", 3: ""})),
    ("identifier_characters", _put({2: "a\x07b"})),
    ("ts_invalid", _put({1: "2019-11-25"})),
    ("ts_milliseconds", _put({1: "1574668407123"})),
    ("event_name_missing", _put({0: ""})),
    ("event_name_restricted", _put({0: "App Launched"})),
    ("float_invalid", _put({5: "twelve"})),
    ("date_invalid", _put({6: "$D_soon"})),
    ("boolean_invalid", _put({7: "perhaps"})),
)


@dataclass(frozen=True, slots=True)
class Generated:
    """What was written: three files and the manifest; how many records, bad ones, and people in the good ones."""

    data: Path
    clean: Path
    truth: Path
    manifest: dict[str, Any]
    rows: int
    rejected: int
    people: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """One kind of file: its header, where its free text stands, its faults, and what makes its columns."""

    header: Sequence[str]
    text: int
    faults: Sequence[Fault]
    columns: Callable[[np.random.Generator, Integers, pl.Series], list[pl.Series]]


@dataclass(frozen=True, slots=True)
class Bad:
    """A record that must be rejected: its position and line in its block, from 0, why, and its bytes."""

    at: int
    line: int
    kind: str
    record: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """Some records: the bad ones, the runs of good ones before, between and behind them, and the number of lines."""

    bad: list[Bad]
    runs: list[bytes]
    lines: int
    people: Integers  # of the good ones


def profiles(path: Path, *, mb: float, seed: int = 1, bad_share: float = 0.01, variant: Variant = "first") -> Generated:
    """Write about `mb` million bytes of profiles as in the specification's sample: operations, preferences."""
    manifest = _manifest(path, "profile", PROFILE_COLUMNS)
    header: tuple[str, ...] = PROFILE_HEADER
    columns, row_bytes = _profile_columns, PROFILE_BYTES
    if variant == "wide":
        more = tuple(f"extra_{number:03}" for number in range(WIDE_COLUMNS - len(header)))
        header, columns, row_bytes = header + more, _wide_columns, WIDE_BYTES
    recipe = Recipe(header, 3, PROFILE_FAULTS, columns)
    blocks = _Blocks(recipe, round(mb * 1e6 / row_bytes), seed, bad_share, variant)
    return _write(path, blocks, manifest)


def events(path: Path, *, mb: float, seed: int = 1, bad_share: float = 0.01, variant: Variant = "first") -> Generated:
    """Write about `mb` million bytes of events like the specification's sample: 8 columns, the people of `profiles`."""
    manifest = _manifest(path, "event", EVENT_COLUMNS)
    recipe = Recipe(EVENT_HEADER, 4, EVENT_FAULTS, _event_columns)
    blocks = _Blocks(recipe, round(mb * 1e6 / EVENT_BYTES), seed, bad_share, variant)
    return _write(path, blocks, manifest)


def _manifest(path: Path, kind: str, columns: dict[str, dict[str, str]]) -> dict[str, Any]:
    return {"fileName": path.name, "type": kind, "columns": columns, "clientEmail": "data-team@example.org"}


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The records of one file, block by block, each drawn from seeds of its own."""

    recipe: Recipe
    rows: int
    seed: int
    bad_share: float
    variant: Variant

    @property
    def separator(self) -> str:
        return "\t" if self.variant == "tabs" else ","

    @property
    def most(self) -> int:
        """How many records a block has: fewer of many columns, so that memory is bounded."""
        return max(1, BLOCK_ROWS * len(PROFILE_HEADER) // max(len(self.recipe.header), len(PROFILE_HEADER)))

    def header(self) -> str:
        names = (f'"{name}"' if self.variant == "quoted" else name for name in self.recipe.header)
        return self.separator.join(names)

    def block(self, start: int) -> Block:
        """Return the block whose first record is number `start`, counted from 0."""
        count = min(self.most, self.rows - start)
        people = _people(np.random.default_rng((self.seed, start, 0)), start, count)
        values = np.random.default_rng((self.seed, start, 2 if self.variant == "updates" else 1))
        texts = _texts(values, people, accents=self.variant != "plain")
        cells = pl.DataFrame(self.recipe.columns(values, people, texts))
        spoilt = np.random.default_rng((self.seed, start, 3)).choice(
            count, round(self.bad_share * count), replace=False
        )
        spoilt.sort()
        heights = texts.str.count_matches("\n", literal=True).to_numpy() + 1
        heights[spoilt] = 1
        bad = self._spoil(cells, spoilt, np.cumsum(heights) - heights)
        records = self._records(cells)
        text = f"{records.str.join(chr(10)).item()}\n".encode()
        sizes = records.str.len_bytes().to_numpy().astype(np.int64) + 1
        ends = np.cumsum(sizes)
        firsts, lasts = [0, *ends[spoilt].tolist()], [*(ends - sizes)[spoilt].tolist(), len(text)]
        runs = [text[first:last] for first, last in zip(firsts, lasts, strict=True)]
        return Block(bad, runs, int(heights.sum()), np.delete(people, spoilt))

    def _records(self, cells: pl.DataFrame) -> pl.Series:
        """Render each row, quoting what must be quoted: only the free text may need it."""
        text = pl.col(self.recipe.header[self.recipe.text])
        quoted = pl.concat_str(pl.lit('"'), text.str.replace_all('"', '""', literal=True), pl.lit('"'))
        if self.variant == "quoted":
            cells = cells.with_columns(
                pl.format('"{}"', pl.exclude(text.meta.output_name())), quoted.alias(text.meta.output_name())
            )
        else:
            cells = cells.with_columns(
                pl.when(text.str.contains('[",\n]')).then(quoted).otherwise(text).alias(text.meta.output_name())
            )
        return cells.select(pl.concat_str(pl.all(), separator=self.separator)).to_series()

    def _spoil(self, cells: pl.DataFrame, at: Integers, lines: Integers) -> list[Bad]:
        """Make a bad record for each position, all faults in turn, each of plain cells so that it has no other."""
        plain = cells[at].with_columns(pl.nth(self.recipe.text).str.replace_all("[^A-Za-z0-9]", "x")).rows()
        bad = []
        for turn, (position, row) in enumerate(zip(at.tolist(), plain, strict=True)):
            kind, spoil = self.recipe.faults[turn % len(self.recipe.faults)]
            spoilt = spoil(list(row)).replace(",", self.separator)  # no cell has a comma
            record = f"{spoilt}\n".encode("utf-8", "surrogateescape")
            bad.append(Bad(position, int(lines[position]), kind, record))
        return bad


def _write(path: Path, blocks: _Blocks, manifest: dict[str, Any]) -> Generated:
    clean_path, truth_path = path.with_suffix(".clean.csv"), path.with_suffix(".truth.csv")
    seen = np.zeros(blocks.rows * NEW_PEOPLE // 100 + 1, dtype=bool)
    line, rejected = 2, 0
    with path.open("wb") as data, clean_path.open("wb") as clean, truth_path.open("w", newline="") as truth:
        header = f"{blocks.header()}\n".encode()
        data.write(header)
        clean.write(header)
        truth_rows = csv.writer(truth, lineterminator="\n")
        truth_rows.writerow(("record", "line", "kind"))
        for start in range(0, blocks.rows, blocks.most):
            block = blocks.block(start)
            spoilt = chain.from_iterable(zip(block.runs, (*(bad.record for bad in block.bad), b""), strict=True))
            data.write(b"".join(spoilt))
            clean.write(b"".join(block.runs))
            truth_rows.writerows((start + bad.at + 1, line + bad.line, bad.kind) for bad in block.bad)
            line, rejected = line + block.lines, rejected + len(block.bad)
            seen[block.people] = True
    path.with_suffix(".manifest").write_text(json.dumps(manifest, indent=4))
    return Generated(path, clean_path, truth_path, manifest, blocks.rows, rejected, int(seen.sum()))


def _people(rng: np.random.Generator, start: int, count: int) -> Integers:
    """Number the person of each row: the next new one where the share says so, else any one who came before."""
    before = np.arange(start, start + count + 1, dtype=np.int64) * NEW_PEOPLE // 100
    new = np.diff(before) > 0
    return np.where(new, before[:-1], (rng.random(count) * before[:-1]).astype(np.int64))


def _pick(rng: np.random.Generator, words: Sequence[str], count: int) -> pl.Series:
    return pl.Series(words).gather(rng.integers(0, len(words), count, dtype=np.uint32))


def _digits(numbers: npt.NDArray[np.integer[Any]], width: int) -> pl.Series:
    return pl.Series(numbers).cast(pl.String).str.zfill(width)


def _some(rng: np.random.Generator, share: float, values: pl.Series) -> pl.Series:
    """Blank all but about `share` of the values."""
    return values.zip_with(pl.Series(rng.random(len(values)) < share), pl.Series([""]).new_from_index(0, len(values)))


def _texts(rng: np.random.Generator, people: Integers, *, accents: bool) -> pl.Series:
    """Return free texts; with `accents` 6 % are not ASCII, 4 % hold a comma, 1 % a line end and 1 % a quote."""
    count = len(people)
    frame = pl.DataFrame({
        "first": _pick(rng, FIRST, count),
        "accented": _pick(rng, ACCENTED, count),
        "last": _pick(rng, LAST, count),
        "number": _digits(people % 10_000, 4),
        "kind": rng.random(count) if accents else np.ones(count),
    })  # fmt: skip
    kind = pl.col("kind")
    return frame.select(
        pl.when(kind >= 0.12)
        .then(pl.format("{} {}-{}", "first", "last", "number"))
        .when(kind >= 0.06)
        .then(pl.format("{} {}-{}", "accented", "last", "number"))
        .when(kind >= 0.02)
        .then(pl.format("{}, {}-{}", "last", "first", "number"))
        .when(kind >= 0.01)
        .then(pl.format("{}\n{}-{}", "first", "last", "number"))
        .otherwise(pl.format('{} "{}" {}', "first", "number", "last"))
    ).to_series()


def _identifiers(rng: np.random.Generator, people: Integers) -> tuple[pl.Series, pl.Series]:
    """Return each row's identity and, in 9 of 10 rows, its cookie. They do not sort as the people do."""
    scattered = _digits(people * 7_368_787 % 9_999_999_967, 10)
    return "person." + scattered + "@example.org", _some(rng, 0.9, "dummy_cookie-" + scattered)


def _times(rng: np.random.Generator, count: int) -> pl.Series:
    return pl.Series(rng.integers(1_500_000_000, 1_600_000_000, count)).cast(pl.String)


def _profile_columns(rng: np.random.Generator, people: Integers, texts: pl.Series) -> list[pl.Series]:
    count = len(people)
    phone_operation, playlist = _pick(rng, PHONE_OPERATIONS, count), _pick(rng, PLAYLISTS, count)
    identity, cookie = _identifiers(rng, people)
    columns = [
        _some(rng, 0.95, _times(rng, count)),
        identity,
        cookie,
        texts,
        "mailbox-" + _digits(rng.integers(0, 10**8, count), 8) + "@mail.example.org",
        "+9198" + _digits(rng.integers(0, 10**8, count), 8),  # every such number is valid
        phone_operation,
        _pick(rng, BOOLEANS, count),
        _some(rng, 0.9, pl.Series(rng.integers(18, 90, count)).cast(pl.String)),
        playlist,
        _pick(rng, LIST_OPERATIONS, count).zip_with(playlist != "", playlist),  # an operation needs a value
        _pick(rng, BOOLEANS, count),
        _pick(rng, BOOLEANS, count),
    ]
    return [column.alias(name) for column, name in zip(columns, PROFILE_HEADER, strict=True)]


def _wide_columns(rng: np.random.Generator, people: Integers, texts: pl.Series) -> list[pl.Series]:
    """Give profiles as many columns more as make a thousand, of which six in seven cells have a value."""
    columns = _profile_columns(rng, people, texts)
    words = pl.Series(["", *(f"value{number}" for number in range(6))])
    for number in range(WIDE_COLUMNS - len(columns)):
        columns.append(words.gather(((people + number) % len(words)).astype(np.uint32)).alias(f"extra_{number:03}"))
    return columns


def _event_columns(rng: np.random.Generator, people: Integers, texts: pl.Series) -> list[pl.Series]:
    count = len(people)
    columns = [
        _pick(rng, EVENT_NAMES, count),
        _some(rng, 0.95, _times(rng, count)),
        *_identifiers(rng, people),
        texts,
        pl.Series(rng.integers(100, 100_000, count) / 100).cast(pl.String),
        _some(rng, 0.9, "$D_" + _times(rng, count)),
        _pick(rng, BOOLEANS, count),
    ]
    return [column.alias(name) for column, name in zip(columns, EVENT_HEADER, strict=True)]


def main() -> None:
    """Write one file from the command line."""
    parser = argparse.ArgumentParser(description="Write a seeded data file, its manifest and its truth.")
    parser.add_argument("kind", choices=("profiles", "events"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--mb", type=float, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bad-share", type=float, default=0.01)
    parser.add_argument("--variant", choices=get_args(Variant), default="first")
    given = parser.parse_args()
    write = profiles if given.kind == "profiles" else events
    made = write(given.path, mb=given.mb, seed=given.seed, bad_share=given.bad_share, variant=given.variant)
    print(f"{made.data}: {made.rows} rows, {made.rejected} of them bad, {made.people} people")


if __name__ == "__main__":
    main()
