"""A Plan bound to the header of one file: what each column is (S117, D19, D23, D46, D49)."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ingestd.domain.column import PREFERENCES, DataType, name_problem, operation_base
from ingestd.domain.data_source import header_problem
from ingestd.domain.errors import FileRefused
from ingestd.domain.identity import FORMATS, KIND_OF_WORD, MANIFEST_KINDS
from ingestd.domain.notice import few
from ingestd.domain.plan import ColumnRule, Plan, Target
from ingestd.domain.rejection import FILE_REASONS
from ingestd.domain.segment import MEMBER_KINDS, member_kind

_OTHER_DELIMITERS: Final = {";": "';'", "\t": "a tab", "|": "'|'", ",": "a comma"}

_CHECKED: Final = {"phone": DataType.PHONE, "email": DataType.EMAIL}
"""What is a phone or an address in the file of a manifest, whatever type is declared: both are texts (D5)."""


class Role(StrEnum):
    """What a column is for."""

    ATTRIBUTE = "attribute"
    """An attribute of a profile or a property of an event."""
    IDENTIFIER = "identifier"
    TS = "ts"
    EVENT_NAME = "event_name"
    PREFERENCE = "preference"
    OPERATION = "operation"
    PARTITION = "partition"
    """The part of a segment that a member is in."""
    UNMAPPED = "unmapped"
    """A column of a data source's file that the mapping does not name, or a further one of a segment's: not read."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a file, bound.

    `position` counts from 0 in the file; `name` is the target's name; `kind` is set for an identifier only, an
    `IdentifierKind` or that of an account's own attribute; `operation` is the position of the column that holds this
    attribute's operation.
    """

    position: int
    header: str
    role: Role
    name: str
    type: DataType = DataType.STRING
    kind: int | None = None
    operation: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """All columns of one file in file order, and what is worth a warning."""

    columns: tuple[Column, ...]
    warnings: tuple[str, ...] = ()

    def of(self, role: Role) -> tuple[Column, ...]:
        """The columns of one role; identifiers come by precedence, the rest in file order."""
        found = (column for column in self.columns if column.role is role)
        return tuple(sorted(found, key=lambda column: (column.kind or 0, column.position)))

    def one(self, role: Role) -> Column | None:
        """The only column of a role, if the file has it."""
        return next(iter(self.of(role)), None)


def bind(plan: Plan, headers: tuple[str, ...]) -> Layout:
    """Say what each column of a file is, or raise FileRefused with everything that is wrong with the header."""
    names = tuple(unicodedata.normalize("NFC", header) for header in headers)
    if plan.target is Target.SEGMENT:
        return _bind_members(names, plan)
    _refuse_names(names, plan)
    rules = {unicodedata.normalize("NFC", header): rule for header, rule in plan.columns.items()}
    absent = [header for header in rules if header not in names]
    if plan.mapped:
        return _bind_mapped(names, rules, absent)
    if absent:
        raise FileRefused(
            f"The manifest names columns that the file does not have: {_listed(absent)}", code="manifest_incorrect"
        )
    columns = _bind_all(names, rules, plan.target)
    _refuse_padded(columns, plan.target)
    _refuse_clashes(columns)
    _require(columns, plan, names)
    odd = (*_padded(columns), *_no_preferences(columns, plan.target))
    return Layout(tuple(columns), (*_twins(names), *odd, *_idle(columns, plan.target), *_misnamed(columns, rules)))


def _bind_members(names: tuple[str, ...], plan: Plan) -> Layout:
    """Bind the header of a segment's file: an identifier, a partition, and what else there is is ignored (S22, S23)."""
    kind = member_kind(names[0])
    if kind is None:
        hint = _delimiter_hint(plan, names) if len(names) == 1 else " Is the first line a header?"
        raise FileRefused(f"The first column must be one of {', '.join(MEMBER_KINDS)}.{hint}")
    if len(names) == 1 or not names[1].strip():
        raise FileRefused("The second column must hold the partition, and have a name.")
    columns = (
        Column(0, names[0], Role.IDENTIFIER, kind.word, FORMATS.get(kind, DataType.STRING), kind=kind),
        Column(1, names[1], Role.PARTITION, "partition"),
        *(Column(position, names[position], Role.UNMAPPED, "") for position in range(2, len(names))),
    )
    return Layout(columns, few([f"Column {column.position + 1} was not read." for column in columns[2:]]))


def _bind_mapped(names: tuple[str, ...], rules: dict[str, ColumnRule], absent: list[str]) -> Layout:
    """Bind the header of a data source's file: each column as its mapping says, or not at all."""
    if absent:
        detail = f"The file lacks columns that the data source's mapping names: {_listed(absent)}."
        raise FileRefused(detail, code="header_incorrect")
    columns = tuple(
        _bind_to_goal(position, header, rules[header])
        if header in rules
        else Column(position, header, Role.UNMAPPED, "")
        for position, header in enumerate(names)
    )
    left = [column for column in columns if column.role is Role.UNMAPPED]
    return Layout(columns, few([f"Column {column.header!r} is not mapped and was not read." for column in left]))


def _bind_to_goal(position: int, header: str, rule: ColumnRule) -> Column:
    name = rule.name or header
    if rule.kind is not None:
        return Column(position, header, Role.IDENTIFIER, name, rule.type, kind=rule.kind)
    role = Role.PREFERENCE if name.casefold() in PREFERENCES else Role.ATTRIBUTE
    return Column(position, header, role, name, rule.type)


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _refuse_names(names: tuple[str, ...], plan: Plan) -> None:
    if len(names) == 1 and "\t" in names[0]:  # no name has a tab: of the two things that are wrong, the telling one
        raise _nobody(plan, names)
    if plan.mapped and len(names) == 1 and (hint := _delimiter_hint(plan, names)).count("separated"):
        raise FileRefused(f"The header is one column.{hint}", code="header_incorrect")
    problem_of, code = (header_problem, "header_incorrect") if plan.mapped else (name_problem, None)
    for position, name in enumerate(names, start=1):
        if problem := problem_of(name):
            raise FileRefused(
                f"The name of column {position} {problem}. Give every column a plain name (first line).", code=code
            )
    seen: set[str] = set()
    for position, name in enumerate(names, start=1):
        if name in seen:
            raise FileRefused(f"The name of column {position} stands twice in the header. Name each column once.")
        seen.add(name)


def _bind_all(names: tuple[str, ...], rules: dict[str, ColumnRule], target: Target) -> list[Column]:
    positions = {name: position for position, name in enumerate(names)}
    operations = _operations(names, positions)
    columns = []
    for position, header in enumerate(names):
        base = operation_base(header)
        if base is not None:
            columns.append(Column(position, header, Role.OPERATION, base))
            continue
        rule = rules.get(header, ColumnRule())
        columns.append(_bind_one(position, header, rule, target, operation=operations.get(header)))
    return columns


def _operations(names: tuple[str, ...], positions: dict[str, int]) -> dict[str, int]:
    """The position of the column with the operations of each column that has one, by the header of the latter."""
    found: dict[str, int] = {}
    for position, header in enumerate(names):
        base = operation_base(header)
        if base is None:
            continue
        if base not in positions:
            raise FileRefused(f"Column {position + 1} holds operations, but there is no column {base[:60]!r} for them.")
        if base in found:
            raise FileRefused(
                f"Columns {found[base] + 1} and {position + 1} both hold the operations of {base[:60]!r}."
            )
        found[base] = position
    return found


def _bind_one(position: int, header: str, rule: ColumnRule, target: Target, *, operation: int | None) -> Column:
    name = unicodedata.normalize("NFC", rule.name or header)
    word = name.casefold()
    if word == "ts":
        return Column(position, header, Role.TS, "ts", operation=operation)
    if word == "evtname":
        return Column(position, header, Role.EVENT_NAME, "evtName", operation=operation)
    kind = KIND_OF_WORD.get(word)
    if kind in MANIFEST_KINDS:
        return Column(position, header, Role.IDENTIFIER, kind.word, kind=kind, operation=operation)
    if word in PREFERENCES and target is not Target.EVENTS:  # there it is a property like any other
        return Column(position, header, Role.PREFERENCE, PREFERENCES[word].value, DataType.BOOLEAN, operation=operation)
    data_type = _CHECKED.get(word, rule.type)
    return Column(position, header, Role.ATTRIBUTE, name, data_type, operation=operation)


def _refuse_padded(columns: list[Column], target: Target) -> None:
    """Refuse a name that a space at its edge makes a property: a do-not-disturb must not be lost by it."""
    for column in columns:
        name = column.name.strip()
        if column.role is not Role.ATTRIBUTE or name == column.name:
            continue
        if _bind_one(column.position, name, ColumnRule(), target, operation=None).role is not Role.ATTRIBUTE:
            raise FileRefused(
                f"The name of column {column.position + 1} would be {name!r} without the space at its edge. "
                "Remove it (first line, or the manifest)."
            )


def _refuse_clashes(columns: list[Column]) -> None:
    targets: dict[tuple[Role, str], Column] = {}
    for column in columns:
        if column.role is Role.OPERATION:
            continue
        other = targets.setdefault((column.role, column.name), column)
        if other is not column:
            raise FileRefused(
                f"Columns {other.position + 1} and {column.position + 1} both give {column.name!r}. Keep one of them.",
                code="manifest_incorrect",
            )
    for column in columns:
        reserved = column.role not in {Role.ATTRIBUTE, Role.OPERATION}
        if reserved and column.operation is not None:
            raise FileRefused(f"{column.name!r} takes no operation. Remove column {column.operation + 1}.")


def _require(columns: list[Column], plan: Plan, names: tuple[str, ...]) -> None:
    if plan.target is Target.EVENTS and not any(column.role is Role.EVENT_NAME for column in columns):
        raise FileRefused(
            f"{FILE_REASONS['event_name_missing'].sentence}. No column is evtName.", code="event_name_missing"
        )
    if not any(column.role is Role.IDENTIFIER for column in columns):
        raise _nobody(plan, names)


def _nobody(plan: Plan, names: tuple[str, ...]) -> FileRefused:
    sentence = FILE_REASONS["identifier_missing"].sentence
    return FileRefused(f"{sentence}.{_delimiter_hint(plan, names)}", code="identifier_missing")


def _delimiter_hint(plan: Plan, names: tuple[str, ...]) -> str:
    if len(names) > 1:
        return " No column of the header is one; is the first line a header?"
    for delimiter, words in _OTHER_DELIMITERS.items():
        if delimiter != plan.format.delimiter and delimiter in names[0]:
            return f" The file looks like its cells are separated by {words}; {plan.format.upper()} is expected."
    return " The header has one column, and it is none."


def _padded(columns: list[Column]) -> tuple[str, ...]:
    padded = [each for each in columns if each.role is Role.ATTRIBUTE and each.name != each.name.strip()]
    return few(
        [
            f"The space at the edge of {each.name!r} (column {each.position + 1}) is part of the property's name."
            for each in padded
        ]
    )


def _no_preferences(columns: list[Column], target: Target) -> tuple[str, ...]:
    """Properties of people that are called as a preference would be."""
    if target is Target.EVENTS:
        return ()
    called = [each for each in columns if each.role is Role.ATTRIBUTE and each.name.strip().lower().startswith("msg-")]
    known = ", ".join(PREFERENCES.values())
    return few(
        [
            f"{each.name!r} (column {each.position + 1}) is no preference but a property. The preferences are {known}."
            for each in called
        ]
    )


def _idle(columns: list[Column], target: Target) -> tuple[str, ...]:
    """Columns of events that mean nothing in a file of profiles."""
    idle = [column.position + 1 for column in columns if column.role is Role.EVENT_NAME]
    if target is Target.EVENTS or not idle:
        return ()
    return (f"Column {idle[0]} names events, but the file's type is profile: it was ignored.",)


def _misnamed(columns: list[Column], rules: dict[str, ColumnRule]) -> tuple[str, ...]:
    """Columns of operations that a rule names: they become nothing that could have a name."""
    named = ((column.header, rules.get(column.header)) for column in columns if column.role is Role.OPERATION)
    return few(
        [
            f"Column {header!r} holds operations: the name {rule.name!r} was ignored."
            for header, rule in named
            if rule is not None and rule.name
        ]
    )


def _twins(names: tuple[str, ...]) -> tuple[str, ...]:
    seen: dict[str, str] = {}
    pairs = []
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            pairs.append(f"Columns {other!r} and {name!r} differ only in case; they are two properties.")
    return few(pairs)
