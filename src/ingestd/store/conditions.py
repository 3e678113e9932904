"""Conditions as SQL over the profiles: whether somebody fits, and how many do (D41, S140).

Values are bound parameters, never pieces of a statement (T118).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Numeric,
    String,
    and_,
    any_,
    case,
    cast,
    column,
    false,
    func,
    literal,
    not_,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.domain.column import DataType
from ingestd.domain.condition import EQUALITY, All, AnyOf, Condition, Meaning, Not, Operator, Test, stored
from ingestd.domain.identity import kind_word
from ingestd.domain.personal import SEALED, canonical_of, identifier_place
from ingestd.keyring import AccountKeys
from ingestd.store.attributes import Attribute
from ingestd.store.profiles import Profile

Meanings = Mapping[str, Meaning]


def meanings_of(connection: Connection, account_id: UUID) -> dict[str, Meaning]:
    """The account's attributes by each name that they go by in conditions."""
    found = connection.execute(
        select(
            Attribute.name,
            Attribute.segment_name,
            Attribute.format,
            Attribute.kind,
            Attribute.pii,
            Attribute.use_in_segments,
        ).where(Attribute.account_id == account_id)
    ).all()
    meanings = [(row, Meaning(row.name, DataType(row.format), row.kind, row.pii, row.use_in_segments)) for row in found]
    by_segment_name = {row.segment_name: meaning for row, meaning in meanings if row.segment_name}
    return by_segment_name | {row.name: meaning for row, meaning in meanings}


def matches(condition: Condition, meanings: Meanings, keys: AccountKeys) -> ColumnElement[bool]:
    """A condition as an expression over `profiles`, true or false for each row, never null."""
    match condition:
        case All(all=parts):
            return and_(*(matches(part, meanings, keys) for part in parts))
        case AnyOf(any=parts):
            return or_(*(matches(part, meanings, keys) for part in parts))
        case Not(negated=part):
            return not_(matches(part, meanings, keys))
    meaning = meanings.get(condition.attribute)
    if meaning is None or (meaning.personal and condition.op not in EQUALITY):
        return false()  # it was deleted, or marked as personal, since
    return func.coalesce(_compared(condition, meaning, keys), false())


def _compared(test: Test, meaning: Meaning, keys: AccountKeys) -> ColumnElement[Any]:
    word = None if meaning.kind is None else kind_word(meaning.kind)
    written = Profile.attributes[meaning.name] if word is None else Profile.identifiers[word]
    values = [stored(value, meaning.format) for value in test.values]
    if test.op is Operator.EXISTS:
        return written.is_not(None)
    found = cast(written, JSONB)
    if test.op is Operator.CONTAINS:
        return _contains(found, values[0])
    if test.op in EQUALITY:
        if meaning.personal:
            place = meaning.name if word is None else identifier_place(word)
            # What is stored may not be sealed yet, or by an older key.
            values += [{SEALED: token} for value in values for token in keys.tokens(place, canonical_of(value))]
        return _equals_any(found, values)
    if meaning.format is DataType.DATE:
        number: ColumnElement[Any] = cast(found["$D"].astext, BigInteger)
        values = [value["$D"] for value in values]
    else:
        number = case((func.jsonb_typeof(found) == "number", cast(written.astext, Numeric)))
    return _ordered[test.op](number, *values)


_ordered: Final[Mapping[Operator, Callable[..., ColumnElement[Any]]]] = {
    Operator.GREATER: lambda number, bound: number > bound,
    Operator.LESS: lambda number, bound: number < bound,
    Operator.BETWEEN: lambda number, low, high: number.between(low, high),
}


def _equals_any(found: ColumnElement[Any], values: list[Any]) -> ColumnElement[Any]:
    """One look for all values, which PostgreSQL hashes: one for each makes long lists slow."""
    in_list = or_(false(), *(found.bool_op("@>")(literal([value], JSONB)) for value in values))
    one_of = found == any_(literal(values, ARRAY(JSONB)))
    return case((func.jsonb_typeof(found) == "array", in_list), else_=one_of)


def _contains(found: ColumnElement[Any], words: str) -> ColumnElement[Any]:
    as_list = case((func.jsonb_typeof(found) == "array", found), else_=func.jsonb_build_array(found))
    each = func.jsonb_array_elements_text(as_list).table_valued(column("value", String))
    return select(literal(1)).select_from(each).where(func.strpos(each.c.value, words) > 0).exists()


async def count(session: AsyncSession, account_id: UUID, expression: ColumnElement[bool]) -> int:
    """How many people of the account an expression of `matches` is true for."""
    found = select(func.count()).select_from(Profile).where(Profile.account_id == account_id, expression)
    return await session.scalar(found) or 0
