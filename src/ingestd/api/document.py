"""The OpenAPI document: what FastAPI finds in the routes, and the conventions that all of them share."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI

from ingestd.api import idempotency, notices
from ingestd.api.catalogue import CATALOGUE, Entry
from ingestd.api.examples import EXAMPLES
from ingestd.api.problems import MEDIA_TYPE, ProblemDocument, urn

SERVERS: Final[list[dict[str, Any]]] = [{"url": "/", "description": "The service that gives this document."}]
LICENSE: Final = {"name": "Apache License 2.0", "identifier": "Apache-2.0"}
TAGS: Final = [
    {"name": "System", "description": "Health, version, and what a key may do."},
    {"name": "Accounts", "description": "Accounts and what they may do; most of it is the operator's."},
    {"name": "API keys", "description": "Keys to this API."},
    {"name": "Import keys", "description": "Keys to the SFTP server, and how to reach it."},
    {"name": "Recipients", "description": "The people of an account who may be written to, and the mail they got."},
    {"name": "Attributes", "description": "What is known of people: names, formats, and what a value may be used for."},
    {"name": "Data sources", "description": "Where tables of people come from, and what their columns mean."},
    {"name": "Connections", "description": "FTP and SFTP servers of others, from which files are fetched."},
    {"name": "Files", "description": "Data files, put over HTTP or SFTP."},
    {"name": "Manifests", "description": "What a file holds and how it is to be taken in."},
    {"name": "Ingestions", "description": "What became of a file: progress, counts, rejected rows."},
    {"name": "Profiles", "description": "The people that were taken in."},
    {"name": "Events", "description": "What those people did."},
    {"name": "Segments", "description": "Named groups of people, in partitions, and who was in them when."},
    {"name": "Schedules", "description": "When files are fetched by themselves."},
    {"name": "Runs", "description": "The execution log: what came of each time that a file was to be fetched."},
    {"name": "Webhooks", "description": "Where an account is told what happens, and what was sent there."},
    {"name": "Audit", "description": "Who changed what."},
]

_SCHEMA: Final = "#/components/schemas/{model}"
_PROBLEM: Final = {"$ref": _SCHEMA.format(model="ProblemDocument")}

_TEXT: Final = {"schema": {"type": "string"}}
_HEADERS: Final = {
    "X-Request-Id": {"description": "The request's id, the caller's own if it sent one.", **_TEXT},
    "RateLimit": {"description": "What is left of the key's requests: `r`, for `t` seconds.", **_TEXT},
    "ETag": {"description": "What this state of the resource is called; for If-Match and If-None-Match.", **_TEXT},
    "Link": {"description": "Where the next page is, if there is one.", **_TEXT},
    "Location": {"description": "Where the resource is.", **_TEXT},
    idempotency.REPLAYED: {"description": "`true` where the request was answered before.", **_TEXT},
}
_DONE: Final = {
    "200": "Done.",
    "201": "Made.",
    "202": "Accepted: it goes on after this answer.",
    "204": "Done, and there is nothing to show.",
}
_IF_NONE_MATCH: Final = {
    "name": "If-None-Match",
    "in": "header",
    "description": "ETags that the caller has: 304 where it is still one of them.",
    **_TEXT,
}
_LOOKING_UP: Final = {"webhooks_create", "webhooks_change"}
"""Operations that look a host up before they keep it."""

_EXPIRING: Final = {
    "data_sources_changes",
    "files_preview",
    "ingestions_create",
    "ingestions_error_file",
    "ingestions_error_summary",
    "ingestions_errors",
    "ingestions_retry",
}
"""Operations that need what is kept for a time only."""

_RANGE: Final = {"name": "Range", "in": "header", "description": "The one range wanted, as `bytes=0-499`.", **_TEXT}


def describe(api: FastAPI) -> None:
    """Complete the application's OpenAPI document with the conventions, the first time it is asked for."""
    generate = api.openapi

    def described() -> dict[str, Any]:
        fresh = api.openapi_schema is None
        document = generate()
        if fresh:
            _complete(document)
        return document

    api.openapi = described  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    components = document["components"]
    problem = ProblemDocument.model_json_schema(ref_template=_SCHEMA, mode="serialization")
    components["schemas"] |= {**problem.pop("$defs"), "ProblemDocument": problem, **notices.schemas()}
    components["headers"] = _HEADERS
    used: set[int] = set()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            operation.setdefault("security", [])  # none is needed
            if "parameters" in operation:
                operation["parameters"] = _parameters(method, operation["parameters"])
            _complete_answers(method, operation)
            statuses = _statuses(path, method, operation)
            for status in statuses:
                operation["responses"].setdefault(str(status), {"$ref": f"#/components/responses/Problem{status}"})
            operation["responses"].pop("default", None)
            used.update(statuses)
    components["responses"] = {f"Problem{status}": _response(status) for status in sorted(used)}
    document["webhooks"] = notices.described()


def _parameters(method: str, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parameters of an operation: none is ever null, and only a POST takes an Idempotency-Key."""
    for each in given:
        choices = [choice for choice in each["schema"].pop("anyOf", []) if choice != {"type": "null"}]
        if choices:
            each["schema"] |= choices[0] if len(choices) == 1 else {"anyOf": choices}
    return [each for each in given if method == "post" or each["name"] != idempotency.HEADER]


def _complete_answers(method: str, operation: dict[str, Any]) -> None:
    """Name the headers that an operation's answers carry, and the answer to who has it already."""
    names = {each["name"] for each in operation.get("parameters", [])}
    is_file = "206" in operation["responses"]
    for status, answer in list(operation["responses"].items()):
        if not status.startswith("2"):
            continue
        if answer["description"] == "Successful Response":  # FastAPI's word where a route has none
            answer["description"] = _DONE[status]
        is_json = "application/json" in answer.get("content", {})
        has = {
            "X-Request-Id": True,
            "RateLimit": bool(operation["security"]),
            "ETag": is_file or (is_json and method in {"get", "patch", "put"}),
            "Link": "cursor" in names,
            "Location": status == "201",
            idempotency.REPLAYED: idempotency.HEADER in names,
        }
        shown = {name: {"$ref": f"#/components/headers/{name}"} for name, carries in has.items() if carries}
        answer["headers"] = shown | answer.get("headers", {})
        if is_json and operation["operationId"] in EXAMPLES:
            answer["content"]["application/json"]["example"] = EXAMPLES[operation["operationId"]]
        if has["ETag"] and method == "get" and status == "200":
            operation.setdefault("parameters", []).extend([_IF_NONE_MATCH, *([_RANGE] if is_file else [])])
            operation["responses"]["304"] = {"description": "The caller has it already."}


def _response(status: int) -> dict[str, Any]:
    kinds = {code: kind for code, kind in CATALOGUE.items() if kind.status == status}
    title = kinds[next(iter(kinds))].title
    examples = {code: {"summary": kind.title, "value": _problem(code, kind)} for code, kind in kinds.items()}
    return {
        "description": f"{title}. Codes: {', '.join(sorted(kinds))}.",
        "content": {MEDIA_TYPE: {"schema": _PROBLEM, "examples": examples}},
    }


def _problem(code: str, kind: Entry) -> dict[str, Any]:
    return ProblemDocument(
        type=urn(code),
        title=kind.title,
        status=kind.status,
        detail=kind.cause,
        instance="/v1/ingestions",
        code=code,
        errors=[],
        request_id="req_01k9c3v0g8e5wr6q4x2n7m1hzt",
    ).model_dump()


def _statuses(path: str, method: str, operation: dict[str, Any]) -> list[int]:
    """The problems that an operation can answer with beside those it declares itself."""
    found = [422, 431, 500, 508]
    if operation["security"]:
        found += [401, 403, 404, 429, 503]
    if "requestBody" in operation:
        found += [400, 408, 413, 415]
    if "{" in path or method == "post":
        found += [404, 409]
    if any(each["name"] == "If-Match" for each in operation.get("parameters", [])):
        found += [412]
    if ("Connections" in operation["tags"] and "{" in path) or operation["operationId"] in _LOOKING_UP:
        found += [502]
    if operation["operationId"] in _EXPIRING:
        found += [410]
    if "206" in operation["responses"]:
        found += [416]
    return sorted(set(found))
