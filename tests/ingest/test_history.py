"""What was told, fetched and changed is forgotten after its time, and nothing of it that is still needed."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import pytest_asyncio
from sqlalchemy import text
from tests.api.sources import CRMID, source, tsv
from tests.fetch.servers import FtpServer, put
from tests.scheduler.world import ended, new_connection, scheduled

from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.store import engine as store

OF_ACCOUNT = "WHERE account_id = :account"
TABLES = {
    "notices": OF_ACCOUNT,
    "deliveries": OF_ACCOUNT,
    "messages": OF_ACCOUNT,
    "runs": OF_ACCOUNT,
    "data_source_changes": OF_ACCOUNT,
    "ledger": f"WHERE ingestion_id IN (SELECT id FROM ingestions {OF_ACCOUNT})",
}
OUTGOING = f"""
    SELECT FROM deliveries {OF_ACCOUNT} AND next_attempt_at IS NOT NULL
    UNION ALL SELECT FROM messages {OF_ACCOUNT} AND next_attempt_at IS NOT NULL
"""


def run(upkeep, tenant, statement):
    with upkeep.sql.begin() as connection:
        found = connection.execute(text(statement), {"account": ids.read(Prefix.ACCOUNT, tenant.id)})
        return found.all() if found.returns_rows else []


async def none_left(upkeep, tenant, statement):
    """Wait until a statement finds nothing; the test's time limit ends a wait in vain."""
    while True:
        if not run(upkeep, tenant, statement):
            return
        await asyncio.sleep(0.02)


def kept(upkeep, tenant):
    """How many rows of the account each table of history has."""
    return {
        table: run(upkeep, tenant, f"SELECT count(*) FROM {table} {which}")[0][0] for table, which in TABLES.items()
    }


async def forget(upkeep, *, after_days):
    now = store.utc_now() + timedelta(days=after_days)
    for chore in (upkeep.expire_notices, upkeep.expire_runs, upkeep.expire_ledger, upkeep.expire_changes):
        await asyncio.to_thread(chore, now)


@pytest_asyncio.fixture
async def history(upkeep, tenant, receiver):
    """An account whose every table of history has rows, and nothing on its way: the rows of each."""
    crm = await source(tenant, crmid=CRMID)
    await crm.ingest(tsv("crmid", "c-1"), notify=["data@example.org"])
    async with scheduled(tenant, await new_connection(tenant)) as segment:
        asked = await tenant.http.post(f"/v1/segments/{segment['id']}/runs")
        await ended(tenant, asked.raise_for_status().json())
    await none_left(upkeep, tenant, OUTGOING)
    found = kept(upkeep, tenant)
    assert all(found.values()), found
    return found


async def test_history_is_forgotten_after_its_time_and_what_it_led_to_stays(upkeep, tenant, history):
    await forget(upkeep, after_days=89)
    assert kept(upkeep, tenant) == history
    await forget(upkeep, after_days=91)
    assert not any(kept(upkeep, tenant).values())
    [ingestion] = (await tenant.http.get("/v1/ingestions")).json()["data"]
    assert ingestion["counts"]["created"] == 1
    assert await tenant.profile("c-1", "crmid")


@pytest.mark.rule("D1")
async def test_a_file_that_stays_the_same_is_not_fetched_again_however_long_ago_it_came(upkeep, tenant, tmp_path):
    (tmp_path / "theirs").mkdir()
    async with FtpServer(tmp_path / "theirs") as server:
        put(server.folder / "demo_path", "loyalty__a.csv")
        async with scheduled(tenant, await new_connection(tenant, **server.connection())) as segment:
            runs = f"/v1/segments/{segment['id']}/runs"
            first = await ended(tenant, (await tenant.http.post(runs)).raise_for_status().json())
            await forget(upkeep, after_days=91)
            again = await ended(tenant, (await tenant.http.post(runs)).raise_for_status().json())
            put(server.folder / "demo_path", "loyalty__b.csv", b"user_id,tier\nann,Low\n", age=60)
            newer = await ended(tenant, (await tenant.http.post(runs)).raise_for_status().json())
            assert sum(line.startswith("RETR") for line in server.commands) == 2
            await forget(upkeep, after_days=91)
            assert [each["id"] for each in (await tenant.http.get("/v1/runs")).json()["data"]] == [newer["id"]]
    assert (first["result"], again["result"], newer["result"]) == ("ingested", "unchanged", "ingested")


@pytest.mark.parametrize(
    ("open_", "table", "closed"),
    [
        ("UPDATE deliveries SET state = 'pending', next_attempt_at = now() + interval '1 hour'", "deliveries", None),
        ("UPDATE messages SET state = 'pending', next_attempt_at = now() + interval '1 hour'", "messages", None),
        ("UPDATE runs SET state = 'fetching'", "runs", "UPDATE runs SET state = 'ended'"),
        ("UPDATE ingestions SET status = 'in_progress'", "ledger", "UPDATE ingestions SET status = 'completed'"),
    ],
)
async def test_what_is_not_done_yet_stays_with_all_it_needs(upkeep, tenant, history, open_, table, closed):
    run(upkeep, tenant, f"{open_} {OF_ACCOUNT}")
    await forget(upkeep, after_days=91)
    left = kept(upkeep, tenant)
    assert left[table] == history[table]
    if closed is None:
        assert left["notices"] > 0
        assert left["runs"] == 0
        closed = f"UPDATE {table} SET state = 'delivered', next_attempt_at = NULL"
    run(upkeep, tenant, f"{closed} {OF_ACCOUNT}")


async def test_an_answer_that_holds_no_longer_is_forgotten_however_quiet_the_account(upkeep, tenant):
    key = {"name": "made once", "scopes": ["account:read"]}
    made = await tenant.http.post("/v1/api-keys", json=key, headers={"Idempotency-Key": "one"})
    assert made.status_code == 201
    answers, now = f"SELECT FROM idempotency_keys {OF_ACCOUNT}", store.utc_now()
    await asyncio.to_thread(upkeep.expire_answers, now + timedelta(hours=23))
    assert run(upkeep, tenant, answers) == [()]
    await asyncio.to_thread(upkeep.expire_answers, now + timedelta(hours=25))
    assert run(upkeep, tenant, answers) == []


async def test_workflows_are_forgotten_a_day_after_they_have_ended(upkeep, tenant):
    done, open_ = [ids.read(Prefix.INGESTION, (await tenant.push(b"identity\nann\n"))["id"]) for _ in range(2)]

    def there():
        names = f"SELECT workflow_uuid FROM dbos.workflow_status WHERE workflow_uuid IN ('{done}', '{open_}')"
        return {name for (name,) in run(upkeep, tenant, names)}

    await none_left(upkeep, tenant, "SELECT FROM dbos.workflow_status WHERE completed_at IS NULL")
    change = f"UPDATE dbos.workflow_status SET status = '{{}}', completed_at = {{}} WHERE workflow_uuid = '{open_}'"
    run(upkeep, tenant, change.format("PENDING", "NULL"))
    now = store.utc_now()
    await asyncio.to_thread(upkeep.expire_jobs, now + timedelta(hours=23))
    assert there() == {str(done), str(open_)}
    await asyncio.to_thread(upkeep.expire_jobs, now + timedelta(hours=25))
    assert there() == {str(open_)}
    run(upkeep, tenant, change.format("SUCCESS", "1"))
    await asyncio.to_thread(upkeep.expire_jobs, now)
    assert there() == set()
