"""The document's examples are answers that a real service gave; `make examples` asks for them anew."""

import json
import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_schema_validator import OAS31Validator
from tests.api.walk import DOCUMENT, Operation, fresh, operations, owned
from tests.conftest import new_client

from ingestd.api import examples

FILE = Path(examples.__file__).with_name("examples.json")
IN_TIME = {"ingestions_cancel", "ingestions_confirm", "ingestions_dry_run"}
"""What fits for a moment only."""

PLAIN = (
    (r"isk_[0-9a-z]{26}_[\w-]+", "isk_01k9c3v0g8e5wr6q4x2n7m1hzt_secret"),
    (r"whsec_[\w+/=-]+", "whsec_c2VjcmV0"),
    (r'("port": |-P |:)\d{5}\b', r"\g<1>2222"),
    (r"127\.0\.0\.1(?=:8443)", "hooks.example.org"),
    (r"127\.0\.0\.1", "ingestd.example.org"),
    ('"walk"|"made by the walk"', '"warehouse"'),
    (r'"(?:walk|with a run|for segments [a-z ]+)"', '"loyalty"'),
    (r"(?:walk|changed|file-\d|[a-z]+_[a-z]+)\.(csv|manifest)", r"profiles.\1"),
)
"""What an example does not show as it was: secrets, free ports, and names that the tests made up."""


def answering_json() -> list[Operation]:
    return [each for each in operations() if content_of(each) and each.name not in IN_TIME]


def content_of(operation: Operation) -> dict[str, Any] | None:
    """What the document has of an operation's good answer in JSON."""
    for status, answer in operation.declared["responses"].items():
        if status < "203" and "application/json" in answer.get("content", {}):
            return answer["content"]["application/json"]
    return None


def body_of(item: dict[str, Any]) -> dict[str, Any]:
    return item["post"]["requestBody"]["content"]["application/json"]


def check(schema: dict[str, Any], example: Any) -> None:
    whole = schema | {"components": DOCUMENT["components"]}
    OAS31Validator(whole, format_checker=OAS31Validator.FORMAT_CHECKER).validate(example)


def plain(answer: Any) -> Any:
    """An answer as an example shows it: of a list, one item."""
    if isinstance(answer, dict) and isinstance(answer.get("data"), list):
        answer = answer | {"data": answer["data"][:1], **({"next_cursor": None} if "next_cursor" in answer else {})}
    text = json.dumps(answer, ensure_ascii=False)
    for pattern, instead in PLAIN:
        text = re.sub(pattern, instead, text)
    return json.loads(text)


async def ask(client: httpx.AsyncClient, tenant: Any, operation: Operation, ids: dict[str, str]) -> Any:
    ids, content = await fresh(tenant, operation, ids)
    answer = await client.request(
        operation.method,
        operation.url(ids, file="profiles.csv") if operation.method == "PUT" else operation.url(ids),
        **content,
    )
    assert answer.is_success, f"{operation}: {answer.text}"
    return answer.json()


async def test_every_operation_has_an_answer_for_its_example(tenant, operator):
    ids, found = await owned(tenant), {}
    headers = {"Authorization": f"Bearer {operator}"}
    async with new_client(tenant.app.http_url, headers=headers) as operators:
        for operation in sorted(answering_json(), key=lambda each: each.method != "GET"):
            client = operators if operation.scope == "admin" else tenant.http
            found[operation.name] = plain(await ask(client, tenant, operation, ids))
    if os.environ.get("INGESTD_TEST_EXAMPLES"):
        FILE.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        return
    assert {name: set(answer) for name, answer in found.items()} == {
        name: set(answer) for name, answer in examples.EXAMPLES.items()
    }, "run: make examples"


@pytest.mark.parametrize("kind", [kind for kind, item in DOCUMENT["webhooks"].items() if "example" in body_of(item)])
def test_an_event_in_the_examples_fits_its_schema(kind):
    content = body_of(DOCUMENT["webhooks"][kind])
    check(content["schema"], content["example"])


@pytest.mark.parametrize("operation", answering_json(), ids=str)
def test_an_example_fits_its_schema(operation):
    content = content_of(operation)
    check(content["schema"], content["example"])
