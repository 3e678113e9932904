"""Notices as the document has them: what is posted to an account's webhooks, and when (S129 to S136)."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel

from ingestd.api.examples import EXAMPLES
from ingestd.domain.notice import NoticeType

_TEXT: Final = {"type": "string"}
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
_TOLD: Final = {
    NoticeType.INGESTION_SCHEDULED: "A manifest was accepted",
    NoticeType.INGESTION_PICKED_UP: "Processing has begun",
    NoticeType.INGESTION_COMPLETED: "An ingestion is done; rejected rows are in its error file",
    NoticeType.INGESTION_FAILED: "A manifest or file was refused, or not one row was applied",
    NoticeType.INGESTION_CANCELLED: "An ingestion was cancelled, and nothing was applied",
    NoticeType.INGESTION_HELD: "A refresh of a segment would remove many members: it waits to be confirmed",
    NoticeType.WEBHOOK_TEST: "A webhook is tested",
}
"""What is told at present; a webhook may be made for the other types already."""

_EXAMPLES: Final = {
    NoticeType.INGESTION_COMPLETED: EXAMPLES["ingestions_get"],
    NoticeType.WEBHOOK_TEST: EXAMPLES["webhooks_test"]["data"],
}


class Truncated(BaseModel):
    """In the place of data that would make an event larger than 20 kB: GET it by its id."""

    id: str
    truncated: Literal[True]


class TestedWebhook(BaseModel):
    """The webhook that is tested."""

    id: str


def schemas() -> dict[str, Any]:
    """The schemas that only events use, by their names."""
    return {model.__name__: model.model_json_schema(mode="serialization") for model in (Truncated, TestedWebhook)}


def described() -> dict[str, Any]:
    """The `webhooks` of the document: an operation for each event, which the receiver implements."""
    return {kind.value: {"post": _operation(kind, when)} for kind, when in _TOLD.items()}


def _operation(kind: NoticeType, when: str) -> dict[str, Any]:
    data = ["TestedWebhook"] if kind is NoticeType.WEBHOOK_TEST else ["IngestionView", "Truncated"]
    choices = [{"$ref": f"#/components/schemas/{name}"} for name in data]
    body = {
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"type": "string", "const": kind.value},
            "timestamp": {"type": "string", "format": "date-time", "description": "When it happened."},
            "data": choices[0] if len(choices) == 1 else {"anyOf": choices},
        },
    }
    content: dict[str, Any] = {"schema": body}
    if kind in _EXAMPLES:
        at = EXAMPLES["ingestions_get"]["finished_at"]
        content["example"] = {"type": kind.value, "timestamp": at, "data": _EXAMPLES[kind]}
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
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": _ANSWERS,
    }
