"""Attributes: what is known of people, in which format, and what its values may be used for (S63, S64, D14)."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from ingestd.domain.column import OPERATION_SUFFIX, PREFERENCES, DataType, name_problem, operation_base
from ingestd.domain.errors import Problem
from ingestd.domain.identity import KIND_OF_WORD

IDENTIFYING_FORMATS: Final = (DataType.STRING, DataType.EMAIL, DataType.PHONE)
"""The formats that an attribute which identifies people can have: a number is written in too many ways."""

MAX_UPPER_SNAKE_LENGTH: Final = 120

UPPER_SNAKE: Final = "[A-Z][A-Z0-9]*(_[A-Z0-9]+)*"
"""The pattern of a segment's or a macro's name."""

_UPPER_SNAKE: Final = re.compile(UPPER_SNAKE)
_RESERVED: Final = {*KIND_OF_WORD, *PREFERENCES, "ts", "evtname"}


def is_upper_snake(name: str) -> bool:
    """Whether a segment's or a macro's name is in capitals, its words joined by underscores (S64)."""
    return len(name) <= MAX_UPPER_SNAKE_LENGTH and _UPPER_SNAKE.fullmatch(name) is not None


def upper_snake(text: str) -> str | None:
    """The name in capitals and underscores that a text stands for, or None where it has no such form (S64)."""
    plain = unicodedata.normalize("NFKD", text)
    words = re.findall(r"[A-Z0-9]+", re.sub(r"[^\x00-\x7f]", "", plain).upper())
    name = "_".join(words)
    return name if is_upper_snake(name) else None


def attribute_name_problem(name: str) -> str | None:
    """Say what is wrong with a new attribute's name, or None (D46); `name` is in NFC."""
    if problem := name_problem(name):
        return problem
    if name != name.strip():
        return "begins or ends with a space"
    if name.startswith("$") or operation_base(name) is not None:
        return f"begins with '$' or ends in {OPERATION_SUFFIX!r}"
    if name.casefold() in _RESERVED:
        return "is reserved: a column can be mapped to it without an attribute of that name"
    return None


@dataclass(frozen=True, slots=True)
class NewAttribute:
    """An attribute to be made. Names for segments and macros that are not given follow from `name` where needed."""

    name: str
    display_name: str
    format: DataType = DataType.STRING
    identifier: bool = False
    pii: bool = False
    use_in_segments: bool = False
    use_as_macro: bool = False
    segment_name: str | None = None
    macro_name: str | None = None


def new_attribute_problems(new: NewAttribute) -> list[Problem]:
    """What is wrong with an attribute to be made, but for its names in segments and macros; `name` is in NFC."""
    problems = []
    if problem := attribute_name_problem(new.name):
        problems.append(Problem("/name", "name", f"The name {problem}."))
    if new.identifier and new.format not in IDENTIFYING_FORMATS:
        words = ", ".join(IDENTIFYING_FORMATS)
        problems.append(Problem("/format", "format", f"An attribute that identifies people is one of {words}."))
    return problems


def use_name(place: str, name: str, given: str | None, *, used: bool, problems: list[Problem]) -> str | None:
    """The name of an attribute in segments or macros: the one given, or the one that follows from its own (S64).

    A given one that does not fit is a problem, which names the corrected form.
    """
    if given is not None and not is_upper_snake(given):
        fit = upper_snake(given)
        hint = f" Did you mean {fit}?" if fit else ""
        detail = f"Capital letters and digits, words joined by underscores; it begins with a letter.{hint}"
        problems.append(Problem(place, "upper_snake", detail))
    if not used:
        return None
    derived = given or upper_snake(name)
    if derived is None:
        problems.append(Problem(place, "upper_snake", f"No name in capitals follows from {name[:60]!r}: give one."))
    return derived
