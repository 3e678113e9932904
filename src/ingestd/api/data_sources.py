"""Data sources and their mappings: where tables of people come from, and what their columns mean (S56 to S62)."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query, Response
from pydantic import BaseModel, Field, model_validator, with_config
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import TypedDict

from ingestd.api import audit
from ingestd.api.attributes import AttributeIn
from ingestd.api.context import Caller, Reading, Scope, Service, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import DataSourceId, IngestionId
from ingestd.api.model import STRICT, In, Name, Out
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.column import MAX_NAME_LENGTH, DataType
from ingestd.domain.data_source import goal_of
from ingestd.domain.errors import Conflict, Invalid, NotFound
from ingestd.domain.ids import Prefix
from ingestd.domain.ingestion import ActorView
from ingestd.domain.moment import Moment
from ingestd.domain.suggestion import earlier_goals, suggest
from ingestd.ingest.attributes import goals
from ingestd.ingest.mapping import Column, write
from ingestd.store import accounts, data_sources, ingestions, source_changes
from ingestd.store.data_sources import DataSource, Mapping
from ingestd.store.engine import new_id, utc_now
from ingestd.store.source_changes import Move

router = Router(prefix="/v1/data-sources", tags=["Data sources"])

Description = Annotated[str, Field(max_length=2000)]
HeaderName = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH, examples=["crmid"])]


class DataSourceIn(In):
    """A new data source; the documents also say "category"."""

    name: Name
    description: Description = ""


@with_config(STRICT)
class DataSourcePatch(TypedDict, total=False):
    """A change of a data source."""

    name: Name
    description: Description


class DataSourceOut(Out):
    """A data source; `mapping_version` is that of its present mapping, null before the first."""

    name: str
    description: str
    mapping_version: int | None
    webhooks: list[str]
    created_at: Moment


class DataSourcePage(Page[DataSourceOut]):
    """Data sources."""


class ColumnIn(In):
    """A column and its goal: an attribute by name, an identifier or preference that all have, or a new attribute."""

    column: Annotated[HeaderName, Field(description="Its header in the file.")]
    attribute: Annotated[str | None, Field(min_length=1, max_length=MAX_NAME_LENGTH, examples=["identity"])] = None
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


class MemberOut(BaseModel):
    """Somebody in a data source, by the id of their profile."""

    profile: str


class MemberPage(Page[MemberOut]):
    """Who is in a data source."""


class ChangeOut(BaseModel):
    """What an ingestion did to somebody in its data source."""

    profile: str
    change: Move


class ChangePage(Page[ChangeOut]):
    """Who entered, left or was changed; `ingestion` did it, null where there was none yet."""

    ingestion: str | None


def shown(source: DataSource) -> DataSourceOut:
    """A data source as the API shows it."""
    return DataSourceOut(
        id=ids.show(Prefix.DATA_SOURCE, source.id),
        name=source.name,
        description=source.description,
        mapping_version=source.mapping_version,
        webhooks=[ids.show(Prefix.WEBHOOK, each) for each in source.webhook_ids],
        created_at=source.created_at,
    )


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


@router.post(
    "",
    status_code=201,
    operation_id="data_sources_create",
    summary="Make a data source",
    dependencies=[needs(Scope.DATA_SOURCES_WRITE)],
)
async def create(body: DataSourceIn, tx: Tx, caller: Caller, response: Response) -> DataSourceOut:
    """Make a data source by name; 409 where the account has one of this name."""
    await accounts.lock(tx, caller.account_id)
    await _refuse_name(tx, caller.account_id, body.name)
    source = DataSource(
        id=new_id(),
        account_id=caller.account_id,
        name=body.name,
        description=body.description,
        mapping_version=None,
        webhook_ids=[],
        created_at=utc_now(),
    )
    tx.add(source)
    made = shown(source)
    audit.note(tx, caller, "data_source.created", made.id, after=made)
    response.headers["Location"] = f"{router.prefix}/{made.id}"
    return made


@router.get(
    "", operation_id="data_sources_list", summary="List data sources", dependencies=[needs(Scope.DATA_SOURCES_READ)]
)
async def list_all(
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(data_sources.SORTS, "name"))],
    q: Annotated[str | None, Query(description="With this in the name, in any case.", max_length=120)] = None,
) -> DataSourcePage:
    """The account's data sources, by name."""
    return asked.page(DataSourcePage, await data_sources.page(tx, caller.account_id, asked.cut, q=q), shown)


@router.get(
    "/{data_source_id}",
    operation_id="data_sources_get",
    summary="Show a data source",
    dependencies=[needs(Scope.DATA_SOURCES_READ)],
)
async def get_one(data_source_id: DataSourceId, tx: Reading, caller: Caller) -> DataSourceOut:
    """One data source."""
    return shown(await data_sources.get(tx, caller.account_id, data_source_id))


@router.patch(
    "/{data_source_id}",
    operation_id="data_sources_change",
    summary="Change a data source",
    dependencies=[needs(Scope.DATA_SOURCES_WRITE)],
)
async def change(
    data_source_id: DataSourceId, body: DataSourcePatch, tx: Tx, caller: Caller, match: IfMatch
) -> DataSourceOut:
    """Rename a data source, or describe it."""
    await accounts.lock(tx, caller.account_id)
    source = await data_sources.get(tx, caller.account_id, data_source_id, lock=True)
    before = shown(source)
    match.check(before)
    if body.get("name", source.name) != source.name:
        await _refuse_name(tx, caller.account_id, body["name"])
    source.name = body.get("name", source.name)
    source.description = body.get("description", source.description)
    return audit.changed(tx, caller, "data_source.changed", before, shown(source))


@router.delete(
    "/{data_source_id}",
    status_code=204,
    operation_id="data_sources_delete",
    summary="Delete a data source",
    dependencies=[needs(Scope.DATA_SOURCES_WRITE)],
)
async def delete(data_source_id: DataSourceId, tx: Tx, caller: Caller, match: IfMatch) -> None:
    """Delete a data source that nothing was ever uploaded for; 409 for any other: people's values stem from it."""
    await accounts.lock(tx, caller.account_id)  # as submitting does, which would refer to it
    source = await data_sources.get(tx, caller.account_id, data_source_id, lock=True)
    before = shown(source)
    match.check(before)
    if not await data_sources.remove(tx, source):
        raise Conflict("Files were uploaded for the data source, so values stem from it.", code="data_source_used")
    audit.note(tx, caller, "data_source.deleted", before.id, before=before)


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
    await accounts.lock(tx, caller.account_id)
    source = await data_sources.get(tx, caller.account_id, data_source_id, lock=True)
    present = await data_sources.mapping(tx, source)
    before = None if present is None else await shown_mapping(tx, caller.account_id, present)
    match.check(before)
    columns = [each.wanted() for each in body.columns or ()]
    if body.copy_of is not None:
        columns = await _copied(tx, caller.account_id, body.copy_of)
    mapping = await write(
        tx, service.intake.engine, source, columns, at="/body/columns", actor=caller.actor, now=utc_now()
    )
    after = await shown_mapping(tx, caller.account_id, mapping)
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
    found = suggest(columns, await goals(tx, account_id), earlier_goals(before))
    return [SuggestionOut(column=each.column, attribute=each.attribute, score=each.score) for each in found]


@router.get(
    "/{data_source_id}/members",
    operation_id="data_sources_members",
    summary="List who is in a data source",
    dependencies=[needs(Scope.PROFILES_READ)],
)
async def list_members(
    data_source_id: DataSourceId,
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(data_sources.MEMBERS, "profile"))],
) -> MemberPage:
    """The people whom the files of the data source brought, and whom none that replaced has taken out (S66)."""
    source = await data_sources.get(tx, caller.account_id, data_source_id)
    found = await data_sources.members(tx, source, asked.cut)
    return asked.page(MemberPage, found, lambda each: MemberOut(profile=ids.show(Prefix.PROFILE, each.profile_id)))


@router.get(
    "/{data_source_id}/changes",
    operation_id="data_sources_changes",
    summary="List what an ingestion changed",
    dependencies=[needs(Scope.PROFILES_READ)],
)
async def list_changes(
    data_source_id: DataSourceId,
    *,
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(source_changes.SORTS, "profile"))],
    ingestion: Annotated[IngestionId | None, Query(description="By this one; unsaid, the newest completed.")] = None,
    change: Annotated[list[Move] | None, Query(description="Only such changes.")] = None,
) -> ChangePage:
    """Who entered, left or was changed by one ingestion: the audience that it may trigger (S67).

    People who stayed as they were are not in it.
    """
    source = await data_sources.get(tx, caller.account_id, data_source_id)
    if ingestion is None:
        ingestion = await ingestions.last_of_source(tx, source.id)
    elif (await ingestions.row(tx, caller.account_id, ingestion)).data_source_id != source.id:
        raise NotFound("There is no such ingestion.")
    found = await source_changes.page(tx, caller.account_id, ingestion, asked.cut, change or ()) if ingestion else []
    return asked.page(
        ChangePage,
        found,
        lambda each: ChangeOut(profile=ids.show(Prefix.PROFILE, each.profile_id), change=Move(each.move)),
        ingestion=ingestion and ids.show(Prefix.INGESTION, ingestion),
    )


async def _copied(tx: AsyncSession, account_id: UUID, source_id: UUID) -> list[Column]:
    mapping = await data_sources.mapping(tx, await data_sources.get(tx, account_id, source_id))
    if mapping is None:
        raise Invalid("The data source to copy from has no mapping yet.", code="mapping_missing")
    return [Column(pair.column, pair.attribute) for pair in mapping.pairs]


async def _refuse_name(tx: AsyncSession, account_id: UUID, name: str) -> None:
    if await data_sources.find(tx, account_id, name):
        raise Conflict("The account has a data source of this name.", code="data_source_exists")
