"""Which attribute a column probably is: suggestions for a mapping, with scores (S58, S59)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from ingestd.domain.column import DataType
from ingestd.domain.data_source import BUILT_IN, Goal

MAPPED_BEFORE: Final = 0.95
SYNONYM: Final = 0.8
LEAST: Final = 0.6
"""What is less alike is not suggested."""

COMPARED: Final = 5_000_000
"""How many pairs of letters are compared at most, a second's work at worst; after that only equal names count."""

_LIKE: Final = 0.9
"""What names that are nearly equal count."""

_SYNONYMS: Final = {
    "identity": {"userid", "customerid", "uid", "user", "customer"},
    "external_id": {"externalid", "extid", "crmid"},
    "email": {"mail", "emailaddress", "emailid"},
    "mobile": {"phone", "phonenumber", "mobilenumber", "mobileno", "msisdn", "cell"},
}
_NUMBERS: Final = {DataType.INTEGER, DataType.LONG, DataType.FLOAT}


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a column may be mapped to; `score` is 1 where that is certain by its name."""

    column: str
    attribute: str
    score: float


def suggest(
    columns: Mapping[str, DataType | None], attributes: Mapping[str, Goal], earlier: Mapping[str, str]
) -> list[Suggestion]:
    """The best goal of each column that has one, no goal twice, best score first.

    `columns` gives the headers and the formats that their cells have, None where nobody looked; `earlier` is what the
    account's data sources have mapped headers to.
    """
    named = [*attributes.values(), *{goal.name: goal for goal in BUILT_IN.values()}.values()]
    goals = [(goal, _plain(goal.name)) for goal in named]
    found, left = [], COMPARED
    for column, format_ in columns.items():
        one = _plain(column)
        for goal, other in goals:
            score = _by_name(column, one, goal, other, earlier)
            if score == 0 and left > 0 and _LIKE * 2 * min(len(one), len(other)) >= LEAST * (len(one) + len(other)):
                left -= len(one) * len(other)
                score = _LIKE * SequenceMatcher(None, one, other).ratio()
            score = round(score if _fits(format_, goal.format) else score / 2, 2)
            if score >= LEAST:
                found.append(Suggestion(column, goal.name, score))
    best: list[Suggestion] = []
    taken: set[str] = set()
    given: set[str] = set()
    for each in sorted(found, key=lambda each: -each.score):
        if each.column not in given and each.attribute not in taken:
            best.append(each)
            given.add(each.column)
            taken.add(each.attribute)
    return best


def _by_name(column: str, one: str, goal: Goal, other: str, earlier: Mapping[str, str]) -> float:
    """How sure a goal is by what a column is called; 0 where that says nothing. `one` and `other` are plain names."""
    if earlier.get(column) == goal.name:
        return MAPPED_BEFORE
    if one == other:
        return 1.0
    return SYNONYM if one in _SYNONYMS.get(goal.name, ()) else 0


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _fits(found: DataType | None, wanted: DataType) -> bool:
    """Whether cells of one format can be values of another."""
    return found in {None, wanted} or wanted is DataType.STRING or {found, wanted} <= _NUMBERS


def earlier_goals(mappings: Iterable[Iterable[tuple[str, str]]]) -> dict[str, str]:
    """What headers were mapped to, the last mapping first."""
    found: dict[str, str] = {}
    for pairs in mappings:
        for column, attribute in pairs:
            found.setdefault(column, attribute)
    return found
