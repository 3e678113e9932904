"""What a dry run found: how many people and rows its file would touch, and some of each."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, Field

from ingestd.api.context import Caller, Scope, Service, needs
from ingestd.api.ids import IngestionId
from ingestd.api.rejects import RejectOut, some_rejects
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.errors import NotFound
from ingestd.domain.ids import Prefix
from ingestd.store import ingestion_views, ingestions

router = Router(prefix="/v1/ingestions", tags=["Ingestions"])

SAMPLE = 10


class PersonOut(BaseModel):
    """Somebody by the id of their profile, one to be made included; `row` is the first row that has them, if any."""

    row: int | None
    profile: str


class PeopleOut(BaseModel):
    """How many people, and some of them."""

    count: int
    sample: list[PersonOut]


class RowsOut(BaseModel):
    """How many rows, and the first of them."""

    count: int
    sample: list[RejectOut]


class DryRunOut(BaseModel):
    """What the file would do."""

    create: PeopleOut = Field(description="Nobody has a profile of them yet.")
    update: PeopleOut = Field(description="Something of them would change.")
    leave: PeopleOut = Field(description="They would stay as they are.")
    remove: PeopleOut = Field(description="They would be taken out of the data source.")
    reject: RowsOut = Field(description="Rows that break a rule.")


@router.get(
    "/{ingestion_id}/dry-run",
    operation_id="ingestions_dry_run",
    summary="Show what a dry run found",
    dependencies=[needs(Scope.INGESTIONS_READ)],
)
async def get_one(ingestion_id: IngestionId, service: Service, caller: Caller) -> DryRunOut:
    """What the file would do to people; 404 unless the ingestion is a dry run that has completed."""
    async with service.intake.sessions() as session:
        row = await ingestion_views.get(session, caller.account_id, ingestion_id)
        found = await ingestions.rehearsal(session, ingestion_id)
    if found is None:
        raise NotFound("The ingestion is no dry run that has completed.")
    counts, people = row.counts, found["people"]
    return DryRunOut(
        create=_people(counts["created"], people.get("create", [])),
        update=_people(counts["updated"], people.get("update", [])),
        leave=_people(counts["unchanged"], people.get("leave", [])),
        remove=_people(counts["removed"], [[None, each] for each in found["removed"]]),
        reject=RowsOut(count=counts["rejected"], sample=await some_rejects(service, row, SAMPLE)),
    )


def _people(count: int, sample: list[list[object]]) -> PeopleOut:
    shown = [PersonOut(row=row, profile=ids.show(Prefix.PROFILE, UUID(str(hex_)))) for row, hex_ in sample]
    return PeopleOut(count=count, sample=shown)
