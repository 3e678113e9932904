"""Data sources: a mapping of columns to attributes becomes the Plan of a file (S56 to S60)."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ingestd.domain.column import PREFERENCES, DataType, name_problem
from ingestd.domain.errors import Problem
from ingestd.domain.identity import FORMATS, KIND_OF_WORD
from ingestd.domain.plan import MIB, ColumnRule, Format, Limits, Mode, Plan, Target

FILE_BYTES: Final = 40 * MIB
"""The largest file of a data source, inclusive (S51, D10)."""

SUFFIX: Final = ".tsv"


@dataclass(frozen=True, slots=True)
class Goal:
    """What a column can be mapped to: an attribute, or one of the identifiers and preferences that all accounts have.

    `kind` is set where its values identify people.
    """

    name: str
    format: DataType
    kind: int | None = None
    pii: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """One column of a mapping: a header of the file, and the name of its goal."""

    column: str
    attribute: str


BUILT_IN: Final[Mapping[str, Goal]] = {
    word: Goal(kind.word, FORMATS.get(kind, DataType.STRING), int(kind)) for word, kind in KIND_OF_WORD.items()
} | {word: Goal(preference, DataType.BOOLEAN) for word, preference in PREFERENCES.items()}
"""By their words in lower case."""


def goal_of(name: str, attributes: Mapping[str, Goal]) -> Goal | None:
    """What a name in a mapping stands for: an attribute of the account, else what all accounts have, in any case."""
    normal = unicodedata.normalize("NFC", name)
    return attributes.get(normal) or BUILT_IN.get(normal.casefold())


def mapping_problems(pairs: Sequence[Pair], attributes: Mapping[str, Goal]) -> list[Problem]:
    """What is wrong with a mapping (S58, S60); the pointers begin at the list of its columns."""
    problems: list[Problem] = []
    columns: set[str] = set()
    goals: set[str] = set()
    identifies = False
    for place, pair in enumerate(pairs):
        column = unicodedata.normalize("NFC", pair.column)
        if problem := header_problem(column):
            problems.append(Problem(f"/{place}/column", "name", f"The name {problem}."))
        elif column in columns:
            problems.append(Problem(f"/{place}/column", "duplicate", "The column is mapped twice."))
        columns.add(column)
        goal = goal_of(pair.attribute, attributes)
        if goal is None:
            detail = "There is no such attribute. Make it first, or here with 'new_attribute'."
            problems.append(Problem(f"/{place}/attribute", "attribute_unknown", detail))
            continue
        if goal.name in goals:
            problems.append(Problem(f"/{place}/attribute", "duplicate", "Two columns are mapped to this attribute."))
        goals.add(goal.name)
        identifies |= goal.kind is not None
    if not identifies and not problems:
        problems.append(Problem("", "identifier_missing", "Map at least one column to an identifier of people."))
    return problems


def plan(pairs: Sequence[Pair], attributes: Mapping[str, Goal], limits: Limits, *, mode: Mode = Mode.APPEND) -> Plan:
    """The Plan of a file under a mapping without problems."""
    rules: dict[str, ColumnRule] = {}
    for pair in pairs:
        goal = goal_of(pair.attribute, attributes)
        assert goal is not None
        rule = ColumnRule(name=goal.name, type=goal.format, kind=goal.kind)
        rules[unicodedata.normalize("NFC", pair.column)] = rule
    return Plan(format=Format.TSV, target=Target.PROFILES, mode=mode, columns=rules, mapped=True, limits=limits)


def header_problem(name: str) -> str | None:
    """Say what is wrong with a column's name in a data source's file, or None (S53, S54, D11, D12)."""
    if problem := name_problem(name):
        return problem
    if name != name.strip():
        return "begins or ends with a space; let nothing but a tab stand between two columns"
    if "-" in name or any(char.isspace() for char in name):
        return "has a space or '-' between two words; join them with '_'"
    return None
