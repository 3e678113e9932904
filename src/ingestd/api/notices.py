"""Notices as the document has them: what is posted to an account's webhooks, and when (S129 to S136)."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, TypeAdapter

from ingestd.api.examples import EXAMPLES
from ingestd.domain.connection import ConnectionView, Kind, parse_host_key, view_of_key
from ingestd.domain.ingestion import (
    NO_PROGRESS,
    ActorView,
    Channel,
    Counts,
    HeldView,
    IngestionView,
    SegmentView,
    Stage,
    Status,
)
from ingestd.domain.notice import DisabledWebhook, NoticeType, ReceivedFile, ToldSegment
from ingestd.domain.plan import Mode, Target
from ingestd.domain.run import FetchedView, Outcome, Result, RunIngestionView, RunView
from ingestd.domain.segment import SegmentStatus
from ingestd.ingest.refusal import nothing_applied

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
    NoticeType.SEGMENT_CREATED: "A segment was made: as a draft, or in progress by an upload, whose people it gets",
    NoticeType.SEGMENT_ACTIVATED: "A segment was put into use, or its draft was published",
    NoticeType.SEGMENT_DEACTIVATED: "A segment was taken out of use",
    NoticeType.SEGMENT_REFRESHED: "A file has filled a segment, or who fits its condition has changed",
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


def _made(model: type[BaseModel], operation: str, **changed: Any) -> dict[str, Any]:
    """An operation's example as an event shows it, with what is otherwise there."""
    return model.model_validate(EXAMPLES[operation] | changed).model_dump(mode="json")


def _ingestion(**changed: Any) -> dict[str, Any]:
    return _made(IngestionView, "ingestions_get", **changed)


def _segment(status: SegmentStatus, **changed: Any) -> dict[str, Any]:
    return _made(ToldSegment, "segments_get", status=status, **changed)


_ENDED_AT: Final = EXAMPLES["ingestions_get"]["finished_at"]
_OPEN: Final[dict[str, Any]] = {
    "status": Status.IN_PROGRESS,
    "stage": Stage.CHECKING,
    "progress": NO_PROGRESS,
    "counts": Counts(),
    "error_file": None,
    "finished_at": None,
}
_REJECTED: Final = Counts(read=2, rejected=2)
_EMPTY: Final[dict[str, Any]] = {"members": 0, "refreshed_at": None}
_OTHER_KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
_EXAMPLES: Final[dict[NoticeType, Any]] = {
    NoticeType.INGESTION_SCHEDULED: _ingestion(
        **_OPEN | {"status": Status.SCHEDULED, "stage": Stage.QUEUED, "started_at": None}
    ),
    NoticeType.INGESTION_PICKED_UP: _ingestion(**_OPEN),
    NoticeType.INGESTION_DELAYED: _ingestion(**_OPEN),
    NoticeType.INGESTION_COMPLETED: _ingestion(),
    NoticeType.INGESTION_FAILED: _ingestion(
        status=Status.FAILED,
        counts=_REJECTED,
        error=nothing_applied(_REJECTED),
        error_file=EXAMPLES["ingestions_get"]["error_file"] | {"rows": _REJECTED.rejected},
    ),
    NoticeType.INGESTION_CANCELLED: _ingestion(
        **_OPEN | {"status": Status.CANCELLED, "stage": Stage.DONE, "finished_at": _ENDED_AT}
    ),
    NoticeType.INGESTION_HELD: _ingestion(
        **_OPEN | {"stage": Stage.HELD},
        channel=Channel.UPLOAD,
        uploaded_by=ActorView(type="api_key", id=EXAMPLES["me_get"]["key_id"], name=EXAMPLES["me_get"]["key_name"]),
        target=Target.SEGMENT,
        mode=Mode.REPLACE,
        manifest=None,
        segment=SegmentView(id=EXAMPLES["segments_get"]["id"], name=EXAMPLES["segments_get"]["name"]),
        held=HeldView(leaving=60, of=100),
    ),
    NoticeType.FILE_RECEIVED: _made(ReceivedFile, "files_get"),
    NoticeType.SEGMENT_CREATED: _segment(SegmentStatus.DRAFT, **_EMPTY),
    NoticeType.SEGMENT_ACTIVATED: _segment(SegmentStatus.IN_PROGRESS, **_EMPTY),
    NoticeType.SEGMENT_DEACTIVATED: _segment(SegmentStatus.INACTIVE),
    NoticeType.SEGMENT_REFRESHED: _segment(SegmentStatus.ACTIVE),
    NoticeType.RUN_SUCCEEDED: _made(
        RunView,
        "runs_get",
        outcome=Outcome.SUCCEEDED,
        result=Result.INGESTED,
        file=FetchedView(name="loyalty__1.csv", size_bytes=25, modified_at=EXAMPLES["files_get"]["received_at"]),
        why="The only file named loyalty__….csv.",
        data_as_of=EXAMPLES["files_get"]["received_at"],
        ingestion=RunIngestionView(id=EXAMPLES["ingestions_get"]["id"], status=Status.COMPLETED),
        counts=EXAMPLES["ingestions_get"]["counts"],
        error=None,
    ),
    NoticeType.RUN_FAILED: _made(RunView, "runs_get"),
    NoticeType.CONNECTION_HOST_KEY_CHANGED: _made(
        ConnectionView,
        "connections_get",
        changed_host_key=view_of_key(parse_host_key(_OTHER_KEY, Kind.SFTP)),
        host_key_changed_at=_ENDED_AT,
    ),
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
