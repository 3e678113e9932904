"""The end of an account: nothing of it stays but its audit trail."""

import json
from uuid import UUID

import pytest
from sqlalchemy import text
from tests.api.world import account_of, ingest, nothing_is_checked
from tests.test_segment_files import make, refresh

from ingestd.store import endings
from ingestd.store import engine as store
from ingestd.store.base import Base

ROWS = b"identity,Age\nann,1\nbob,old\n"
ENTRY = """
    INSERT INTO audit (id, account_id, actor, action, target, created_at)
    VALUES (:id, :account, CAST(:actor AS jsonb), :action, 'x', now() - make_interval(days => :days))
"""
AGE = {"Age": {"dataType": "INTEGER"}}


@pytest.fixture
async def end(tenant, operator):
    """Deletes the account as an operator."""
    headers = {"Authorization": f"Bearer {operator}"}

    async def delete(**more):
        return await tenant.http.delete(f"/v1/accounts/{tenant.id}", headers=headers | more)

    return delete


@pytest.fixture
def upkeep(upkeep, monkeypatch):
    monkeypatch.setattr(endings, "AT_ONCE", 1)
    return upkeep


def rows(upkeep, statement, **values):
    with upkeep.sql.begin() as connection:
        return connection.execute(text(statement), values).all()


def left(upkeep, account):
    """The tables that still have rows of the account."""
    tables = [table.name for table in Base.metadata.sorted_tables if "account_id" in table.c]
    return {name for name in tables if rows(upkeep, f"SELECT FROM {name} WHERE account_id = :id LIMIT 1", id=account)}


@pytest.mark.threat("T114")
async def test_a_deleted_account_is_shut_at_once_and_leaves_nothing_but_its_trail(
    tenant, other, receiver, end, upkeep, operator
):
    ended = await tenant.ended(await ingest(tenant, "x.csv", ROWS, columns=AGE))
    again = await tenant.http.post(f"/v1/ingestions/{ended['id']}/retry", json={"rows": "rejected"})
    await tenant.ended(again.raise_for_status().json()["id"])
    await other.ended(await ingest(other, "x.csv", ROWS, columns=AGE))
    await receiver.until("ingestion.completed", ended["id"])
    account = account_of(tenant)
    named = rows(upkeep, "SELECT blob FROM files WHERE account_id = :id", id=account)
    others = left(upkeep, account_of(other))
    assert {"profiles", "files", "ingestions", "api_keys", "import_keys", "deliveries"} <= left(upkeep, account)
    assert (await end()).status_code == 204

    assert (await tenant.http.get("/v1/me")).status_code == 401
    assert (await end()).status_code == 404
    assert rows(upkeep, "SELECT data_keys, index_key FROM accounts WHERE id = :id", id=account) == [(b"", b"")]

    upkeep.once(store.utc_now())
    assert left(upkeep, account) == {"audit"}
    assert left(upkeep, account_of(other)) == others
    assert rows(upkeep, "SELECT FROM accounts WHERE id = :id", id=account) == []
    assert rows(upkeep, "SELECT FROM ledger l LEFT JOIN ingestions i ON i.id = l.ingestion_id WHERE i.id IS NULL") == []
    assert named
    there = {blob.name for blob in upkeep.blobs.list("files")}
    assert {blob for (blob,) in named} <= there  # sealed with keys that are gone, until the next sweep
    headers = {"Authorization": f"Bearer {operator}"}
    trail = await other.http.get("/v1/audit", params={"target": tenant.id}, headers=headers)
    assert [entry["action"] for entry in trail.json()["data"]] == ["account.deleted"]


@pytest.mark.threat("T114")
async def test_the_members_of_a_deleted_account_s_segments_go_and_no_others(tenant, other, end, upkeep):
    """They know their segment, not their account."""
    for each in (tenant, other):
        await refresh(each, await make(each), b"user_id,level\nann,High\nbob,Low\n")
    numbers = "SELECT number FROM segments WHERE account_id = :id"
    ((gone,),), ((stays,),) = (rows(upkeep, numbers, id=account_of(each)) for each in (tenant, other))
    members = "SELECT value FROM segment_members WHERE segment = :number ORDER BY value"
    assert rows(upkeep, members, number=gone) == [("ann",), ("bob",)]
    assert (await end()).status_code == 204
    upkeep.once(store.utc_now())
    assert rows(upkeep, members, number=gone) == []
    assert rows(upkeep, members, number=stays) == [("ann",), ("bob",)]


async def test_an_account_with_an_ingestion_on_its_way_is_not_deleted(tenant, end, ground):
    async with nothing_is_checked(ground):
        made = await ingest(tenant, "x.csv", ROWS, columns=AGE)
        refused = await end()
        assert (refused.status_code, refused.json()["code"]) == (409, "account_busy")
    await tenant.ended(made)
    assert (await end(**{"If-Match": '"of-something-else"'})).status_code == 412
    refused = await end(**{"Account-Id": tenant.id})
    assert (refused.status_code, refused.json()["code"]) == (409, "account_in_use")
    assert (await tenant.http.get("/v1/me")).status_code == 200


async def test_an_audit_entry_is_forgotten_after_400_days_and_not_a_day_earlier(tenant, upkeep):
    actor = json.dumps({"type": "system", "id": None, "name": None})
    for days in (399, 401):
        values = {"id": UUID(int=days), "account": account_of(tenant), "actor": actor, "action": f"{days} days ago"}
        with upkeep.sql.begin() as connection:
            connection.execute(text(ENTRY), values | {"days": days})
    upkeep.once(store.utc_now())
    kept = {entry["action"] for entry in (await tenant.http.get("/v1/audit")).json()["data"]}
    assert "399 days ago" in kept
    assert "401 days ago" not in kept
