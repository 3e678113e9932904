"""API keys: how they are read, kept, replaced and refused."""

import asyncio
import hashlib
import random
from datetime import datetime, timedelta

import httpx
import pytest
from sqlalchemy import text
from tests.api.world import account_of
from tests.conftest import TLS

from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.store import api_keys
from ingestd.store.engine import transaction, utc_now

PATH = "/v1/api-keys"
UNKNOWN = "isk_" + "0" * 26 + "_" + "x" * 43


def client_of(tenant, key, address="127.0.0.1"):
    """A client with a key, whose connections come from an address of its own."""
    return httpx.AsyncClient(
        base_url=tenant.app.http_url,
        headers={"Authorization": f"Bearer {key}"},
        transport=httpx.AsyncHTTPTransport(local_address=address, verify=TLS),
    )


async def raw(tenant, *headers: bytes) -> int:
    """The status that a request with these header lines gets."""
    reader, writer = await asyncio.open_connection("127.0.0.1", tenant.app.http_port, local_addr=("127.0.0.51", 0))
    lines = [b"GET /v1/me HTTP/1.1", b"Host: x", b"Connection: close", *headers]
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
    status = await reader.readline()
    writer.close()
    return int(status.split()[1])


@pytest.mark.threat("T51")
def test_no_text_is_too_odd_to_be_read_as_a_key():
    chance = random.Random(51)
    alphabet = "isk_0z_ Bearer\x00\r\n\u00e9\u2028\ud800😀"
    for _ in range(10_000):
        mark = chance.choice(["", "isk_", "isk_" + "0" * 26 + "_"])
        odd = mark + "".join(chance.choices(alphabet, k=chance.randrange(60)))
        key_id, secret = api_keys.split(odd)
        assert not api_keys.fits(None, secret, now=utc_now())
        assert key_id is None or odd.removeprefix("Bearer ").startswith("isk_")


@pytest.mark.threat("T51")
@pytest.mark.parametrize(
    "headers",
    [
        (b"Authorization: Bearer ",),
        (b"Authorization: ",),
        (b"Authorization: Basic YTpi",),
        (b"Authorization: Bearer isk_\xff\xfe_\x80",),
        (b"Authorization: Bearer isk_\x00",),
        (b"Authorization: Bearer " + b"x" * 8000,),
        (b"Authorization: Bearer " + b"x" * 60_000,),
        (b"Authorization: Bearer " + b"x" * 200_000,),
        (b"authorization: Bearer " + UNKNOWN.encode(),),
        (b"Account-Id: acc_" + b"0" * 26,),
        (b"\xff: x",),
    ],
)
async def test_what_is_no_key_opens_nothing_and_breaks_nothing(tenant, headers):
    assert await raw(tenant, *headers) in {400, 401, 431}


@pytest.mark.threat("T51")
async def test_a_key_sent_twice_is_none(tenant):
    line = b"Authorization: Bearer " + tenant.key.encode()
    assert await raw(tenant, line) == 200
    assert await raw(tenant, line, line) == 401


@pytest.mark.threat("T51")
async def test_secrets_are_compared_in_constant_time_for_an_unknown_key_too(monkeypatch):
    compared, compare = [], api_keys.hmac.compare_digest
    monkeypatch.setattr(api_keys.hmac, "compare_digest", lambda *both: compared.append(both) or compare(*both))
    key, issued = api_keys.issue(api_keys.new_id(), name="x", scopes=[], now=utc_now())
    _, secret = api_keys.split(issued)
    assert [api_keys.fits(*each, now=utc_now()) for each in ((None, secret), (key, "x"), (key, secret))] == [
        False, False, True,
    ]  # fmt: skip
    assert len(compared) == 3


@pytest.mark.threat("T52")
async def test_of_a_secret_the_database_has_the_hash_only(tenant):
    made = (await tenant.http.post(PATH, json={"name": "x", "scopes": ["account:read"]})).json()
    secret = made["key"].split("_", 2)[2]
    async with transaction(tenant.app.intake.sessions) as session:
        rows = (await session.scalars(text("SELECT k::text FROM api_keys k"))).all()
    assert any(hashlib.sha256(secret.encode()).hexdigest() in row for row in rows)
    assert not any(secret in row or secret.encode().hex() in row for row in rows)
    assert "key" not in (await tenant.http.get(f"{PATH}/{made['id']}")).json()


@pytest.mark.threat("T53")
async def test_who_tries_keys_is_slowed_down_and_nobody_else(tenant):
    limit = tenant.app.settings.http.wrong_keys_per_minute
    async with client_of(tenant, UNKNOWN, "127.0.0.53") as guessing:
        answers = [await guessing.get("/v1/me") for _ in range(limit + 3)]
    assert {answer.status_code for answer in answers} == {401, 429}
    refused = answers[-1]
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    for address in ("127.0.0.53", "127.0.0.54"):
        async with client_of(tenant, tenant.key, address) as honest:
            assert (await honest.get("/v1/me")).status_code == 200


@pytest.mark.threat("T58")
async def test_a_claimed_address_does_not_change_who_is_counted(tenant):
    limit = tenant.app.settings.http.wrong_keys_per_minute
    async with client_of(tenant, UNKNOWN, "127.0.0.58") as guessing:
        for number in range(limit + 1):
            answer = await guessing.get("/v1/me", headers={"X-Forwarded-For": f"10.0.{number}.1", "Forwarded": "for=x"})
    assert answer.status_code == 429


async def test_every_answer_says_how_many_requests_are_left(tenant):
    first, second = await tenant.http.get("/v1/me"), await tenant.http.get(f"{PATH}/nothing")
    limit = tenant.app.settings.http.requests_per_minute
    assert first.headers["ratelimit-policy"] == f'"key";q={limit};w=60'
    left = [int(answer.headers["ratelimit"].split(";r=")[1].split(";")[0]) for answer in (first, second)]
    assert left[1] in {left[0] - 1, limit - 1}


async def test_a_replaced_key_works_beside_the_new_one_until_its_grace_is_over(tenant):
    made = (await tenant.http.post(PATH, json={"name": "old", "scopes": ["account:read"]})).json()
    answer = await tenant.http.post(f"{PATH}/{made['id']}/rotate", json={"grace_seconds": 3600})
    new = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"{PATH}/{new['id']}")
    assert (new["name"], new["scopes"]) == ("old", ["account:read"])
    for key in (made["key"], new["key"]):
        async with client_of(tenant, key) as client:
            assert (await client.get("/v1/me")).status_code == 200
    await tenant.http.post(f"{PATH}/{made['id']}/rotate", json={"grace_seconds": 0})
    async with client_of(tenant, made["key"], "127.0.0.2") as client:
        assert (await client.get("/v1/me")).status_code == 401


async def test_a_key_that_is_replaced_without_a_word_has_a_day(tenant):
    made = (await tenant.http.post(PATH, json={"name": "old", "scopes": ["account:read"]})).json()
    answer = await tenant.http.post(f"{PATH}/{made['id']}/rotate")
    assert answer.status_code == 201, answer.text
    left = datetime.fromisoformat((await tenant.http.get(f"{PATH}/{made['id']}")).json()["expires_at"]) - utc_now()
    assert timedelta(hours=23) < left <= timedelta(days=1)


async def test_a_key_cannot_be_replaced_by_one_that_may_less(tenant):
    first = (await tenant.http.get(PATH)).json()["data"][0]
    made = (await tenant.http.post(PATH, json={"name": "x", "scopes": ["account:write", "account:read"]})).json()
    async with client_of(tenant, made["key"]) as small:
        refused = await small.post(f"{PATH}/{first['id']}/rotate", json={})
        assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
    assert (await tenant.http.get("/v1/me")).status_code == 200


async def test_a_key_that_may_more_is_not_changed_and_one_of_the_operator_not_revoked(tenant):
    async def made(*scopes):
        return (await tenant.http.post(PATH, json={"name": "x", "scopes": scopes})).raise_for_status().json()

    async with transaction(tenant.app.intake.sessions) as session:
        operators, _ = api_keys.issue(account_of(tenant), name="x", scopes=["admin"], now=utc_now())
        session.add(operators)
    admin = f"{PATH}/{ids.show(Prefix.API_KEY, operators.id)}"
    more, less = f"{PATH}/{(await made('profiles:read'))['id']}", f"{PATH}/{(await made('account:read'))['id']}"
    async with client_of(tenant, (await made("account:write", "account:read"))["key"]) as small:
        for each in (admin, more):
            for change in ({"name": "y"}, {"expires_at": "2999-01-01T00:00:00Z"}):
                refused = await small.patch(each, json=change)
                assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
        refused = await small.delete(admin)
        assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
        assert (await small.patch(less, json={"name": "y"})).status_code == 200
        assert (await small.delete(more)).status_code == 204  # whoever finds one that leaked ends it
    assert (await tenant.http.get(admin)).json()["revoked_at"] is None


@pytest.mark.parametrize(
    "expires_at",
    ["2030-01-01T00:00:00", "tomorrow", 1893456000, "1893456000", "2030-01-01", "9999-12-31T23:59:59-01:00"],
)
async def test_a_moment_without_a_zone_is_refused(tenant, expires_at):
    body = {"name": "x", "scopes": ["account:read"], "expires_at": expires_at}
    refused = await tenant.http.post(PATH, json=body)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/body/expires_at")


async def test_a_key_does_not_expire_before_now(tenant):
    body = {"name": "x", "scopes": ["account:read"]}
    made, passed = (await tenant.http.post(PATH, json=body)).json(), {"expires_at": utc_now().isoformat()}
    for refused in (
        await tenant.http.post(PATH, json=body | passed),
        await tenant.http.patch(f"{PATH}/{made['id']}", json=passed),
    ):
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/body/expires_at")
    kept = [key["expires_at"] for key in (await tenant.http.get(PATH)).json()["data"] if key["name"] == "x"]
    assert kept == [None]


async def test_moments_are_shown_in_utc(tenant):
    body = {"name": "x", "scopes": ["account:read"], "expires_at": "2030-01-01T02:00:00+02:00"}
    made = (await tenant.http.post(PATH, json=body)).json()
    assert made["expires_at"] == "2030-01-01T00:00:00Z"
    assert made["created_at"].endswith("Z")
