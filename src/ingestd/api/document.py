"""The OpenAPI document: what FastAPI finds in the routes, and the conventions that all of them share."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI

from ingestd.api import idempotency
from ingestd.api.catalogue import CATALOGUE
from ingestd.api.problems import MEDIA_TYPE, ProblemDocument

_SCHEMA: Final = "#/components/schemas/{model}"
_PROBLEM: Final = {"schema": {"$ref": _SCHEMA.format(model="ProblemDocument")}}


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
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "post" and "parameters" in operation:
                given = operation["parameters"]
                operation["parameters"] = [each for each in given if each["name"] != idempotency.HEADER]
            for status in _statuses(path, method, operation):
                operation["responses"].setdefault(str(status), {"$ref": f"#/components/responses/Problem{status}"})
            operation["responses"].pop("default", None)


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
    if any(each["name"] == "if-match" for each in operation.get("parameters", [])):
        found += [412]
    return sorted(set(found))
