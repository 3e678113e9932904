"""The audit trail: who changed what, and that nobody can edit it."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from ingestd.store.engine import transaction


async def trail(tenant, **query):
    return (await tenant.http.get("/v1/audit", params=query)).raise_for_status().json()["data"]


async def test_a_change_is_in_the_trail_with_what_differs(tenant):
    answer = await tenant.http.post(
        "/v1/api-keys", json={"name": "old", "scopes": ["account:read"]}, headers={"X-Request-Id": "my-request"}
    )
    made = answer.json()
    await tenant.http.patch(f"/v1/api-keys/{made['id']}", json={"name": "new"})
    await tenant.http.delete(f"/v1/api-keys/{made['id']}")
    revoked, changed, created = await trail(tenant, target=made["id"])
    me = (await tenant.http.get("/v1/me")).json()
    assert created["actor"] == {"type": "api_key", "id": me["key_id"], "name": me["key_name"]}
    assert (created["action"], created["before"], created["after"]["name"]) == ("api_key.created", None, "old")
    assert created["request_id"] == "my-request"
    assert (changed["action"], changed["before"], changed["after"]) == (
        "api_key.changed", {"name": "old"}, {"name": "new"},
    )  # fmt: skip
    assert revoked["action"] == "api_key.revoked"
    assert (await trail(tenant, action="api_key.changed", actor=me["key_id"]))[0] == changed


async def test_what_is_refused_is_not_in_the_trail(tenant):
    before = await trail(tenant)
    await tenant.http.post("/v1/api-keys", json={"name": "x", "scopes": ["admin"]})
    assert await trail(tenant) == before


@pytest.mark.threat("T116")
@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit SET action = 'x'", "DELETE FROM audit", "TRUNCATE audit"],
)
async def test_the_database_refuses_to_change_the_trail(tenant, statement):
    with pytest.raises(ProgrammingError, match="append-only"):
        async with transaction(tenant.app.intake.sessions) as session:
            await session.execute(text(statement))
