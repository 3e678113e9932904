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
    goals = [*attributes.values(), *{goal.name: goal for goal in BUILT_IN.values()}.values()]
    found = [
        Suggestion(column, goal.name, score)
        for column, format_ in columns.items()
        for goal in goals
        if (score := _score(column, format_, goal, earlier)) >= LEAST
    ]
    best: list[Suggestion] = []
    for each in sorted(found, key=lambda each: -each.score):
        if each.column not in {one.column for one in best} and each.attribute not in {one.attribute for one in best}:
            best.append(each)
    return best


def _score(column: str, format_: DataType | None, goal: Goal, earlier: Mapping[str, str]) -> float:
    if earlier.get(column) == goal.name:
        return MAPPED_BEFORE
    one, other = _plain(column), _plain(goal.name)
    if one == other:
        score = 1.0
    elif one in _SYNONYMS.get(goal.name, ()):
        score = SYNONYM
    else:
        score = 0.9 * SequenceMatcher(None, one, other).ratio()
    return round(score if _fits(format_, goal.format) else score / 2, 2)


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
