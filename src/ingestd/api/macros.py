"""Macros: what messages can be personalised with (S63, S64)."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from pydantic import BaseModel

from ingestd.api.context import Caller, Reading, Scope, needs
from ingestd.api.pages import Asked, Page, listing
from ingestd.api.routes import Router
from ingestd.domain import ids
from ingestd.domain.column import DataType
from ingestd.domain.ids import Prefix
from ingestd.store import attributes
from ingestd.store.attributes import Attribute

router = Router(prefix="/v1/macros", tags=["Attributes"])


class MacroOut(BaseModel):
    """A macro: what stands in a message for a person's value of an attribute."""

    name: str
    attribute: str
    attribute_id: str
    display_name: str
    format: DataType


class MacroPage(Page[MacroOut]):
    """Macros."""


def _shown(attribute: Attribute) -> MacroOut:
    return MacroOut(
        name=attribute.macro_name,
        attribute=attribute.name,
        attribute_id=ids.show(Prefix.ATTRIBUTE, attribute.id),
        display_name=attribute.display_name,
        format=DataType(attribute.format),
    )


@router.get("", operation_id="macros_list", summary="List macros", dependencies=[needs(Scope.DATA_SOURCES_READ)])
async def list_all(
    tx: Reading, caller: Caller, asked: Annotated[Asked, Depends(listing(attributes.MACROS, "macro_name"))]
) -> MacroPage:
    """What messages can be personalised with: the attributes marked "use as macro", by their macro's name."""
    found = await attributes.page(tx, caller.account_id, asked.cut, macros=True)
    return asked.page(MacroPage, found, _shown)
