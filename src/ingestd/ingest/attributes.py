"""Attributes are made and changed here, by themselves or in the flow of a mapping (S62 to S64)."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.domain.attribute import NewAttribute, new_attribute_problems, use_name
from ingestd.domain.column import DataType
from ingestd.domain.data_source import Goal
from ingestd.domain.errors import Conflict, Invalid, Problem
from ingestd.store import attributes
from ingestd.store.attributes import Attribute
from ingestd.store.engine import new_id


async def make(session: AsyncSession, account_id: UUID, new: NewAttribute, *, at: str, now: datetime) -> Attribute:
    """Make an attribute, or raise Invalid (its pointers begin with `at`) or Conflict; the caller holds the account."""
    new = replace(new, name=unicodedata.normalize("NFC", new.name))
    problems = new_attribute_problems(new)
    segment_name = use_name("/segment_name", new.name, new.segment_name, used=new.use_in_segments, problems=problems)
    macro_name = use_name("/macro_name", new.name, new.macro_name, used=new.use_as_macro, problems=problems)
    _refuse(problems, at)
    attribute = Attribute(
        id=new_id(),
        account_id=account_id,
        name=new.name,
        display_name=new.display_name,
        format=new.format,
        kind=await attributes.next_kind(session, account_id) if new.identifier else None,
        pii=new.pii,
        use_in_segments=new.use_in_segments,
        use_as_macro=new.use_as_macro,
        segment_name=segment_name,
        macro_name=macro_name,
        created_at=now,
    )
    await _refuse_clash(session, attribute)
    session.add(attribute)
    await session.flush()
    return attribute


async def use(session: AsyncSession, attribute: Attribute, *, segment_name: str | None, macro_name: str | None) -> None:
    """Set the names of an attribute for the uses that it is marked with, or raise Invalid or Conflict."""
    problems: list[Problem] = []
    used = attribute.use_in_segments, attribute.use_as_macro
    segment_name = use_name("/segment_name", attribute.name, segment_name, used=used[0], problems=problems)
    macro_name = use_name("/macro_name", attribute.name, macro_name, used=used[1], problems=problems)
    _refuse(problems, "/body")
    attribute.segment_name, attribute.macro_name = segment_name, macro_name
    with session.no_autoflush:
        await _refuse_clash(session, attribute)


def mark_pii(attribute: Attribute) -> None:
    """Mark an attribute's values as personal: for good (D13)."""
    attribute.pii = True


async def goals(session: AsyncSession, account_id: UUID) -> Mapping[str, Goal]:
    """What the account's attributes are to a mapping, by name."""
    return {
        each.name: Goal(each.name, DataType(each.format), each.kind, each.pii)
        for each in await attributes.all_of(session, account_id)
    }


def _refuse(problems: list[Problem], at: str) -> None:
    if problems:
        placed = tuple(replace(problem, pointer=at + problem.pointer) for problem in problems)
        raise Invalid("The attribute does not fit.", problems=placed)


async def _refuse_clash(session: AsyncSession, attribute: Attribute) -> None:
    """Raise Conflict where another attribute of the account has one of the names."""
    for field in ("name", "segment_name", "macro_name"):
        name = getattr(attribute, field)
        if name is not None and await attributes.is_taken(session, attribute, field):
            raise Conflict(f"Another attribute has the {field.replace('_', ' ')} {name!r}.", code="attribute_exists")
