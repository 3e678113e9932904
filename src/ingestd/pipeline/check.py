"""Check: the rules of a file's plan over one batch after another, giving accepted and rejected rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import polars as pl

from ingestd.domain.column import MAX_EVENT_PROPERTIES, DataType
from ingestd.domain.identity import MAX_IDENTIFIER_LENGTH
from ingestd.domain.layout import Column, Layout, Role
from ingestd.domain.plan import Plan, Target
from ingestd.domain.rejection import ROW_REASONS
from ingestd.pipeline import rules
from ingestd.pipeline.cells import Look, rewrite
from ingestd.pipeline.partitions import Partitions
from ingestd.pipeline.phones import Phones, odd_phone
from ingestd.pipeline.rules import Reading

ROW_COLUMNS: Final = ("row_no", "line_no")
_ORDER: Final = {code: order for order, code in enumerate(ROW_REASONS)}
_BY_TYPE: Final = {
    DataType.INTEGER: rules.integer,
    DataType.LONG: rules.long,
    DataType.FLOAT: rules.decimal,
    DataType.BOOLEAN: rules.boolean,
    DataType.DATE: rules.moment,
    DataType.EMAIL: rules.email,
}
_WRONG: Final = "wrong"

CHARGED: Final = "Charged"
CHARGED_ITEMS: Final = "items"
ITEMS_AS_TEXT: Final = "{column}: the items of Charged events are kept as text; a list of items cannot be imported."
"""S118: the event's items are a list elsewhere, but a cell of a file is one value."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The rows of one batch, checked; both frames begin with `row_no` and `line_no` (Int64) and keep file order.

    `accepted` has, besides:

    - `k<kind>` String: an identifier in its normal form, null where blank
    - `partition` String, for a segment, and then nothing of what follows
    - `ts` Int64: epoch seconds, null where blank or without a column
    - `event_name` String, for events
    - `p:<name>` Boolean: a preference
    - `a:<name>` String: an attribute's value as JSON text, null where blank or deleted
    - `o:<name>` Int8: the operation on an attribute that has a column for it, a number of `column.OPERATION_CODES`;
      null where there is none or nothing to do; not for events

    `rejected` has the file's cells as they stood ("0", "1", …), `failure` (all sentences joined with `; ` in rule
    order, D34) and `codes` (List of String, one for each sentence).
    """

    accepted: pl.DataFrame
    rejected: pl.DataFrame


class Fault(NamedTuple):
    """Rows that are wrong, why (code → mask), and the facts for the sentences."""

    wrong: pl.Expr
    reasons: Mapping[str, pl.Expr]
    facts: Mapping[str, object]


class Check:
    """The check of one file, made once and fed its batches; `now` is the ingestion's start in epoch seconds.

    `partitions` knows those of the file's segment. Several threads may feed it.
    """

    def __init__(self, layout: Layout, plan: Plan, now: int, partitions: Partitions | None = None) -> None:
        self._layout = layout
        self._plan = plan
        self._now = now
        self._phones = Phones()
        self._partitions = partitions or Partitions()
        self._items = [column for column in layout.of(Role.ATTRIBUTE) if column.name.casefold() == CHARGED_ITEMS]
        self._saw_items = False

    @property
    def warnings(self) -> list[str]:
        """What is worth a warning in the batches that were checked."""
        return [ITEMS_AS_TEXT.format(column=self._items[0].header)] if self._saw_items else []

    def batch(self, rows: pl.DataFrame) -> Checked:
        """Check one batch: String columns "0", "1", … by position in the file, `row_no` and `line_no`."""
        accepted, failed = self.sift(rows)
        return Checked(accepted, self.describe(failed))

    def sift(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The same without the reasons: `Checked.accepted`, and the failed rows as they stood."""
        accepted, failed = self._read(rows, self._partitions).sifted()
        if self._plan.target is Target.EVENTS and self._items and not self._saw_items:
            items = pl.any_horizontal(pl.col(f"a:{column.name}").is_not_null() for column in self._items)
            self._saw_items = not accepted.filter(items & (pl.col("event_name") == CHARGED)).is_empty()
        return accepted, failed

    def describe(self, failed: pl.DataFrame) -> pl.DataFrame:
        """`Checked.rejected` of failed rows, which takes milliseconds for few as for many; for any thread."""
        return self._read(failed, Partitions()).described()

    def _read(self, rows: pl.DataFrame, partitions: Partitions) -> _Batch:
        events = self._plan.target is Target.EVENTS
        batch = _Batch(rows, self._layout, self._phones)
        batch.read_lengths(self._plan.limits.cell_bytes)
        if self._plan.target is Target.SEGMENT:
            batch.read_member(partitions)
            return batch
        if self._plan.mapped:
            batch.read_padding()
        batch.read_identifiers("identifier_blank" if self._plan.mapped else "identifier_missing")
        batch.read_time(self._now if events else None)
        if events:
            batch.read_event(self._plan.restricted_events)
        batch.read_cells(with_operations=not events)
        return batch


class _Batch:
    """One batch while it is read: the values to give, the faults to look for, and columns prepared for both."""

    def __init__(self, rows: pl.DataFrame, layout: Layout, phones: Phones) -> None:
        self._layout = layout
        self._rows = rows
        longest = rows.select(pl.col(str(column.position)).str.len_bytes().max() for column in layout.columns)
        self._longest: tuple[int | None, ...] = longest.row(0)  # None: blank in every row
        self._prepared: dict[str, pl.Series] = {}
        self._values: list[pl.Expr] = []
        self._faults: list[Fault] = []
        self._prepare_odd(phones)

    def _prepare_odd(self, phones: Phones) -> None:
        """Prepare the cells that a quick look at booleans and phone numbers cannot read; as a rule there are few."""
        quick = {DataType.BOOLEAN: rules.odd_word, DataType.PHONE: odd_phone}
        columns = [column for column in self._layout.columns if column.type in quick]
        odd = self._rows.lazy().select(quick[column.type](_cell(column)) for column in columns).collect()
        for column in columns:
            cells, strange = self._series(column), odd[str(column.position)]
            if column.type is DataType.PHONE:
                self._prepare(column, phones.normal(cells, strange))
            elif strange.any():
                self._prepare(column, rewrite(cells, strange, rules.plain_words))

    def _prepare(self, column: Column, cells: pl.Series, what: str = "") -> pl.Expr:
        name = f"~{column.position}{what}"
        self._prepared[name] = cells.alias(name)
        return pl.col(name)

    def _series(self, column: Column) -> pl.Series:
        return self._rows[str(column.position)]

    def _meant(self, column: Column) -> pl.Expr:
        """The cells of a column as prepared, where they needed it."""
        name = f"~{column.position}"
        return pl.col(name) if name in self._prepared else _cell(column)

    def _fault(self, reasons: Mapping[str, pl.Expr], wrong: pl.Expr | None = None, **facts: object) -> None:
        if reasons:
            self._faults.append(Fault(pl.any_horizontal(*reasons.values()) if wrong is None else wrong, reasons, facts))

    def _take(self, reading: Reading, name: str, column: Column) -> None:
        self._values.append(reading.value.alias(name))
        self._fault(reading.reasons, reading.wrong, column=column.header)

    def read_lengths(self, limit: int) -> None:
        """Look for cells that are too long, if the batch has any."""
        columns = [column for column in self._layout.columns if (self._longest[column.position] or 0) > limit]
        if columns:
            self._fault(rules.cell_too_long([_cell(column) for column in columns], limit), expected=limit)

    def read_padding(self) -> None:
        """Look for spaces around the cells that are read."""
        for column in self._layout.columns:
            if column.role is not Role.UNMAPPED and not Look(self._series(column)).solid:
                self._fault(rules.padded(_cell(column)), column=column.header)

    def read_identifiers(self, missing: str) -> None:
        """Read the identifiers; the costly rules only where a look at the column's bytes calls for them.

        `missing` is the reason of a row that has none.
        """
        columns = self._layout.of(Role.IDENTIFIER)
        long_ones = []
        for column in columns:
            assert column.kind is not None
            if column.type is DataType.PHONE:
                self._fault(rules.phone(_cell(column), self._meant(column)).reasons)
                self._values.append(self._meant(column).alias(f"k{int(column.kind)}"))
                continue
            cells = normal = self._series(column)
            seen = Look(cells)
            if not seen.solid:
                strange = seen.strange()
                normal = rewrite(cells, strange, rules.normal_identifiers)
                self._prepare(column, normal)
                invisible = self._prepare(column, rules.invisible(normal, strange), "invisible")
                self._fault({"identifier_characters": invisible}, column=column.header)
            if column.type is DataType.EMAIL:
                self._fault({"email_invalid": rules.no_email(_cell(column))})
                if seen.capitals() or not seen.solid:
                    self._prepare(column, rules.lower_domains(normal))
            if not seen.solid or (self._longest[column.position] or 0) > MAX_IDENTIFIER_LENGTH:
                long_ones.append(self._meant(column))
            self._values.append(self._meant(column).alias(f"k{int(column.kind)}"))
        given = [_cell(column) if column.type is DataType.PHONE else self._meant(column) for column in columns]
        self._fault(rules.identifier_missing(given, long_ones=long_ones, code=missing))

    def read_member(self, partitions: Partitions) -> None:
        """Read a segment's row: the identifier, a mobile number without `+`, and the partition (S24, S25)."""
        self.read_identifiers("identifier_blank")
        (member,) = self._layout.of(Role.IDENTIFIER)
        if member.type is DataType.PHONE:
            self._fault({"phone_with_plus": _cell(member).str.starts_with("+")}, column=member.header)
        column = self._layout.one(Role.PARTITION)
        assert column is not None  # the layout has one
        self._prepare(column, partitions.normal(self._series(column)))
        partition = self._meant(column)
        self._take(
            Reading(partition, partition.is_null(), {"partition_invalid": partition.is_null()}), "partition", column
        )

    def read_time(self, now: int | None) -> None:
        """Read `ts`; that of an event (`now` given) must lie within bounds."""
        column = self._layout.one(Role.TS)
        if column is None:
            self._values.append(pl.lit(None, pl.Int64).alias("ts"))
            return
        cell = _cell(column)
        self._take(rules.time(cell) if now is None else rules.event_time(cell, now), "ts", column)

    def read_event(self, restricted: Sequence[str]) -> None:
        """Read the event's name, count its properties, and look for operations, which it takes none of."""
        column = self._layout.one(Role.EVENT_NAME)
        assert column is not None  # the layout has one
        self._take(rules.event_name(_cell(column), restricted), "event_name", column)
        properties = [*self._layout.of(Role.ATTRIBUTE), *self._layout.of(Role.PREFERENCE)]
        if len(properties) > MAX_EVENT_PROPERTIES:
            self._fault(rules.too_many_properties([_cell(column) for column in properties]))
        for column in properties:
            if column.operation is not None and self._longest[column.operation] is not None:
                self._fault(rules.no_operation(pl.col(str(column.operation))), column=column.header)

    def read_cells(self, *, with_operations: bool) -> None:
        """Read the preferences, the attributes or properties, and what is to be done to them, in file order."""
        for column in self._layout.columns:
            if column.role is Role.PREFERENCE:
                self._take(rules.preference(self._meant(column)), f"p:{column.name}", column)
            elif column.role is Role.ATTRIBUTE:
                reading = self._read_attribute(column)
                if with_operations and column.operation is not None:
                    reading, operation = rules.operated(_cell(column), pl.col(str(column.operation)), reading)
                    self._take(operation, f"o:{column.name}", column)
                self._take(reading, f"a:{column.name}", column)

    def _read_attribute(self, column: Column) -> Reading:
        if self._longest[column.position] is None:
            return Reading(pl.lit(None, pl.String), pl.lit(False), {})
        if column.type is DataType.STRING:
            cells = self._series(column)
            seen = Look(cells)
            self._prepare(column, rewrite(cells, seen.escaped(), rules.escaped))
            dated = self._prepare(column, rules.dates(cells), "date") if seen.dollars else None
            return rules.text(_cell(column), self._meant(column), dated)
        if column.type is DataType.PHONE:
            return rules.phone(_cell(column), self._meant(column))
        return _BY_TYPE[column.type](self._meant(column))

    def sifted(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Answer everything in one parallel query: the good rows, read, and the others as they stood."""
        frame = self._rows.with_columns(self._prepared.values())
        wrong = pl.any_horizontal(fault.wrong for fault in self._faults).fill_null(False).alias(_WRONG)
        read = frame.lazy().select(*ROW_COLUMNS, *self._values, wrong).collect()
        failed = read[_WRONG]
        accepted = read.drop(_WRONG)
        return (accepted.filter(~failed) if failed.any() else accepted), self._rows.filter(failed)

    def described(self) -> pl.DataFrame:
        """Say of rows that failed why."""
        if self._rows.is_empty():
            return _described(self._rows, pl.lit(""), pl.lit([]))
        return _describe(self._rows.with_columns(self._prepared.values()), self._faults).drop(self._prepared)


def _cell(column: Column) -> pl.Expr:
    return pl.col(str(column.position))


def _describe(failed: pl.DataFrame, faults: Sequence[Fault]) -> pl.DataFrame:
    """Add `failure` and `codes` to the failed rows: each broken rule once, in rule order (D34)."""
    masks: dict[tuple[str, str], pl.Expr] = {}
    for fault in faults:
        for code, mask in fault.reasons.items():
            key = code, rules.sentence(code, **fault.facts)
            masks[key] = masks[key] | mask if key in masks else mask
    found = failed.lazy().select(mask.fill_null(False).alias(str(i)) for i, mask in enumerate(masks.values())).collect()
    broken = [(*key, found[str(i)]) for i, key in enumerate(masks) if found[str(i)].any()]
    broken.sort(key=lambda entry: _ORDER[entry[0]])
    sentences = [pl.when(mask).then(pl.lit(sentence)) for _, sentence, mask in broken]
    codes = [pl.when(mask).then(pl.lit(code)) for code, _, mask in broken]
    failure = pl.concat_str(sentences, separator="; ", ignore_nulls=True)
    return _described(failed, failure, pl.concat_list(codes).list.drop_nulls())


def _described(failed: pl.DataFrame, failure: pl.Expr, codes: pl.Expr) -> pl.DataFrame:
    return failed.select(
        *ROW_COLUMNS,
        pl.exclude(ROW_COLUMNS),
        failure.cast(pl.String).alias("failure"),
        codes.cast(pl.List(pl.String)).alias("codes"),
    )
