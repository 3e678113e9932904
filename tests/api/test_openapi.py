"""The committed OpenAPI document is the one that the service serves."""

import json
from pathlib import Path

from ingestd.api.app import document

COMMITTED = Path(__file__).parents[2] / "openapi" / "openapi.json"


def test_the_committed_document_is_the_generated_one():
    assert json.loads(COMMITTED.read_text()) == document(), "run: make openapi"


def test_every_operation_has_a_stable_id_of_its_own():
    ids = [operation["operationId"] for item in document()["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))
    assert all(each.replace("_", "").isalpha() for each in ids)
