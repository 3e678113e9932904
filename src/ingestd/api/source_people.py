"""Who is in a data source, and what an ingestion changed there (S66, S67)."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Query
from pydantic import BaseModel

from ingestd.api.context import Caller, Reading, Scope, Service, needs
from ingestd.api.ids import DataSourceId, IngestionId
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.problems import Refused
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.errors import NotFound
from ingestd.domain.ids import Prefix
from ingestd.store import data_sources, ingestions, source_changes
from ingestd.store.engine import moment_of, utc_now
from ingestd.store.source_changes import Move

router = Router(prefix="/v1/data-sources", tags=["Data sources"])


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
async def list_changes(  # noqa: PLR0913 -- what FastAPI fills in
    data_source_id: DataSourceId,
    *,
    tx: Reading,
    service: Service,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(source_changes.SORTS, "profile"))],
    ingestion: Annotated[IngestionId | None, Query(description="By this one; unsaid, the newest completed.")] = None,
    change: Annotated[list[Move] | None, Query(description="Only such changes.")] = None,
) -> ChangePage:
    """Who entered, left or was changed by one ingestion: the audience that it may trigger (S67).

    People who stayed as they were are not in it. It is kept for 90 days, unless the operator says otherwise; then the
    answer is 410.
    """
    source = await data_sources.get(tx, caller.account_id, data_source_id)
    if ingestion is None:
        ingestion = await ingestions.last_of_source(tx, source.id)
    elif (await ingestions.get(tx, caller.account_id, ingestion)).data_source_id != source.id:
        raise NotFound("There is no such ingestion.")
    if ingestion and moment_of(ingestion) < utc_now() - timedelta(days=service.retention.history_days):
        raise Refused("changes_expired")
    found = await source_changes.page(tx, caller.account_id, ingestion, asked.cut, change or ()) if ingestion else []
    return asked.page(
        ChangePage,
        found,
        lambda each: ChangeOut(profile=ids.show(Prefix.PROFILE, each.profile_id), change=Move(each.move)),
        ingestion=ingestion and ids.show(Prefix.INGESTION, ingestion),
    )
