"""What an error looks like, what a key may give, and the activity log."""

import httpx
import pytest

UNKNOWN = "0" * 26


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


async def test_a_rule_of_ours_is_said_in_a_sentence_of_its_own(tenant):
    refused = (await tenant.http.patch("/v1/account", json={"time_zone": "Mars/Olympus"})).json()
    (problem,) = refused["errors"]
    assert problem["pointer"] == "/body/time_zone"
    assert problem["detail"][0].isupper()
    assert not problem["detail"].startswith("Value error")


@pytest.mark.threat("T56")
async def test_an_error_never_repeats_what_was_sent(tenant):
    canary = "canary-7f3a"
    body = {"identifiers": [{"kind": canary, "value": canary, "more": canary}]}
    refused = await tenant.http.post("/v1/profiles/lookup", json=body)
    assert refused.status_code == 422
    assert canary not in refused.text


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


@pytest.mark.parametrize("path", ["/v1/ingestions", "/v1/webhooks", "/v1/connections"])
async def test_what_is_wrong_with_a_body_is_told_once(tenant, path):
    refused = (await tenant.http.post(path, json={})).json()
    told = [(each["pointer"], each["code"]) for each in refused["errors"]]
    assert len(told) == len(set(told))
    assert refused["detail"].startswith(f"{len(told)} ")


@pytest.mark.parametrize(
    ("path", "body", "pointer", "detail"),
    [
        ("/v1/recipients", [], "/body", "Must be a JSON object"),
        ("/v1/filters/preview", {"condition": "x"}, "/body/condition", "Must be a JSON object"),
        ("/v1/filters/preview", {"condition": {"all": []}}, "/body/condition/all", "Tuple should have at least 1 item"),
        ("/v1/filters/preview", {"condition": {"not": {"op": "exists"}}}, "/body/condition/not/attribute", "Field req"),
        ("/v1/webhooks", {"name": "w", "url": "https://x", "headers": {"a b": "x"}}, "/body/headers/a b", "String"),
    ],
)
async def test_a_problem_points_at_what_was_sent(tenant, path, body, pointer, detail):
    [problem] = (await tenant.http.post(path, json=body)).json()["errors"]
    assert problem["pointer"] == pointer
    assert problem["detail"].startswith(detail)


async def test_a_word_of_an_enumeration_is_told_as_it_is_sent(tenant):
    body = {"name": "x", "description": "x", "type": "SCD", "method": "filter", "upload_type": "manual"}
    [problem] = (await tenant.http.post("/v1/segments", json=body)).json()["errors"]
    assert problem["detail"] == "Input should be 'upload'"
