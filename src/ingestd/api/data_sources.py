"""Data sources: where tables of people come from (S56, S57)."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query, Response
from pydantic import Field, with_config
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import TypedDict

from ingestd.api import audit
from ingestd.api.context import Caller, Reading, Scope, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import DataSourceId
from ingestd.api.model import STRICT, In, Out, Stem
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.errors import Conflict
from ingestd.domain.ids import Prefix
from ingestd.domain.moment import Moment
from ingestd.store import accounts, data_sources
from ingestd.store.data_sources import DataSource
from ingestd.store.engine import new_id, utc_now

router = Router(prefix="/v1/data-sources", tags=["Data sources"])

SourceName = Annotated[
    Stem,
    Field(
        description="Files fetched for it are called `<name>__<any suffix>.tsv`, so it has no `__`.", examples=["crm"]
    ),
]
Description = Annotated[str, Field(max_length=2000)]


class DataSourceIn(In):
    """A new data source; the documents also say "category"."""

    name: SourceName
    description: Description = ""


@with_config(STRICT)
class DataSourcePatch(TypedDict, total=False):
    """A change of a data source; null in `description` empties it."""

    name: SourceName
    description: Description | None


class DataSourceOut(Out):
    """A data source; `mapping_version` is that of its present mapping, null before the first."""

    name: str
    description: str
    mapping_version: int | None
    webhooks: list[str]
    created_at: Moment


class DataSourcePage(Page[DataSourceOut]):
    """Data sources."""


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
    source.description = body.get("description", source.description) or ""
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


async def _refuse_name(tx: AsyncSession, account_id: UUID, name: str) -> None:
    if await data_sources.find(tx, account_id, name):
        raise Conflict("The account has a data source of this name.", code="data_source_exists")
