"""Identifiers as callers give them and are shown them: those of people and those of the members of segments (D54)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Annotated, TypeVar
from uuid import UUID

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.api.context import Principal, Scope
from ingestd.api.model import In
from ingestd.domain.column import DataType
from ingestd.domain.identity import (
    FORMATS,
    KIND_OF_WORD,
    MAX_IDENTIFIER_LENGTH,
    REACHABLE,
    kind_word,
    normalise,
)
from ingestd.domain.personal import MASK
from ingestd.domain.segment import MEMBER_KINDS
from ingestd.pipeline.phones import e164
from ingestd.store import attributes
from ingestd.store.attributes import Attribute
from ingestd.store.profiles import identifier_hash

K = TypeVar("K")
V = TypeVar("V")


class Identifier(In):
    """One identifier of a person.

    A mobile number has its country code, with a `+` or without.
    """

    kind: Annotated[
        str,
        Field(
            description="identity (user_id), objectId, fbId, gpId, external_id, email, mobile, or an attribute's name.",
            min_length=1,
            max_length=120,
            examples=["user_id"],
        ),
    ]
    value: Annotated[str, Field(min_length=1, max_length=MAX_IDENTIFIER_LENGTH, examples=["ann"])]


Identifiers = Annotated[list[Identifier], Field(min_length=1, max_length=1000)]
"""As many as are looked up at once."""


Hashed = tuple[int, UUID]
"""The kind of an identifier, and its hash."""


def hashed(asked: Identifier, index_key: str, own: Mapping[str, Attribute]) -> list[Hashed]:
    """An identifier as (kind, hash); empty where it is none.

    `own` are the account's attributes that identify people, by name. Of an address whose domain is not in lower case
    there are two, the second as it stands: so it was stored before domains were brought to lower case.
    """
    word = asked.kind.casefold()
    if attribute := own.get(asked.kind):
        kind, format_ = attribute.kind, DataType(attribute.format)
    else:
        kind = MEMBER_KINDS.get(word) or KIND_OF_WORD.get(word)
        format_ = FORMATS.get(kind, DataType.STRING) if kind else DataType.STRING
    value, before = normalise(asked.value, format_), normalise(asked.value)
    if not kind or not value or not before:
        return []
    if format_ is DataType.PHONE:
        value = before = e164(f"+{value.removeprefix('+')}") or value
    return [(int(kind), identifier_hash(index_key, kind, each)) for each in dict.fromkeys((value, before))]


def first_of(hashes: Iterable[K], found: Mapping[K, V]) -> V | None:
    """What was found of one identifier, by whichever of its hashes."""
    return next((found[each] for each in hashes if each in found), None)


Show = Callable[[int, str], dict[str, str]]
"""Gives `kind` and `value` of a member as a caller sees them."""


async def showing(tx: AsyncSession, caller: Principal) -> Show:
    """How members are shown to a caller: values of personal attributes never, addresses and numbers to who may."""
    own = {each.kind: name for name, each in (await attributes.identifying(tx, caller.account_id)).items()}
    personal = await attributes.personal_names(tx, caller.account_id)
    may_read = caller.may(Scope.PROFILES_READ_PII)

    @cache  # once for each kind: members are shown by the million
    def named(kind: int) -> tuple[str, bool]:
        hidden = own.get(kind) in personal or (kind in REACHABLE and not may_read)
        return own.get(kind) or kind_word(kind), hidden

    def show(kind: int, value: str) -> dict[str, str]:
        name, hidden = named(kind)
        return {"kind": name, "value": MASK if hidden else value}

    return show
