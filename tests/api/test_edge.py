"""What every request is held to and every answer carries, whatever the route."""

import asyncio
import json
from dataclasses import replace
from datetime import date

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import text
from tests.api.walk import BODIES

from ingestd.api import strict
from ingestd.api.app import routes
from ingestd.api.context import begin, read
from ingestd.api.deprecation import deprecated
from ingestd.app.protocol import Protocol
from ingestd.app.role import Role
from ingestd.app.service import running
from ingestd.app.serving import serving
from ingestd.store.engine import transaction

LOOKUP = "/v1/profiles/lookup"


async def post(tenant, content, path=LOOKUP, kind="application/json", **headers):
    return await tenant.http.post(path, content=content, headers={"content-type": kind, **headers})


async def test_an_answer_carries_the_request_s_id_and_headers_that_browsers_heed(tenant):
    answer = await tenant.http.get("/v1/me", headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "private, no-cache"
    for odd in ("", "with space", "x" * 129, "<script>"):
        made = await tenant.http.get("/v1/nowhere", headers={"X-Request-Id": odd})
        assert made.headers["x-request-id"].startswith("req_")
        assert made.json()["request_id"] == made.headers["x-request-id"]


@pytest.mark.threat("T55")
async def test_a_body_that_is_too_large_is_refused_as_it_arrives(tenant):
    sent = 0

    async def endless():
        nonlocal sent
        while sent < 2**30:
            sent += 2**16
            yield b" " * 2**16

    with_length = await post(tenant, b" " * (2**20 + 1))
    assert (with_length.status_code, with_length.json()["code"]) == (413, "too_large")
    try:
        without = await post(tenant, endless())
        assert without.status_code == 413
    except httpx.TransportError:
        pass  # the server has hung up while the client was still sending
    assert sent < 2**26
    assert (await post(tenant, b" " * 2**20)).status_code == 400


@pytest.mark.threat("T55")
@pytest.mark.parametrize(
    ("head", "limit"),
    [
        (f"POST {LOOKUP} HTTP/1.1\r\nContent-Type: application/json", 2**20),
        ("PUT /v1/files/x.csv HTTP/1.1", 10**6),
    ],
)
async def test_a_chunked_body_is_refused_at_the_first_byte_too_many(ground, tenant, head, limit):
    limits = ground.settings.limits.model_copy(update={"file_bytes": 10**6})
    small = replace(ground, settings=ground.settings.model_copy(update={"limits": limits}))
    async with running(small, [Role.API]) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.http_port)
        keyed = f"{head}\r\nHost: x\r\nAuthorization: Bearer {tenant.key}\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(keyed.encode() + b"%x\r\n%b\r\n" % (limit + 1, b" " * (limit + 1)))
        async with asyncio.timeout(20):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b'"code":"too_large"' in answer
        writer.close()
    assert (await tenant.http.get("/v1/files")).json()["data"] == []


@pytest.mark.threat("T55")
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 33 + b"]" * 33,
        b'{"a":' * 100_000,
        b'{"identifiers": [], "identifiers": []}',
        b'{"identifiers": NaN}',
        b'{"identifiers": 1e999}',
        b'{"identifiers": %s}' % (b"9" * 5000),
        b'{"identifiers": [{"kind": "identity", "value": "\\u0000"}]}',
        b'{"identifiers": [{"kind": "identity", "value": "\\ud800"}]}',
        b'{"identifiers": "\xff"}',
        '{"identifiers": []}'.encode("utf-16"),
        b"{} {}",
        b"",
    ],
)
async def test_json_is_read_strictly(tenant, body):
    refused = await post(tenant, body)
    assert refused.status_code == (400 if body else 422)
    assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.threat("T55")
async def test_others_are_answered_while_a_long_body_is_parsed():
    async def receive():
        return {"type": "http.request", "body": b"[" + b"{}," * 100_000 + b"{}]"}

    request = strict.StrictRequest({"type": "http", "headers": []}, receive, limit=None)
    parsing, turns = asyncio.create_task(request.json()), 0
    while not parsing.done():
        await asyncio.sleep(0)
        turns += 1
    assert len(await parsing) == 100_001
    assert turns > 20


async def test_brackets_in_a_text_are_not_nesting(tenant):
    body = {"identifiers": [{"kind": "identity", "value": '[{"' * 100}]}
    assert (await post(tenant, json.dumps(body).encode())).status_code == 200


@pytest.mark.threat("T55")
@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        ("application/json", {"content-encoding": "gzip"}),
        ("application/json", {"content-encoding": "br, gzip"}),
        ("text/plain", {}),
        ("application/x-www-form-urlencoded", {}),
        ("application/problem+json", {}),
        ("", {}),
    ],
)
async def test_a_body_of_another_kind_is_refused(tenant, kind, headers):
    refused = await post(tenant, b"{}", kind=kind, **headers)
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")


async def test_a_change_may_be_called_a_merge_patch(tenant):
    headers = {"content-type": "application/merge-patch+json"}
    changed = await tenant.http.patch("/v1/account", content=b'{"name": "renamed"}', headers=headers)
    assert (changed.status_code, changed.json()["name"]) == (200, "renamed")


@pytest.mark.threat("T13")
async def test_a_webhook_of_ours_that_comes_back_ends_here(tenant):
    answer = await tenant.http.post("/v1/api-keys", json=BODIES["api_keys_create"], headers={"ingestd-delivery": "x"})
    assert (answer.status_code, answer.json()["code"]) == (508, "loop_detected")
    assert len((await tenant.http.get("/v1/api-keys")).json()["data"]) == 1


@pytest.mark.threat("T13")
async def test_the_service_itself_is_no_address_for_a_webhook(tenant):
    for host in ("127.0.0.1", "localhost"):
        url = f"http://{host}:{tenant.app.http_port}/v1/webhooks"
        refused = await tenant.http.post("/v1/webhooks", json={"name": "loop", "url": url})
        assert (refused.status_code, refused.json()["code"]) == (422, "url_invalid")


@pytest.mark.threat("T58")
async def test_no_answer_names_the_host_that_was_claimed(tenant):
    headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "gopher"}
    for path in ("/v1/api-keys/", "/v1/sftp", "/v1/api-keys", "/openapi.json"):
        method, body = ("POST", BODIES["api_keys_create"]) if path == "/v1/api-keys" else ("GET", None)
        answer = await tenant.http.request(method, path, json=body, headers=headers)
        assert "evil.example" not in str(answer.headers) + answer.text
        assert not answer.is_redirect


async def test_an_operator_acts_for_another_account_and_nobody_else_does(tenant, other, operator):
    for key, status in ((operator, 200), (tenant.key, 403)):
        headers = {"Authorization": f"Bearer {key}", "Account-Id": other.id}
        answer = await tenant.http.get("/v1/account", headers=headers)
        assert answer.status_code == status
        assert status != 200 or answer.json()["id"] == other.id
    headers = {"Authorization": f"Bearer {operator}"}
    for unknown in ("acc_" + "0" * 26, "nonsense", "key_" + "0" * 26):
        assert (await tenant.http.get("/v1/account", headers=headers | {"Account-Id": unknown})).status_code == 404


@pytest.fixture
async def failing_commit(tenant):
    """Keys of a certain name, which the database accepts and then refuses to commit."""
    async with transaction(tenant.app.intake.sessions) as session:
        await session.execute(text(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'canary-commit'; END $$"
        ))  # fmt: skip
        await session.execute(text(
            "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON api_keys DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW WHEN (NEW.name = 'never committed') EXECUTE FUNCTION refuse()"
        ))  # fmt: skip
    yield {"name": "never committed", "scopes": ["account:read"]}
    async with transaction(tenant.app.intake.sessions) as session:
        await session.execute(text("DROP FUNCTION refuse CASCADE"))


@pytest.mark.threat("T59")
async def test_a_commit_that_fails_is_never_a_success_and_tells_nothing(tenant, failing_commit):
    for headers in ({}, {"Idempotency-Key": "again"}, {"Idempotency-Key": "again"}):
        answer = await tenant.http.post("/v1/api-keys", json=failing_commit, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert "canary" not in answer.text
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "never committed" not in (await tenant.http.get("/v1/api-keys")).text


@pytest.mark.threat("T59")
async def test_a_database_that_does_not_answer_is_to_be_asked_again(tenant, failing_commit):
    async with transaction(tenant.app.intake.sessions) as session:
        await session.execute(text(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'canary-commit' USING ERRCODE = '57P01'; END $$"
        ))  # fmt: skip
    answer = await tenant.http.post("/v1/api-keys", json=failing_commit)
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "unavailable", "1")
    assert "canary" not in answer.text


def test_every_transaction_ends_before_the_answer_begins():
    def dependants(one):
        yield one
        for each in one.dependencies:
            yield from dependants(each)

    scopes = {
        each.scope
        for route in routes().routes
        if isinstance(route, APIRoute)
        for each in dependants(route.dependant)
        if each.call in {begin, read}
    }
    assert scopes == {"function"}


async def test_what_is_deprecated_says_until_when():
    api = FastAPI()
    when = deprecated(since=date(2026, 1, 1), sunset=date(2027, 1, 1), successor="/v1/new")

    @api.get("/old", dependencies=[when], deprecated=True)
    async def old() -> str:
        return "old"

    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
        headers = (await client.get("/old")).headers
    assert headers["deprecation"] == "@1767225600"
    assert headers["sunset"] == "Fri, 01 Jan 2027 00:00:00 GMT"
    assert headers["link"] == '</v1/new>; rel="successor-version"'


@pytest.mark.threat("T54")
async def test_a_body_that_does_not_arrive_in_time_is_not_waited_for(tenant, monkeypatch):
    monkeypatch.setattr(strict, "SECONDS", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", tenant.app.http_port)
    head = f"POST {LOOKUP} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tenant.key}\r\n"
    writer.write((head + "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{").encode())
    async with asyncio.timeout(20):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer
    writer.close()


@pytest.mark.threat("T51", "T54")
async def test_nothing_that_a_stranger_sends_is_read(tenant):
    reader, writer = await asyncio.open_connection("127.0.0.1", tenant.app.http_port)
    head = f"POST {LOOKUP}?what=this HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    writer.write((head + "Content-Length: 1000000\r\n\r\n{").encode())
    async with asyncio.timeout(10):
        answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401 ")
    writer.close()


class Impatient(Protocol):
    header_seconds = 0.3


@pytest.mark.threat("T54")
async def test_who_does_not_send_the_headers_is_cut_off_and_others_are_served():
    async with serving(FastAPI(), "127.0.0.1", 0, protocol=Impatient) as port:
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        for _, writer in slow[:25]:
            writer.write(b"GET / HTTP/1.1\r\nX-Slow: ")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/nothing")).status_code == 404
        async with asyncio.timeout(10):
            assert [await reader.read() for reader, _ in slow] == [b""] * 50
        for _, writer in slow:
            writer.close()


class Small(Protocol):
    at_once = 2


@pytest.mark.threat("T54")
async def test_beyond_the_limit_a_request_is_refused_with_a_problem_and_the_others_go_on():
    async with serving(FastAPI(), "127.0.0.1", 0, protocol=Small) as port:
        kept = [httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") for _ in range(3)]
        first, second, third = [await client.get("/nothing") for client in kept]
        assert (first.status_code, second.status_code, third.status_code) == (404, 404, 503)
        assert third.headers["content-type"] == "application/problem+json"
        assert (third.json()["code"], third.headers["retry-after"]) == ("overloaded", "1")
        assert (await kept[2].get("/nothing")).status_code == 503
        await kept[0].aclose()
        while (await kept[2].get("/nothing")).status_code == 503:
            pass
        for client in kept[1:]:
            await client.aclose()


@pytest.mark.threat("T54")
async def test_headers_without_end_are_not_collected():
    async with serving(FastAPI(), "127.0.0.1", 0) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)

        async def send_without_end():
            writer.write(b"GET / HTTP/1.1\r\nX-Endless: ")
            for _ in range(10_000):
                writer.write(b"x" * 2**16)
                await writer.drain()

        with pytest.raises(ConnectionError):
            await send_without_end()
        writer.close()
