"""What holds for every route: who may call it, what an error looks like, and that accounts do not see each other."""

import httpx
import pytest

UNKNOWN = "0" * 26
SAME = {"instance": "", "request_id": ""}
OPEN = {"/livez", "/readyz", "/version", "/problems", "/openapi.json"}


def routes(document):
    return [(method.upper(), path) for path, item in document["paths"].items() for method in item]


async def ask(client, method, path):
    for name, prefix in (("ingestion_id", "ing"), ("key_id", "key"), ("webhook_id", "whk"), ("profile_id", "prf")):
        path = path.replace(f"{{{name}}}", f"{prefix}_{UNKNOWN}")
    return await client.request(method, path, json={} if method == "POST" else None)


@pytest.mark.threat("T153")
async def test_every_route_but_health_needs_a_key(tenant):
    document = (await tenant.http.get("/openapi.json")).json()
    async with httpx.AsyncClient(base_url=tenant.app.http_url, trust_env=False) as stranger:
        for method, path in routes(document):
            answer = await ask(stranger, method, path)
            assert answer.status_code == (200 if path in OPEN else 401), path
            if path not in OPEN:
                assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.threat("T51")
@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic abc", f"Bearer isk_{UNKNOWN}_secret", "Bearer isk__", "Bearer " + "x" * 20000,
     "Bearer isk_" + "é" * 26 + "_x", "Bearer isk_" + UNKNOWN + "_\x00"],
)  # fmt: skip
async def test_what_is_no_key_is_401_and_never_an_error_of_ours(tenant, header):
    async with httpx.AsyncClient(base_url=tenant.app.http_url, trust_env=False) as stranger:
        try:
            answer = await stranger.get("/v1/account", headers={"authorization": header.encode("latin-1", "ignore")})
        except (httpx.LocalProtocolError, UnicodeEncodeError):
            pytest.skip("the client refuses to send it")
    assert answer.status_code in {400, 401, 431}


async def test_a_revoked_key_opens_nothing_more(tenant):
    made = (await tenant.http.post("/v1/api-keys", json={"name": "second", "scopes": ["account:read"]})).json()
    async with httpx.AsyncClient(
        base_url=tenant.app.http_url, headers={"Authorization": f"Bearer {made['key']}"}, trust_env=False
    ) as client:
        assert (await client.get("/v1/account")).status_code == 200
        missing = await client.get("/v1/ingestions")
        assert (missing.status_code, missing.json()["code"]) == (403, "scope_missing")
        assert "ingestions:read" in missing.json()["detail"]
        assert (await tenant.http.delete(f"/v1/api-keys/{made['id']}")).status_code == 204
        assert (await client.get("/v1/account")).status_code == 401


async def test_a_key_cannot_give_what_it_has_not(tenant):
    scopes = ["account:read", "account:write"]
    made = (await tenant.http.post("/v1/api-keys", json={"name": "small", "scopes": scopes})).json()
    async with httpx.AsyncClient(
        base_url=tenant.app.http_url, headers={"Authorization": f"Bearer {made['key']}"}, trust_env=False
    ) as client:
        refused = await client.post("/v1/api-keys", json={"name": "more", "scopes": ["admin"]})
    assert refused.status_code == 403


@pytest.mark.threat("T59")
@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v1/nowhere", None, 404, "not_found"),
        ("PUT", "/v1/account", None, 405, "method_not_allowed"),
        ("POST", "/v1/profiles/lookup", b"{", 400, "bad_request"),
        ("POST", "/v1/profiles/lookup", b"{}", 422, "invalid"),
        ("POST", "/v1/webhooks", b'{"name": "x", "url": "https://10.0.0.1/"}', 403, "egress_denied"),
        ("POST", "/v1/webhooks", b'{"name": "x", "url": "ftp://example.org/"}', 422, "url_invalid"),
        ("GET", "/v1/ingestions/ing_" + UNKNOWN, None, 404, "not_found"),
        ("GET", "/v1/ingestions/nothing", None, 404, "not_found"),
        ("GET", "/v1/ingestions?limit=201", None, 422, "invalid"),
    ],
)
async def test_every_error_is_a_problem_document(tenant, method, path, body, status, code):
    answer = await tenant.http.request(method, path, content=body, headers={"content-type": "application/json"})
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["type"] == f"urn:ingestd:problem:{code}"
    assert problem["detail"]


@pytest.mark.threat("T56")
async def test_an_error_never_repeats_what_was_sent(tenant):
    canary = "canary-7f3a"
    body = {"identifiers": [{"kind": canary, "value": canary, "more": canary}]}
    refused = await tenant.http.post("/v1/profiles/lookup", json=body)
    assert refused.status_code == 422
    assert canary not in refused.text


@pytest.mark.threat("T50")
async def test_what_another_account_has_cannot_be_told_from_what_nobody_has(tenant, other):
    ended = await other.push(b"identity,Age\nann,1\nbob,x\n", columns={"Age": {"dataType": "INTEGER"}})
    webhook = (await other.http.post("/v1/webhooks", json={"name": "w", "url": "https://127.0.0.1:8443/"})).json()
    profile = await other.profile("ann")
    import_key = (await other.http.get("/v1/import-keys")).json()["data"][0]
    api_key = (await other.http.get("/v1/api-keys")).json()["data"][0]
    theirs = [
        ("GET", f"/v1/ingestions/{ended['id']}"),
        ("GET", f"/v1/ingestions/{ended['id']}/error-file"),
        ("GET", f"/v1/profiles/{profile['id']}/events"),
        ("DELETE", f"/v1/webhooks/{webhook['id']}"),
        ("DELETE", f"/v1/import-keys/{import_key['id']}"),
        ("DELETE", f"/v1/api-keys/{api_key['id']}"),
    ]
    for method, path in theirs:
        answer = await tenant.http.request(method, path)
        prefix, _, _ = path.split("/")[3].partition("_")
        unknown_path = path.replace(path.split("/")[3], f"{prefix}_{UNKNOWN}")
        unknown = await tenant.http.request(method, unknown_path)
        assert answer.status_code == unknown.status_code == 404, path
        assert answer.json() | SAME == unknown.json() | SAME, path
    assert (await other.http.get(f"/v1/ingestions/{ended['id']}")).status_code == 200
    for path in ("/v1/ingestions", "/v1/webhooks", "/v1/import-keys", "/v1/api-keys"):
        assert other.id not in (await tenant.http.get(path)).text


@pytest.mark.rule("S80", "S81", "S82", "S84")
async def test_an_import_key_is_a_public_key_with_a_name_and_no_chosen_user(tenant):
    listed = (await tenant.http.get("/v1/import-keys")).json()
    assert listed["server"]["url"].startswith(f"sftp://{tenant.id}@")
    assert listed["data"][0]["username"] == tenant.id
    key = {"name": "second", "public_key": listed["data"][0]["public_key"]}
    for body, status in (
        (key, 409),
        (key | {"name": "first"}, 409),
        (key | {"username": "root"}, 422),
        (key | {"public_key": "-----BEGIN OPENSSH PRIVATE KEY-----"}, 422),
        ({"public_key": key["public_key"]}, 422),
    ):
        assert (await tenant.http.post("/v1/import-keys", json=body)).status_code == status, body


@pytest.mark.rule("S137")
async def test_the_activity_log_pages_through_every_ingestion_newest_first(tenant):
    pushed = [(await tenant.push(b"identity\nann\n"))["id"] for _ in range(5)]
    seen, cursor = [], None
    for _ in range(3):
        parameters = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await tenant.http.get("/v1/ingestions", params=parameters)).json()
        seen += [each["id"] for each in page["data"]]
        cursor = page["next_cursor"]
    assert seen == pushed[::-1]
    assert cursor is None
