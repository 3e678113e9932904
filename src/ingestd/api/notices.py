"""Notices as the document has them: what is posted to an account's webhooks, and when (S129 to S136)."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, TypeAdapter

from ingestd.api.examples import EXAMPLES
from ingestd.domain.connection import ConnectionView
from ingestd.domain.ingestion import IngestionView
from ingestd.domain.notice import DisabledWebhook, NoticeType, ReceivedFile, ToldSegment
from ingestd.domain.run import RunView

_TEXT: Final = {"type": "string"}
_REF: Final = "#/components/schemas/{model}"
_HEADERS: Final = {
    "webhook-id": "The event's id, the same whenever it is sent again: keep those you have handled.",
    "webhook-timestamp": "When this attempt was made, in Unix seconds.",
    "webhook-signature": "`v1,` and a base64 of HMAC-SHA256; one for each secret in force, with spaces between.",
    "ingestd-delivery": "The delivery's id.",
}
_ANSWERS: Final = {
    "2XX": {"description": "Taken. Anything else is tried again, for three days."},
    "410": {"description": "Not wanted any more: the webhook is disabled."},
}
TOLD: Final = {
    NoticeType.INGESTION_SCHEDULED: "A file waits for its turn: by a manifest, submitted, or fetched",
    NoticeType.INGESTION_PICKED_UP: "Processing has begun",
    NoticeType.INGESTION_DELAYED: "Processing takes longer than expected: after two hours, and then every two hours",
    NoticeType.INGESTION_COMPLETED: "An ingestion is done; rejected rows are in its error file",
    NoticeType.INGESTION_FAILED: "A manifest or file was refused, or not one row was applied",
    NoticeType.INGESTION_CANCELLED: "An ingestion was cancelled, and nothing was applied",
    NoticeType.INGESTION_HELD: "A refresh of a segment or data source would take many out: it waits to be confirmed",
    NoticeType.FILE_RECEIVED: "A file has come whole, or was given another name over SFTP",
    NoticeType.SEGMENT_CREATED: "A segment was made, as a draft",
    NoticeType.SEGMENT_ACTIVATED: "A segment was put into use, or its draft was published",
    NoticeType.SEGMENT_DEACTIVATED: "A segment was taken out of use",
    NoticeType.SEGMENT_REFRESHED: "A file's members are those of a segment now",
    NoticeType.RUN_SUCCEEDED: "A scheduled file was taken in, or has not changed",
    NoticeType.RUN_FAILED: "A scheduled file was not there, could not be fetched, or its ingestion failed",
    NoticeType.CONNECTION_HOST_KEY_CHANGED: "A server showed another key than those pinned: nothing is fetched from it",
    NoticeType.WEBHOOK_DISABLED: "Another webhook was gone, or took nothing for five days: it is sent nothing more",
    NoticeType.WEBHOOK_TEST: "A webhook is tested",
    NoticeType.RECIPIENT_INVITED: "Somebody was mailed a code to confirm their address with",
}
"""What is told, and when."""


class Truncated(BaseModel):
    """In the place of data that would make an event larger than 20 kB: GET it by its id."""

    id: str
    truncated: Literal[True]


class TestedWebhook(BaseModel):
    """The webhook that is tested."""

    id: str


class InvitedRecipient(BaseModel):
    """The recipient who is asked to confirm their address."""

    id: str


_OF_SEGMENTS: Final = (
    NoticeType.SEGMENT_CREATED,
    NoticeType.SEGMENT_ACTIVATED,
    NoticeType.SEGMENT_DEACTIVATED,
    NoticeType.SEGMENT_REFRESHED,
)
_DATA: Final[dict[NoticeType, type[BaseModel]]] = {
    NoticeType.FILE_RECEIVED: ReceivedFile,
    **dict.fromkeys(_OF_SEGMENTS, ToldSegment),
    NoticeType.RUN_SUCCEEDED: RunView,
    NoticeType.RUN_FAILED: RunView,
    NoticeType.CONNECTION_HOST_KEY_CHANGED: ConnectionView,
    NoticeType.WEBHOOK_DISABLED: DisabledWebhook,
    NoticeType.WEBHOOK_TEST: TestedWebhook,
    NoticeType.RECIPIENT_INVITED: InvitedRecipient,
}
"""What an event's data is, where it is not an ingestion."""

_BEGUN: Final = EXAMPLES["ingestions_get"] | {"status": "in_progress", "stage": "checking", "finished_at": None}
_ENDED_AT: Final = EXAMPLES["ingestions_get"]["finished_at"]
_EXAMPLES: Final[dict[NoticeType, Any]] = {
    NoticeType.INGESTION_SCHEDULED: _BEGUN | {"status": "scheduled", "stage": "queued", "started_at": None},
    NoticeType.INGESTION_PICKED_UP: _BEGUN,
    NoticeType.INGESTION_DELAYED: _BEGUN,
    NoticeType.INGESTION_COMPLETED: EXAMPLES["ingestions_get"],
    NoticeType.INGESTION_FAILED: EXAMPLES["ingestions_get"] | {"status": "failed"},
    NoticeType.INGESTION_CANCELLED: EXAMPLES["ingestions_get"] | {"status": "cancelled"},
    NoticeType.INGESTION_HELD: _BEGUN | {"stage": "held"},
    NoticeType.FILE_RECEIVED: {name: EXAMPLES["files_get"][name] for name in ReceivedFile.model_fields},
    **{kind: {name: EXAMPLES["segments_get"][name] for name in ToldSegment.model_fields} for kind in _OF_SEGMENTS},
    NoticeType.RUN_SUCCEEDED: EXAMPLES["runs_get"],
    NoticeType.RUN_FAILED: EXAMPLES["runs_get"],
    NoticeType.CONNECTION_HOST_KEY_CHANGED: EXAMPLES["connections_get"],
    NoticeType.WEBHOOK_DISABLED: {
        "id": EXAMPLES["webhooks_get"]["id"],
        "name": EXAMPLES["webhooks_get"]["name"],
        "disabled_reason": "failing",
        "failing_since": _ENDED_AT,
    },
    NoticeType.WEBHOOK_TEST: EXAMPLES["webhooks_test"]["data"],
    NoticeType.RECIPIENT_INVITED: {"id": EXAMPLES["recipients_get"]["id"]},
}


def schemas() -> dict[str, Any]:
    """The schemas that only events use, by their names."""
    models = (Truncated, TestedWebhook, InvitedRecipient, DisabledWebhook, ReceivedFile, ToldSegment)
    schemas = {model.__name__: model.model_json_schema(mode="serialization", ref_template=_REF) for model in models}
    for schema in schemas.values():
        schema.pop("$defs", None)  # what they refer to, resources have too
    return schemas


def described() -> dict[str, Any]:
    """The `webhooks` of the document: an operation for each event, which the receiver implements."""
    return {kind.value: {"post": _operation(kind, when)} for kind, when in TOLD.items()}


def example(kind: NoticeType) -> dict[str, Any]:
    """The body of an event, for example."""
    return {"type": kind.value, "timestamp": _ENDED_AT, "data": _EXAMPLES[kind]}


def schema(kind: NoticeType) -> dict[str, Any]:
    """The JSON Schema of an event's body, which needs no other document."""
    data = TypeAdapter(_choices(kind)).json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": data.pop("$defs", {}),
        **_body(kind, data),
    }


def _choices(kind: NoticeType) -> Any:
    return _DATA[kind] if kind in _DATA else IngestionView | Truncated


def _body(kind: NoticeType, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"type": "string", "const": kind.value},
            "timestamp": {"type": "string", "format": "date-time", "description": "When it happened."},
            "data": data,
        },
    }


def _operation(kind: NoticeType, when: str) -> dict[str, Any]:
    models = [_DATA[kind]] if kind in _DATA else [IngestionView, Truncated]
    choices = [{"$ref": f"#/components/schemas/{model.__name__}"} for model in models]
    body = _body(kind, choices[0] if len(choices) == 1 else {"anyOf": choices})
    return {
        "tags": ["Webhooks"],
        "operationId": f"on_{kind.value.replace('.', '_')}",
        "summary": when,
        "description": "Signed as [Standard Webhooks](https://www.standardwebhooks.com/) has it.",
        "security": [],
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": says, "schema": _TEXT}
            for name, says in _HEADERS.items()
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body, "example": example(kind)}}},
        "responses": _ANSWERS,
    }
