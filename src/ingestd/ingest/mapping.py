"""The mapping of a data source is written here: a new version, with the attributes made on the way (S58 to S62)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.domain.attribute import NewAttribute
from ingestd.domain.data_source import Goal, Pair, goal_of, mapping_problems
from ingestd.domain.errors import Invalid, Problem
from ingestd.domain.submission import Actor
from ingestd.ingest.attributes import goals, make, mark_pii
from ingestd.ingest.engine import JobEngine
from ingestd.ingest.sealing import seal_what_is_marked
from ingestd.store import attributes, data_sources
from ingestd.store.attributes import Attribute
from ingestd.store.data_sources import DataSource
from ingestd.store.data_sources import Mapping as Version


@dataclass(frozen=True, slots=True)
class Column:
    """A column as it is to be mapped: to what has this name, or to an attribute that is made for it."""

    column: str
    attribute: str | None = None
    new: NewAttribute | None = None
    pii: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """A version of a mapping, and the attributes that were made for it."""

    mapping: Version
    made: Sequence[Attribute]


async def write(  # noqa: PLR0913 -- a mapping, by whom and when
    session: AsyncSession,
    jobs: JobEngine,
    source: DataSource,
    columns: Sequence[Column],
    *,
    at: str,
    actor: Actor,
    now: datetime,
) -> Written:
    """Give a data source a new version of its mapping, or raise Invalid with every problem, pointers beginning at `at`.

    The caller holds the account. Where nothing changed, the present version stays.
    """
    pairs, new = [], []
    for place, column in enumerate(columns):
        name = column.attribute
        if column.new is not None:
            made = await make(session, source.account_id, column.new, at=f"{at}/{place}/new_attribute", now=now)
            new.append(made)
            name = made.name
        assert name is not None
        pairs.append(Pair(column.column, name))
    known = await goals(session, source.account_id)
    problems = mapping_problems(pairs, known)
    problems += await _mark(session, source, columns, pairs, known)
    if problems:
        placed = tuple(replace(problem, pointer=at + problem.pointer) for problem in problems)
        raise Invalid("The mapping does not fit.", code="mapping_incorrect", problems=placed)
    await seal_what_is_marked(session, jobs, source.account_id)
    mapping = await _keep(session, source, [_settled(pair, known) for pair in pairs], actor=actor, now=now)
    return Written(mapping, new)


def _settled(pair: Pair, known: Mapping[str, Goal]) -> dict[str, str]:
    goal = goal_of(pair.attribute, known)
    assert goal is not None
    return {"column": pair.column, "attribute": goal.name}


async def _keep(
    session: AsyncSession, source: DataSource, columns: list[dict[str, str]], *, actor: Actor, now: datetime
) -> Version:
    present = await data_sources.mapping(session, source)
    if present is not None and present.columns == columns:
        return present
    mapping = Version(
        data_source_id=source.id,
        version=(source.mapping_version or 0) + 1,
        columns=columns,
        created_by=actor.shown(),
        created_at=now,
    )
    source.mapping_version = mapping.version
    session.add(mapping)
    await session.flush()
    return mapping


async def _mark(
    session: AsyncSession,
    source: DataSource,
    columns: Sequence[Column],
    pairs: Sequence[Pair],
    known: Mapping[str, Goal],
) -> list[Problem]:
    """Mark the attributes of columns that are said to be personal (S61); only an account's own can be marked."""
    problems = []
    wanted = {
        pair.attribute: place for place, (column, pair) in enumerate(zip(columns, pairs, strict=True)) if column.pii
    }
    if not wanted:
        return []
    own = {each.name: each for each in await attributes.all_of(session, source.account_id)}
    for name, place in wanted.items():
        if goal_of(name, known) is None:
            continue
        if name in own:
            mark_pii(own[name])
        else:
            detail = f"{name!r} is no attribute of the account's own; map the column to one that is, and mark that."
            problems.append(Problem(f"/{place}/pii", "not_markable", detail))
    return problems
