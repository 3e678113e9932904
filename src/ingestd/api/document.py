"""The OpenAPI document: what FastAPI finds in the routes, and the conventions that all of them share."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI

from ingestd.api import idempotency
from ingestd.api.catalogue import CATALOGUE
from ingestd.api.problems import MEDIA_TYPE, ProblemDocument

_SCHEMA: Final = "#/components/schemas/{model}"
_PROBLEM: Final = {"schema": {"$ref": _SCHEMA.format(model="ProblemDocument")}}

_TEXT: Final = {"schema": {"type": "string"}}
_HEADERS: Final = {
    "X-Request-Id": {"description": "The request's id, the caller's own if it sent one.", **_TEXT},
    "RateLimit": {"description": "What is left of the key's requests: `r`, for `t` seconds.", **_TEXT},
    "ETag": {"description": "What this state of the resource is called; for If-Match and If-None-Match.", **_TEXT},
    "Link": {"description": "Where the next page is, if there is one.", **_TEXT},
    "Location": {"description": "Where the resource is.", **_TEXT},
    idempotency.REPLAYED: {"description": "`true` where the request was answered before.", **_TEXT},
}
_IF_NONE_MATCH: Final = {
    "name": "If-None-Match",
    "in": "header",
    "description": "ETags that the caller has: 304 where it is still one of them.",
    **_TEXT,
}


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
    schema = ProblemDocument.model_json_schema(ref_template=_SCHEMA, mode="serialization")
    components = document["components"]
    components["schemas"] |= {**schema.pop("$defs"), "ProblemDocument": schema}
    components["responses"] = {
        f"Problem{status}": _response(status) for status in sorted({kind.status for kind in CATALOGUE.values()})
    }
    components["headers"] = _HEADERS
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if "parameters" in operation:
                operation["parameters"] = _parameters(method, operation["parameters"])
            _complete_answers(method, operation)
            for status in _statuses(path, method, operation):
                operation["responses"].setdefault(str(status), {"$ref": f"#/components/responses/Problem{status}"})
            operation["responses"].pop("default", None)


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
    for status, answer in list(operation["responses"].items()):
        if not status.startswith("2"):
            continue
        is_json = "application/json" in answer.get("content", {})
        has = {
            "X-Request-Id": True,
            "RateLimit": "security" in operation,
            "ETag": is_json and method in {"get", "patch", "put"},
            "Link": "cursor" in names,
            "Location": status == "201",
            idempotency.REPLAYED: idempotency.HEADER in names,
        }
        shown = {name: {"$ref": f"#/components/headers/{name}"} for name, carries in has.items() if carries}
        answer["headers"] = shown | answer.get("headers", {})
        if has["ETag"] and method == "get":
            operation.setdefault("parameters", []).append(_IF_NONE_MATCH)
            operation["responses"]["304"] = {"description": "The caller has it already."}


def _response(status: int) -> dict[str, Any]:
    kinds = {code: kind for code, kind in CATALOGUE.items() if kind.status == status}
    title = kinds[next(iter(kinds))].title
    return {"description": f"{title}. Codes: {', '.join(sorted(kinds))}.", "content": {MEDIA_TYPE: _PROBLEM}}


def _statuses(path: str, method: str, operation: dict[str, Any]) -> list[int]:
    """The problems that an operation can answer with beside those it declares itself."""
    found = [422, 431, 500, 508]
    if "security" in operation:
        found += [401, 403, 404, 429, 503]
    if "requestBody" in operation:
        found += [400, 408, 413, 415]
    if "{" in path or method == "post":
        found += [404, 409]
    if any(each["name"] == "If-Match" for each in operation.get("parameters", [])):
        found += [412]
    if path.startswith("/v1/files/{"):  # names are put, ids are shown, and both stand in one place
        found += [405]
    return sorted(set(found))
