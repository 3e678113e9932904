"""Conditions of filter segments: who is in one, by the attributes that may be used in segments (D41, S140)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    TypeAdapter,
)

from ingestd.domain.column import DataType
from ingestd.domain.errors import Problem
from ingestd.domain.personal import MASK

MAX_TESTS: Final = 100

_TEXTS: Final = {DataType.STRING, DataType.EMAIL, DataType.PHONE}
_ORDERED: Final = {DataType.INTEGER, DataType.LONG, DataType.FLOAT, DataType.DATE}


class Operator(StrEnum):
    """How an attribute is compared; a list is equal to, or contains, what one of its values does."""

    EQUALS = "equals"
    IN = "in"
    CONTAINS = "contains"
    EXISTS = "exists"
    GREATER = "greater"
    LESS = "less"
    BETWEEN = "between"


EQUALITY: Final = frozenset({Operator.EQUALS, Operator.IN, Operator.EXISTS})
"""What can be asked of sealed values: nothing else is seen from their tokens."""

_ORDER: Final = frozenset({Operator.GREATER, Operator.LESS, Operator.BETWEEN})

Scalar = StrictBool | StrictInt | StrictFloat | Annotated[StrictStr, Field(max_length=1023)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Test(_Part):
    """One attribute, by its name or its name in segments, compared. `value` is a list for `in` and `between`.

    A DATE is compared with a moment in RFC 3339; `exists` takes no value.
    """

    attribute: Annotated[str, Field(min_length=1, max_length=120, examples=["AGE"])]
    op: Operator
    value: Scalar | Annotated[tuple[Scalar, ...], Field(max_length=100)] | None = None

    @property
    def values(self) -> tuple[Any, ...]:
        """The values compared with."""
        return self.value if isinstance(self.value, tuple) else () if self.value is None else (self.value,)


class All(_Part):
    """Each of these."""

    all: Annotated[tuple[Condition, ...], Field(min_length=1, max_length=50)]


class AnyOf(_Part):
    """One of these at least."""

    any: Annotated[tuple[Condition, ...], Field(min_length=1, max_length=50)]


class Not(_Part):
    """Not this."""

    negated: Annotated[Condition, Field(alias="not")]


def _kind(found: Any) -> str:
    """Which condition it is, or is to be, by its key: what is wrong is told of that one alone."""
    if isinstance(found, _Part):
        return type(found).__name__
    kinds = {"all": "All", "any": "AnyOf", "not": "Not"}
    return next((kinds[key] for key in kinds if isinstance(found, dict) and key in found), "Test")


Condition = Annotated[
    Annotated[Test, Tag("Test")]
    | Annotated[All, Tag("All")]
    | Annotated[AnyOf, Tag("AnyOf")]
    | Annotated[Not, Tag("Not")],
    Discriminator(_kind),
]

for _part in (All, AnyOf, Not):
    _part.model_rebuild()


_CONDITION: Final[TypeAdapter[Condition]] = TypeAdapter(Condition)


def written(condition: Condition) -> bytes:
    """A condition as JSON."""
    return _CONDITION.dump_json(condition, by_alias=True)


def read(text: bytes) -> Condition:
    """The condition that `written` wrote."""
    return _CONDITION.validate_json(text)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an attribute is to a condition: `kind` is set where it identifies people."""

    name: str
    format: DataType
    kind: int | None = None
    personal: bool = False
    usable: bool = True


def tests_of(condition: Condition) -> Iterator[Test]:
    """Every comparison in a condition."""
    match condition:
        case All(all=parts) | AnyOf(any=parts):
            for part in parts:
                yield from tests_of(part)
        case Not(negated=part):
            yield from tests_of(part)
        case Test():
            yield condition


def fits_nothing(condition: Condition) -> bool:
    """Whether somebody fits who has none of the attributes: `not` of a comparison is true of them."""
    match condition:
        case All(all=parts):
            return all(map(fits_nothing, parts))
        case AnyOf(any=parts):
            return any(map(fits_nothing, parts))
        case Not(negated=part):
            return not fits_nothing(part)
        case Test():
            return False


def by_name(condition: Condition, attributes: Mapping[str, Meaning]) -> Condition:
    """A condition without problems, each attribute by its own name: that in segments may become another's."""
    match condition:
        case All(all=parts):
            return All(all=tuple(by_name(part, attributes) for part in parts))
        case AnyOf(any=parts):
            return AnyOf(any=tuple(by_name(part, attributes) for part in parts))
        case Not(negated=part):
            return condition.model_copy(update={"negated": by_name(part, attributes)})
        case Test(attribute=name):
            return condition.model_copy(update={"attribute": attributes[name].name})


def condition_problems(condition: Condition, attributes: Mapping[str, Meaning], at: str) -> list[Problem]:
    """What is wrong with a condition; `attributes` are the account's, by each name that they go by."""
    tests = list(tests_of(condition))
    if len(tests) > MAX_TESTS:
        return [Problem(at, "too_many", f"A condition has {MAX_TESTS} comparisons at most.")]
    found = ((test, _problem(test, attributes.get(test.attribute))) for test in tests)
    return [Problem(at, "condition", f"{test.attribute!r}: {problem}") for test, problem in found if problem]


def _problem(test: Test, meaning: Meaning | None) -> str | None:
    """What is wrong with a comparison, or None."""
    if meaning is None:
        return "there is no such attribute."
    if not meaning.usable:
        return "the attribute is not marked 'use in segments'."
    if meaning.personal and MASK in test.values:
        return f"{MASK!r} stands for a personal value that is not shown; say the value itself."
    if meaning.personal and test.op not in EQUALITY:
        return "the attribute is personal, so its values are sealed: only equals, in and exists can be asked of it."
    if (test.op in _ORDER and meaning.format not in _ORDERED) or (
        test.op is Operator.CONTAINS and meaning.format not in _TEXTS
    ):
        return f"{test.op} cannot be asked of a {meaning.format}."
    return _value_problem(test, meaning.format)


def _value_problem(test: Test, format_: DataType) -> str | None:
    is_list, count = isinstance(test.value, tuple), len(test.values)
    wanted = {Operator.EXISTS: 0, Operator.BETWEEN: 2, Operator.IN: max(1, count)}.get(test.op, 1)
    if is_list != (test.op in {Operator.IN, Operator.BETWEEN}) or count != wanted:
        return "in takes a list, between a list of two, exists no value, and every other one value."
    try:
        for value in test.values:
            stored(value, format_)
    except ValueError:
        return f"the attribute's values are {format_}."
    return None


def stored(value: Any, format_: DataType) -> Any:
    """A value of a condition as values of the format are stored (D55), or ValueError."""
    kind = type(value)
    if format_ is DataType.DATE and kind is str:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("a moment without a time zone")
        return {"$D": int(moment.timestamp())}
    if format_ is DataType.FLOAT and kind in {int, float}:
        return float(value)
    fits = {DataType.INTEGER: int, DataType.LONG: int, DataType.BOOLEAN: bool}
    if format_ in {DataType.DATE, DataType.FLOAT} or kind is not fits.get(format_, str):
        raise ValueError("another type")
    return value
