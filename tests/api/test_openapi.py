"""The committed OpenAPI document is the one that the service serves, and is one that tools can build on."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from tests.api.walk import DOCUMENT, operations, resolve
from tests.conftest import new_client

from ingestd.domain.notice import NoticeType

COMMITTED = Path(__file__).parents[2] / "openapi" / "openapi.json"
ONE_WORD = {"livez", "readyz", "version"}


def answers():
    for operation in operations():
        for status, answer in operation.declared["responses"].items():
            name = answer.get("$ref", "").removeprefix("#/components/responses/")
            yield operation, status, DOCUMENT["components"]["responses"][name] if name else answer


def test_the_committed_document_is_the_generated_one():
    assert json.loads(COMMITTED.read_text()) == DOCUMENT, "run: make openapi"


async def test_the_served_document_is_the_generated_one_also_for_those_who_ask_first_at_once(app):
    async with new_client(app.http_url) as stranger:
        answers = await asyncio.gather(*(stranger.get("/openapi.json") for _ in range(2)))
    assert [each.json() for each in answers] == [DOCUMENT] * 2


def test_no_schema_is_named_after_a_module_because_another_has_its_name():
    assert [name for name in DOCUMENT["components"]["schemas"] if "__" in name] == []


def test_the_document_is_valid():
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_every_operation_has_an_id_of_its_own_that_names_the_resource_and_what_is_done():
    ids = [operation.name for operation in operations()]
    ids += [item["post"]["operationId"] for item in DOCUMENT["webhooks"].values()]
    assert len(ids) == len(set(ids))
    assert [each for each in ids if not re.fullmatch("[a-z]+(_[a-z]+)+", each) and each not in ONE_WORD] == []


def test_what_can_have_expired_is_said_of_every_operation_that_needs_it():
    needing = {op.name for op, status, _ in answers() if status == "410"}
    assert needing >= {"ingestions_create", "ingestions_retry", "ingestions_error_file", "files_preview"}


def test_every_error_has_the_schema_of_problems():
    failing = [(op, status, answer) for op, status, answer in answers() if status >= "400"]
    assert failing
    for operation, status, answer in failing:
        if (operation.name, status) == ("readyz", "503"):  # which names the checks
            continue
        schema = answer["content"]["application/problem+json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ProblemDocument"}, f"{operation}: {status}"


@pytest.mark.rule("S136")
def test_the_document_has_every_event_that_is_told_with_its_body():
    assert set(DOCUMENT["webhooks"]) == set(NoticeType)
    for kind, item in DOCUMENT["webhooks"].items():
        schema = item["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert (schema["properties"]["type"]["const"], set(schema["required"])) == (kind, {"type", "timestamp", "data"})
        data = schema["properties"]["data"]
        assert all(resolve(choice)["properties"] for choice in data.get("anyOf", [data]))
