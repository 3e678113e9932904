"""Problem documents: every code that can be answered is in the catalogue, with its cause and its remedy."""

import ast
from pathlib import Path

import pytest

import ingestd
from ingestd.api.catalogue import CATALOGUE
from ingestd.domain.rejection import FILE_REASONS

SOURCE = Path(ingestd.__file__).parent
# What only the SFTP door, the workers, a command or the start of the service raises reaches nobody over HTTP.
ELSEWHERE = (
    "sftpd/",
    "cli/",
    "settings.py",
    "app/",
    "keyring/",
    "store/dump.py",
    "store/embedded.py",
    "store/schema.py",
    "blobs/",
    "ingest/pool.py",
    "ingest/applying.py",
    "ingest/checking.py",
    "ingest/work.py",
    "ingest/engine.py",
    "store/fencing.py",
)
OF_THE_START = {"allow_list_invalid", "authority_unusable"}
KINDS = {"NotFound", "Conflict", "Invalid", "Forbidden", "Unavailable"}


def raised():
    """Yield the code of every error that a module within reach of the API makes."""
    for path in SOURCE.rglob("*.py"):
        if str(path.relative_to(SOURCE)).startswith(ELSEWHERE):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id in KINDS:
                    yield from (word.value.value for word in node.keywords if word.arg == "code" and named(word.value))
                if node.func.id == "Refused" and named(node.args[0]):
                    yield node.args[0].value
            if isinstance(node, ast.ClassDef):
                yield from (
                    each.value.value
                    for each in node.body
                    if isinstance(each, ast.Assign) and each.targets[0].id == "code" and named(each.value)
                )


def named(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_every_code_that_is_raised_is_in_the_catalogue():
    codes = set(raised())
    assert len(codes) > 20
    assert codes - OF_THE_START - CATALOGUE.keys() == set()


async def test_the_catalogue_can_be_read_without_a_key_and_says_what_to_do(tenant):
    kinds = (await tenant.http.get("/problems", headers={"Authorization": ""})).json()["data"]
    assert {kind["code"] for kind in kinds} == CATALOGUE.keys() >= FILE_REASONS.keys()
    for kind in kinds:
        assert kind["type"] == f"urn:ingestd:problem:{kind['code']}"
        assert 400 <= kind["status"] < 600
        assert all(kind[word] for word in ("title", "cause", "remedy")), kind


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "TRACE"])
async def test_a_method_that_a_path_does_not_have_is_answered_with_those_it_has(tenant, method):
    answer = await tenant.http.request(method, "/v1/api-keys/key_" + "0" * 26 + ("/rotate" if method == "GET" else ""))
    assert answer.status_code == 405
    assert answer.headers["allow"] == ("POST" if method == "GET" else "DELETE, GET, HEAD, PATCH")
