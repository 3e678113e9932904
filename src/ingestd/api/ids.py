"""Ids as routes take them: such a parameter or field is a UUID.

What is no id of the kind names nothing in a path (404), and is a wrong value elsewhere (422).
"""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError
from starlette.convertors import StringConvertor, register_url_convertor

from ingestd.domain import ids
from ingestd.domain.errors import NotFound
from ingestd.domain.ids import Prefix

_FORM: Final = "[0-7][0-9a-hjkmnp-tv-z]{25}"


class _IdInPath(StringConvertor):
    """`{file_id:id}` in a path: what has the form of an id, so that no word beside it is taken for one."""

    regex = f"[a-z]+_{_FORM}"


register_url_convertor("id", _IdInPath())

_EXAMPLE = "01k9c3v0g8e5wr6q4x2n7m1hzt"

NO_ID: Final = "no_id"
"""The kind of error that says so."""


def _reads(prefix: Prefix) -> BeforeValidator:
    def read(text: Any) -> UUID:
        if not isinstance(text, str):
            raise ValueError("is not an id")  # noqa: TRY004 -- pydantic wants a ValueError
        try:
            return ids.read(prefix, text)
        except NotFound:
            raise PydanticCustomError(
                NO_ID, "is not an id such as {example}", {"example": f"{prefix}_{_EXAMPLE}"}
            ) from None

    return BeforeValidator(read)


def _schema(prefix: Prefix) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^{prefix}_{_FORM}$",
            "examples": [f"{prefix}_{_EXAMPLE}"],
        }
    )


AccountId = Annotated[UUID, _reads(Prefix.ACCOUNT), _schema(Prefix.ACCOUNT)]
ApiKeyId = Annotated[UUID, _reads(Prefix.API_KEY), _schema(Prefix.API_KEY)]
ConnectionId = Annotated[UUID, _reads(Prefix.CONNECTION), _schema(Prefix.CONNECTION)]
ImportKeyId = Annotated[UUID, _reads(Prefix.IMPORT_KEY), _schema(Prefix.IMPORT_KEY)]
FileId = Annotated[UUID, _reads(Prefix.FILE), _schema(Prefix.FILE)]
ManifestId = Annotated[UUID, _reads(Prefix.MANIFEST), _schema(Prefix.MANIFEST)]
IngestionId = Annotated[UUID, _reads(Prefix.INGESTION), _schema(Prefix.INGESTION)]
ProfileId = Annotated[UUID, _reads(Prefix.PROFILE), _schema(Prefix.PROFILE)]
WebhookId = Annotated[UUID, _reads(Prefix.WEBHOOK), _schema(Prefix.WEBHOOK)]
DeliveryId = Annotated[UUID, _reads(Prefix.DELIVERY), _schema(Prefix.DELIVERY)]
RunId = Annotated[UUID, _reads(Prefix.RUN), _schema(Prefix.RUN)]
MessageId = Annotated[UUID, _reads(Prefix.MESSAGE), _schema(Prefix.MESSAGE)]
RecipientId = Annotated[UUID, _reads(Prefix.RECIPIENT), _schema(Prefix.RECIPIENT)]
DataSourceId = Annotated[UUID, _reads(Prefix.DATA_SOURCE), _schema(Prefix.DATA_SOURCE)]
AttributeId = Annotated[UUID, _reads(Prefix.ATTRIBUTE), _schema(Prefix.ATTRIBUTE)]
SegmentId = Annotated[UUID, _reads(Prefix.SEGMENT), _schema(Prefix.SEGMENT)]
PartitionId = Annotated[UUID, _reads(Prefix.PARTITION), _schema(Prefix.PARTITION)]
