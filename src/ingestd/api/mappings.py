"""The mappings of data sources: what the columns of their files mean, and what they may mean (S58 to S64)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Final
from uuid import UUID

from pydantic import BaseModel, Field, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from ingestd.api import audit
from ingestd.api.attributes import AttributeIn
from ingestd.api.attributes import shown as shown_attribute
from ingestd.api.context import Caller, Parts, Principal, Reading, Scope, Service, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import DataSourceId
from ingestd.api.model import In
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.column import MAX_NAME_LENGTH, DataType
from ingestd.domain.data_source import BUILT_IN, goal_of
from ingestd.domain.errors import Invalid, NotFound
from ingestd.domain.ids import Prefix
from ingestd.domain.ingestion import ActorView
from ingestd.domain.moment import Moment
from ingestd.domain.suggestion import earlier_goals, suggest
from ingestd.ingest.attributes import goals
from ingestd.ingest.mapping import Column, write
from ingestd.store import accounts, data_sources
from ingestd.store.data_sources import Mapping
from ingestd.store.engine import utc_now

router = Router(prefix="/v1/data-sources", tags=["Data sources"])

HeaderName = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH, examples=["crmid"])]


ALL_HAVE: Final = [str(name) for name in dict.fromkeys(goal.name for goal in BUILT_IN.values())]
"""The identifiers and preferences that every account has."""


class ColumnIn(In):
    """A column and its goal: an attribute by name, an identifier or preference that all have, or a new attribute."""

    column: Annotated[HeaderName, Field(description="Its header in the file.")]
    attribute: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=MAX_NAME_LENGTH,
            description=f"The name of an attribute, or what every account has, in any case: {', '.join(ALL_HAVE)}.",
            examples=ALL_HAVE,
        ),
    ] = None
    new_attribute: AttributeIn | None = None
    pii: Annotated[bool, Field(description="Marks the attribute as personal, for good (S61).")] = False

    @model_validator(mode="after")
    def _one_goal(self) -> ColumnIn:
        if (self.attribute is None) == (self.new_attribute is None):
            raise ValueError("give 'attribute' or 'new_attribute', one of them")
        return self

    def wanted(self) -> Column:
        """The column as it is to be mapped."""
        new = None if self.new_attribute is None else self.new_attribute.new()
        return Column(self.column, self.attribute, new, self.pii)


Columns = Annotated[list[ColumnIn], Field(min_length=1, max_length=2000)]


class MappingIn(In):
    """A mapping: its columns, or the data source whose present mapping is copied."""

    columns: Columns | None = None
    copy_of: DataSourceId | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> MappingIn:
        if (self.columns is None) == (self.copy_of is None):
            raise ValueError("give 'columns' or 'copy_of', one of them")
        return self


class ColumnOut(BaseModel):
    """A column, and what its cells become."""

    column: str
    attribute: str
    format: DataType
    identifier: bool
    pii: bool


class MappingOut(BaseModel):
    """A version of a data source's mapping; columns of a file that it does not name are not read."""

    data_source_id: str
    version: int
    columns: list[ColumnOut]
    created_by: ActorView
    created_at: Moment


class MappingSuggestIn(In):
    """The headers of a file that is to be mapped."""

    columns: Annotated[list[HeaderName], Field(min_length=1, max_length=2000)]


class SuggestionOut(BaseModel):
    """What a column may be mapped to, and how probable that is."""

    column: str
    attribute: str
    score: float = Field(ge=0, le=1)


class MappingSuggestOut(BaseModel):
    """Suggestions, the best first; a column that is like nothing has none."""

    data: list[SuggestionOut]


async def shown_mapping(tx: AsyncSession, account_id: UUID, mapping: Mapping) -> MappingOut:
    """A mapping with what its attributes are now."""
    known = await goals(tx, account_id)
    found = [(pair, goal_of(pair.attribute, known)) for pair in mapping.pairs]
    return MappingOut(
        data_source_id=ids.show(Prefix.DATA_SOURCE, mapping.data_source_id),
        version=mapping.version,
        columns=[
            ColumnOut(
                column=pair.column,
                attribute=pair.attribute,
                format=goal.format,
                identifier=goal.kind is not None,
                pii=goal.pii,
            )
            for pair, goal in found
            if goal is not None
        ],
        created_by=ActorView.model_validate(mapping.created_by),
        created_at=mapping.created_at,
    )


@router.get(
    "/{data_source_id}/mapping",
    operation_id="data_sources_mapping_get",
    summary="Show a mapping",
    dependencies=[needs(Scope.DATA_SOURCES_READ)],
)
async def get_mapping(data_source_id: DataSourceId, tx: Reading, caller: Caller) -> MappingOut:
    """The present mapping of a data source; 404 before the first."""
    source = await data_sources.get(tx, caller.account_id, data_source_id)
    mapping = await data_sources.mapping(tx, source)
    if mapping is None:
        raise NotFound("The data source has no mapping yet.")
    return await shown_mapping(tx, caller.account_id, mapping)


@router.put(
    "/{data_source_id}/mapping",
    operation_id="data_sources_mapping_put",
    summary="Write a mapping",
    dependencies=[needs(Scope.DATA_SOURCES_WRITE)],
)
async def put_mapping(
    data_source_id: DataSourceId, body: MappingIn, tx: Tx, service: Service, caller: Caller, match: IfMatch
) -> MappingOut:
    """Map columns to attributes, as a new version; attributes can be made on the way.

    An ingestion keeps the mapping that it was submitted with.
    """
    columns = [each.wanted() for each in body.columns or ()]
    if body.copy_of is not None:
        columns = await _copied(tx, caller.account_id, body.copy_of)
    return await written(tx, service, caller, data_source_id, columns, at="/body/columns", check=match.check)


async def written(  # noqa: PLR0913 -- a mapping, by whom, and how it was asked for
    tx: AsyncSession,
    service: Parts,
    caller: Principal,
    source_id: UUID,
    columns: Sequence[Column],
    *,
    at: str,
    check: Callable[[MappingOut | None], None] = lambda _: None,
) -> MappingOut:
    """Write a mapping, which the present one is checked for, and into the trail what that has changed."""
    await accounts.lock(tx, caller.account_id)
    source = await data_sources.get(tx, caller.account_id, source_id, lock=True)
    present = await data_sources.mapping(tx, source)
    before = None if present is None else await shown_mapping(tx, caller.account_id, present)
    check(before)
    done = await write(tx, service.intake.jobs, source, columns, at=at, actor=caller.actor, now=utc_now())
    after = await shown_mapping(tx, caller.account_id, done.mapping)
    for attribute in map(shown_attribute, done.made):
        audit.note(tx, caller, "attribute.created", attribute.id, after=attribute)
    audit.note(tx, caller, "mapping.written", after.data_source_id, before=before, after=after)
    return after


@router.post(
    "/{data_source_id}/mapping/suggest",
    operation_id="data_sources_mapping_suggest",
    summary="Suggest a mapping",
    dependencies=[needs(Scope.DATA_SOURCES_READ)],
)
async def suggest_mapping(
    data_source_id: DataSourceId, body: MappingSuggestIn, tx: Reading, caller: Caller
) -> MappingSuggestOut:
    """Suggest what columns may be mapped to, by their names and by what was mapped before; nothing is changed."""
    await data_sources.get(tx, caller.account_id, data_source_id)
    return MappingSuggestOut(data=await suggestions(tx, caller.account_id, dict.fromkeys(body.columns)))


async def suggestions(tx: AsyncSession, account_id: UUID, columns: dict[str, DataType | None]) -> list[SuggestionOut]:
    """What the columns of a file, with the formats of their cells where known, may be mapped to."""
    before = [
        [(pair.column, pair.attribute) for pair in each.pairs] for each in await data_sources.mappings(tx, account_id)
    ]
    found = await asyncio.to_thread(suggest, columns, await goals(tx, account_id), earlier_goals(before))
    return [SuggestionOut(column=each.column, attribute=each.attribute, score=each.score) for each in found]


async def _copied(tx: AsyncSession, account_id: UUID, source_id: UUID) -> list[Column]:
    mapping = await data_sources.mapping(tx, await data_sources.get(tx, account_id, source_id))
    if mapping is None:
        raise Invalid("The data source to copy from has no mapping yet.", code="mapping_missing")
    return [Column(pair.column, pair.attribute) for pair in mapping.pairs]
