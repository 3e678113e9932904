"""Attributes: names, formats and uses of what is known of people (S62 to S64)."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, Query, Response
from pydantic import Field, with_config
from typing_extensions import TypedDict

from ingestd.api import audit
from ingestd.api.context import Caller, Reading, Scope, Service, Tx, needs
from ingestd.api.etags import IfMatch
from ingestd.api.ids import AttributeId
from ingestd.api.model import STRICT, In, Name, Out
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.attribute import MAX_UPPER_SNAKE_LENGTH, UPPER_SNAKE, NewAttribute
from ingestd.domain.column import MAX_NAME_LENGTH, DataType
from ingestd.domain.errors import Conflict
from ingestd.domain.ids import Prefix
from ingestd.domain.moment import Moment
from ingestd.domain.segment import CHANNELS
from ingestd.ingest.attributes import make, mark_pii, use
from ingestd.ingest.filters import asked_of
from ingestd.ingest.sealing import seal_what_is_marked
from ingestd.store import accounts, attributes, data_sources
from ingestd.store.attributes import Attribute
from ingestd.store.engine import utc_now

router = Router(prefix="/v1/attributes", tags=["Attributes"])

UpperSnake = Annotated[
    Annotated[str, Field(max_length=MAX_UPPER_SNAKE_LENGTH, json_schema_extra={"pattern": f"^{UPPER_SNAKE}$"})] | None,
    Field(
        description="Capital letters, words joined by underscores; null: what follows from `name`.",
        examples=["SLOT_NUM"],
    ),
]
"""The pattern is the document's alone: a name that does not fit is answered with the form that would."""


class AttributeIn(In):
    """A new attribute. With `identifier` its values identify people: STRING, EMAIL or PHONE."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH, examples=["slot_num"])]
    display_name: Annotated[Name | None, Field(description="Null: the name.")] = None
    format: DataType = DataType.STRING
    identifier: bool = False
    pii: Annotated[bool, Field(description="Values are personal: masked without `profiles:read_pii`.")] = False
    use_in_segments: bool = False
    use_as_macro: bool = False
    segment_name: UpperSnake = None
    macro_name: UpperSnake = None

    def new(self) -> NewAttribute:
        """The attribute to be made."""
        return NewAttribute(**self.model_dump() | {"display_name": self.display_name or self.name})


@with_config(STRICT)
class AttributePatch(TypedDict, total=False):
    """A change of an attribute; name, format and identifier stay, and the mark `pii` is never taken off (D13)."""

    display_name: Name
    pii: Literal[True]
    use_in_segments: bool
    use_as_macro: bool
    segment_name: UpperSnake
    macro_name: UpperSnake


class AttributeOut(Out):
    """An attribute of people; `sealed_at` is when all values of a personal one were sealed, null before."""

    name: str
    display_name: str
    format: DataType
    identifier: bool
    pii: bool
    sealed_at: Moment | None
    use_in_segments: bool
    use_as_macro: bool
    segment_name: str | None
    macro_name: str | None
    channels: list[str]
    created_at: Moment


class AttributePage(Page[AttributeOut]):
    """Attributes."""


def shown(attribute: Attribute) -> AttributeOut:
    """An attribute as the API shows it."""
    return AttributeOut(
        id=ids.show(Prefix.ATTRIBUTE, attribute.id),
        name=attribute.name,
        display_name=attribute.display_name,
        format=DataType(attribute.format),
        identifier=attribute.kind is not None,
        pii=attribute.pii,
        sealed_at=attribute.sealed_at,
        use_in_segments=attribute.use_in_segments,
        use_as_macro=attribute.use_as_macro,
        segment_name=attribute.segment_name,
        macro_name=attribute.macro_name,
        channels=CHANNELS,
        created_at=attribute.created_at,
    )


@router.post(
    "",
    status_code=201,
    operation_id="attributes_create",
    summary="Make an attribute",
    dependencies=[needs(Scope.DATA_SOURCES_WRITE)],
)
async def create(body: AttributeIn, tx: Tx, service: Service, caller: Caller, response: Response) -> AttributeOut:
    """Make an attribute; a name for segments or macros that is not UPPER_SNAKE is refused with one that is."""
    await accounts.lock(tx, caller.account_id)
    made = shown(await make(tx, caller.account_id, body.new(), at="/body", now=utc_now()))
    await seal_what_is_marked(tx, service.intake.jobs, caller.account_id)
    audit.note(tx, caller, "attribute.created", made.id, after=made)
    response.headers["Location"] = f"{router.prefix}/{made.id}"
    return made


@router.get(
    "", operation_id="attributes_list", summary="List attributes", dependencies=[needs(Scope.DATA_SOURCES_READ)]
)
async def list_all(
    tx: Reading,
    caller: Caller,
    asked: Annotated[Asked, Depends(listing(attributes.SORTS, "name"))],
    use_in_segments: Annotated[bool | None, Query(description="Those that may, or may not, be used there.")] = None,
) -> AttributePage:
    """The account's attributes, by name."""
    found = await attributes.page(tx, caller.account_id, asked.cut, in_segments=use_in_segments)
    return asked.page(AttributePage, found, shown)


@router.get(
    "/{attribute_id}",
    operation_id="attributes_get",
    summary="Show an attribute",
    dependencies=[needs(Scope.DATA_SOURCES_READ)],
)
async def get_one(attribute_id: AttributeId, tx: Reading, caller: Caller) -> AttributeOut:
    """One attribute."""
    return shown(await attributes.get(tx, caller.account_id, attribute_id))


@router.patch(
    "/{attribute_id}",
    operation_id="attributes_change",
    summary="Change an attribute",
    dependencies=[needs(Scope.DATA_SOURCES_WRITE)],
)
async def change(
    attribute_id: AttributeId, body: AttributePatch, tx: Tx, service: Service, caller: Caller, match: IfMatch
) -> AttributeOut:
    """Change how an attribute is shown and what it is used for, or mark it as personal for good.

    Values that are stored when it is marked are masked at once, and sealed when the ingestions that were submitted
    before have ended: `sealed_at` says when that was done (D13).
    """
    await accounts.lock(tx, caller.account_id)
    attribute = await attributes.get(tx, caller.account_id, attribute_id, lock=True)
    before = shown(attribute)
    match.check(before)
    attribute.display_name = body.get("display_name", attribute.display_name)
    if "pii" in body:
        mark_pii(attribute)
        await seal_what_is_marked(tx, service.intake.jobs, caller.account_id)
    attribute.use_in_segments = body.get("use_in_segments", attribute.use_in_segments)
    attribute.use_as_macro = body.get("use_as_macro", attribute.use_as_macro)
    await use(
        tx,
        attribute,
        segment_name=body.get("segment_name", attribute.segment_name),
        macro_name=body.get("macro_name", attribute.macro_name),
    )
    return audit.changed(tx, caller, "attribute.changed", before, shown(attribute))


@router.delete(
    "/{attribute_id}",
    status_code=204,
    operation_id="attributes_delete",
    summary="Delete an attribute",
    dependencies=[needs(Scope.DATA_SOURCES_WRITE)],
)
async def delete(attribute_id: AttributeId, tx: Tx, service: Service, caller: Caller, match: IfMatch) -> None:
    """Delete an attribute that no mapping has ever named; 409 for any other, since people may have values of it.

    It is 409, too, where a segment's condition is over it, and for a personal one: manifest files bring values by its
    name, and the mark is never taken off (D13).
    """
    await accounts.lock(tx, caller.account_id)
    attribute = await attributes.get(tx, caller.account_id, attribute_id, lock=True)
    before = shown(attribute)
    match.check(before)
    if attribute.pii:
        raise Conflict("The attribute is personal, and stays so: files may bring it.", code="attribute_used")
    if await data_sources.mapped(tx, caller.account_id, attribute.name):
        raise Conflict("A mapping names the attribute, so people may have values of it.", code="attribute_used")
    if await asked_of(tx, await service.intake.keys(caller.account_id, tx), attribute):
        raise Conflict("The condition of a filter segment is over the attribute.", code="attribute_used")
    await tx.delete(attribute)
    audit.note(tx, caller, "attribute.deleted", before.id, before=before)
