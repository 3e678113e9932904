"""What holds for every route of the OpenAPI document, those to come too."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import event
from structlog.contextvars import get_contextvars
from tests.api.walk import (
    DOCUMENT,
    OWN,
    UNKNOWN,
    Operation,
    client_with,
    fresh,
    ids_in,
    operations,
    owned,
    prefix_of,
    unknown,
)
from tests.conftest import Tenant, new_client, open_tenant

from ingestd.cli import accounts

ALL = operations()
KEYED = [each for each in ALL if not each.is_open]
IN_TIME = {"ingestions_cancel", "ingestions_confirm", "accounts_delete"}
"""What fits for a moment only, or ends all: the tests of ingestions, segment files and endings show their entries."""

ENDLESS = {"webhook_events_follow"}
"""Streams that end only with the service: tests/api/test_webhook_events.py reads them."""

READING_POSTS = {
    *("schedules_preview", "segments_lookup", "profiles_lookup", "manifests_validate"),
    *("connections_test_new", "connections_test", "connections_scan_host_keys", "connections_resolve"),
    *("data_sources_mapping_suggest", "files_preview", "filters_preview"),
}
OPEN = {"livez", "readyz", "version", "problems_list", "manifests_schema"}


@dataclass(frozen=True)
class Pair:
    """Two accounts with one thing of every kind each; `mine` and `theirs` are their ids by prefix."""

    me: Tenant
    other: Tenant
    mine: dict[str, str]
    theirs: dict[str, str]


@pytest_asyncio.fixture(scope="module")
async def pair(ground, app):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        async with open_tenant(ground, app, Path(one)) as me, open_tenant(ground, app, Path(two)) as other:
            yield Pair(me, other, await owned(me), await owned(other))


@pytest.fixture
def statements(app):
    """What each request asks the database, by its id."""
    asked = defaultdict(list)
    engine = app.intake.sessions.kw["bind"].sync_engine

    def note(_, __, statement, *more):
        asked[get_contextvars().get("request")].append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield asked
    event.remove(engine, "before_cursor_execute", note)


def of(operation):
    return str(operation)


async def ask(client: httpx.AsyncClient, operation: Operation, url: str, **more) -> httpx.Response:
    return await client.request(operation.method, url, **(operation.content() | more))


def test_every_id_in_a_path_is_of_a_kind_that_the_walk_knows(pair):
    for operation in ALL:
        for name, schema in operation.parameters("path").items():
            assert prefix_of(schema) in pair.mine or name == "file", f"{operation}: a new kind of id; see walk.owned"


@pytest.mark.threat("T153")
@pytest.mark.parametrize("operation", ALL, ids=of)
async def test_without_a_key_nothing_answers_but_what_is_open(pair, operation):
    async with new_client(pair.me.app.http_url) as stranger:
        answer = await ask(stranger, operation, operation.url(pair.mine))
    assert operation.is_open == (operation.name in OPEN)
    assert answer.status_code == (200 if operation.is_open else 401)
    if not operation.is_open:
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["code"] == "unauthenticated"


@pytest.mark.parametrize("operation", [each for each in KEYED if each.scope], ids=of)
async def test_with_another_scope_the_one_that_is_missing_is_named(pair, operation):
    scope = "account:read" if operation.scope != "account:read" else "webhooks:read"
    async with await client_with(pair.me, scope) as client:
        answer = await ask(client, operation, operation.url(pair.mine))
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    assert operation.scope in answer.json()["detail"]


@pytest.mark.parametrize("operation", ALL, ids=of)
async def test_an_unknown_parameter_is_refused(pair, operation):
    answer = await ask(pair.me.http, operation, operation.url(unknown(pair.mine)), params={"nonsense": "1"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/query/nonsense")


@pytest.mark.threat("T50")
@pytest.mark.parametrize("operation", [each for each in KEYED if each.parameters("path")], ids=of)
async def test_what_another_account_has_in_a_path_cannot_be_told_from_what_nobody_has(pair, statements, operation):
    """Nor by the time it takes: the same statements are executed."""
    for name, schema in operation.parameters("path").items():
        prefix = prefix_of(schema)
        if not prefix:
            continue
        theirs = await ask(pair.me.http, operation, operation.url(pair.mine, **{name: pair.theirs[prefix]}))
        nobodys = await ask(pair.me.http, operation, operation.url(pair.mine, **{name: f"{prefix}_{UNKNOWN}"}))
        assert_same(theirs, nobodys)
        assert statements[theirs.headers["x-request-id"]] == statements[nobodys.headers["x-request-id"]]
        assert theirs.status_code == (403 if operation.scope == "admin" else 404)


@pytest.mark.threat("T50")
@pytest.mark.parametrize("operation", KEYED, ids=of)
async def test_what_another_account_has_in_a_query_or_body_cannot_be_told_from_what_nobody_has(
    pair, statements, operation
):
    """Nor by the time it takes; the body's other ids are the caller's own, so that each id is looked for."""
    url, known = operation.url(pair.mine), ids_in(operation)
    asked = [("params", {}, name, prefix_of(schema), False) for name, schema in operation.parameters("query").items()]
    if known:
        made = operation.content()["json"]
        mine = {name: pair.mine[prefix] for name, (prefix, several) in known.items() if name in made and not several}
        body = made | mine
        asked += [("json", body, name, *kind) for name, kind in known.items()]
    for place, rest, name, prefix, several in asked:
        if not prefix:
            continue
        theirs, nobodys = [
            await ask(pair.me.http, operation, url, **{place: rest | {name: [value] if several else value}})
            for value in (pair.theirs[prefix], f"{prefix}_{UNKNOWN}")
        ]
        assert_same(theirs, nobodys)
        assert statements[theirs.headers["x-request-id"]] == statements[nobodys.headers["x-request-id"]]
        assert theirs.status_code in ({200, 404, 422} if place == "params" else {404, 422})


def assert_same(one: httpx.Response, two: httpx.Response) -> None:
    assert one.status_code == two.status_code
    changing = {"date", "x-request-id", "ratelimit"}
    assert {name for name in one.headers if name not in changing} == {
        name for name in two.headers if name not in changing
    }
    if one.status_code >= 400:
        assert one.json() | OWN == two.json() | OWN
    else:
        assert one.content == two.content


@pytest.mark.threat("T50")
async def test_no_list_shows_what_another_account_has(pair):
    lists = [each for each in KEYED if each.method == "GET" and "cursor" in each.parameters("query")]
    assert len(lists) > 5
    for operation in lists:
        text = (await pair.me.http.get(operation.url(pair.mine))).text
        assert [each for each in pair.theirs.values() if each in text] == [], operation


async def at_rest(
    client: httpx.AsyncClient, url: str, ask_more: Callable[[httpx.Response], Awaitable[httpx.Response]]
) -> tuple[httpx.Response, httpx.Response]:
    """What a resource answers, and what was asked on that before it changed: deliveries are tried again meanwhile."""
    for _ in range(10):
        answer = await client.get(url)
        more, after = await ask_more(answer), await client.get(url)
        if after.headers.get("etag") == answer.headers.get("etag"):
            return answer, more
    raise AssertionError("It changes each time it is asked for.")


@pytest.mark.parametrize(
    "operation", [each for each in KEYED if each.method == "GET" and each.name not in ENDLESS], ids=of
)
async def test_head_answers_as_get_does_without_the_body(pair, operation):
    url = operation.url(pair.mine)
    get, head = await at_rest(pair.me.http, url, lambda _: pair.me.http.head(url))
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers.get("etag") == get.headers.get("etag")


SINGLE = [each for each in KEYED if each.method == "GET" and each.path.endswith(("}", "/account", "/me", "/limits"))]


@pytest.mark.parametrize("operation", SINGLE, ids=of)
async def test_every_single_resource_has_an_etag_that_spares_sending_it_again(pair, operation):
    url = operation.url(pair.mine)
    if operation.scope == "admin":
        assert (await pair.me.http.get(url)).status_code == 403
        return
    answer, again = await at_rest(
        pair.me.http, url, lambda answer: pair.me.http.get(url, headers={"If-None-Match": answer.headers["etag"]})
    )
    assert answer.status_code == 200
    assert (again.status_code, again.content) == (304, b"")


PERSONAL = {"address", "to", "identifiers", "attributes", "clientEmail", "content"}
"""Fields of answers that hold personal data."""


@pytest.mark.threat("T52")
async def test_nothing_on_the_way_keeps_an_answer_with_personal_data(pair):
    personal = [each for each in KEYED if each.method == "GET" and PERSONAL & fields_of(each)]
    assert len(personal) > 5
    for operation in personal:
        answer = await pair.me.http.get(operation.url(pair.mine))
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store"), operation


def fields_of(operation: Operation) -> set[str]:
    """The names of all fields of an operation's answer."""
    text = json.dumps(operation.declared["responses"]["200"].get("content", {}))
    named: set[str] = set()
    while new := set(re.findall('"#/components/schemas/([^"]+)"', text)) - named:
        named |= new
        text += json.dumps([DOCUMENT["components"]["schemas"][name] for name in new])
    return {field for name in named for field in DOCUMENT["components"]["schemas"][name].get("properties", {})}


WITHOUT_A_STATE = {"files_put"}
"""Each upload is a file of its own."""


@pytest.mark.parametrize("operation", [each for each in KEYED if each.method in {"PUT", "DELETE"}], ids=of)
async def test_what_is_replaced_or_deleted_takes_an_etag_and_a_stale_one_changes_nothing(pair, operation):
    assert ("If-Match" in operation.parameters("header")) == (operation.name not in WITHOUT_A_STATE)
    if operation.name in WITHOUT_A_STATE or operation.scope == "admin":
        return
    ids, content = await fresh(pair.me, operation, pair.mine)
    stale = await pair.me.http.request(
        operation.method, operation.url(ids), **content | {"headers": {"If-Match": '"stale"'}}
    )
    assert (stale.status_code, stale.json()["code"]) == (412, "changed_meanwhile")


@pytest.mark.parametrize("path", sorted({each.path for each in ALL}))
async def test_a_method_that_a_path_does_not_have_is_answered_with_those_it_has(pair, path):
    here = [each for each in ALL if each.path == path]
    methods = {each.method for each in here}
    missing = next(each for each in ("PUT", "DELETE", "PATCH") if each not in methods)
    answer = await pair.me.http.request(missing, here[0].url(pair.mine))
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] in answer.json()["detail"]
    assert set(answer.headers["allow"].split(", ")) == methods | ({"HEAD"} if "GET" in methods else set())


@pytest.mark.parametrize("operation", [each for each in KEYED if each.method == "PATCH"], ids=of)
async def test_every_patch_takes_an_etag_and_refuses_a_stale_one(pair, operation):
    if operation.scope == "admin":
        assert "If-Match" in operation.parameters("header")
        return
    url = operation.url(pair.mine)
    stale = await pair.me.http.patch(url, json={}, headers={"If-Match": '"stale"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "changed_meanwhile")
    tag = (await pair.me.http.get(url)).headers["etag"]
    assert (await pair.me.http.patch(url, json={}, headers={"If-Match": tag})).status_code == 200


@pytest.mark.threat("T56")
@pytest.mark.parametrize("operation", [each for each in KEYED if "json" in each.content()], ids=of)
async def test_a_field_that_nobody_declared_is_refused(pair, operation):
    if operation.scope == "admin":
        return
    body = operation.content()["json"] | {"account_id": pair.theirs["acc"], "status": "COMPLETED"}
    refused = await ask(pair.me.http, operation, operation.url(pair.mine), json=body)
    assert refused.status_code == 422
    assert {"/body/account_id", "/body/status"} <= {each["pointer"] for each in refused.json()["errors"]}


async def test_every_change_is_in_the_audit_trail(ground, app, tmp_path):
    """Each changing operation is asked with what fits; the deletions last, since nothing fits after them."""
    changing = [each for each in KEYED if each.method != "GET" and each.name not in READING_POSTS | IN_TIME]
    async with open_tenant(ground, app, tmp_path) as tenant:
        operator = await operator_of(ground, tenant)
        ids = await owned(tenant)
        for operation in sorted(changing, key=lambda each: each.method == "DELETE"):
            its_ids, content = await fresh(tenant, operation, ids)
            before = await newest_entry(tenant)
            headers = content.pop("headers", {}) | (operator if operation.scope == "admin" else {})
            answer = await ask(tenant.http, operation, operation.url(its_ids), **content, headers=headers)
            assert answer.is_success, f"{operation}: {answer.text}"
            assert await newest_entry(tenant) != before, f"{operation} is not in the trail"


async def operator_of(ground, tenant: Tenant) -> dict[str, str]:
    """The headers with which an operator acts for an account."""
    _, key = await asyncio.to_thread(accounts.make, ground, name="operator", email_domains=[], admin=True)
    return {"Authorization": f"Bearer {key}", "Account-Id": tenant.id}


async def newest_entry(tenant: Tenant) -> str:
    found = (await tenant.http.get("/v1/audit", params={"limit": 1})).json()["data"]
    return found[0]["id"] if found else ""


def test_every_post_that_has_an_effect_takes_an_idempotency_key():
    without = {
        each.name for each in KEYED if each.method == "POST" and "Idempotency-Key" not in each.parameters("header")
    }
    assert without == READING_POSTS


def test_the_document_shows_every_refusal_as_a_problem():
    for operation in ALL:
        for status, response in operation.declared["responses"].items():
            if int(status) >= 400 and "$ref" in response:
                content = DOCUMENT["components"]["responses"][f"Problem{status}"]["content"]
                assert list(content) == ["application/problem+json"]
    assert "HTTPValidationError" not in str(DOCUMENT)
