"""Exports hold a transaction while they are sent: in turn, and not for ever."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import psycopg
import pytest
from tests.test_segment_files import make, refresh

from ingestd.api import export_limit, exports
from ingestd.api.export_limit import EXPORTS, ExportLimit
from ingestd.api.exports import CSV, Export
from ingestd.store.engine import new_id

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%segment_members%'"


async def test_the_exports_of_one_account_keep_no_other_waiting(tenant, other, ground):
    segment = await make(tenant)
    await refresh(tenant, segment, b"user_id,level\nann,High\n")
    async with (
        await psycopg.AsyncConnection.connect(ground.database_url, autocommit=True) as watch,
        await psycopg.AsyncConnection.connect(ground.database_url) as lock,
        asyncio.TaskGroup() as tasks,
    ):
        await lock.execute("LOCK TABLE segment_members IN ACCESS EXCLUSIVE MODE")
        path = f"/v1/segments/{segment}/export"
        stuck = [tasks.create_task(tenant.http.get(path, timeout=None)) for _ in range(EXPORTS)]
        while (await (await watch.execute(WAITING)).fetchone()) == (0,):
            pass
        answer = await other.http.get("/v1/ingestions", headers={"Accept": CSV})
        assert answer.status_code == 200
        await lock.rollback()
    assert {len(each.result().text.splitlines()) for each in stuck} == {2}


@pytest.mark.parametrize(
    ("accept", "csv"),
    [
        ("text/csv", True),
        ("TEXT/CSV; q=0.5", True),
        ("text/csv;q=0.1, application/json", False),
        ("application/json;q=0.1, text/csv;q=0.9", True),
        ("text/csv;q=0", False),
        ("text/csv;q=0, */*", False),
        ("text/csv, */*", True),
        ("*/*, text/csv", True),
        ("application/json, text/csv", False),
        ("text/csv, application/json", True),
        ("text/html, application/xml;q=0.9, */*;q=0.8", False),
        ("*/*", False),
        ("", False),
        ("text/csv;q=much", False),
    ],
)
async def test_the_activity_log_is_csv_to_who_would_rather_have_that(tenant, accept, csv):
    answer = await tenant.http.get("/v1/ingestions", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("text/csv" if csv else "application/json")
    assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize("limit", ["SILENCE_SECONDS", "LONGEST_SECONDS"])
async def test_who_does_not_take_an_export_is_cut_off_and_the_turn_given_on(monkeypatch, limit):
    monkeypatch.setattr(exports, limit, 0.01)
    account, parts, sent, closed = new_id(), SimpleNamespace(exports=ExportLimit()), [], []

    async def pieces():
        try:
            yield "a"
            yield "b"
        finally:
            closed.append(True)

    async def send(message):
        sent.append(message.get("body"))
        if len(sent) > 1:
            await asyncio.Event().wait()

    await Export(parts, account, pieces(), media_type=CSV, name="x.csv").stream_response(send)
    assert (sent, closed) == ([None, b"a"], [True])
    async with parts.exports.hold(account):
        pass


async def test_who_gets_no_turn_is_told_to_come_again_and_head_needs_none(monkeypatch, ground, tenant):
    segment = await make(tenant)
    await refresh(tenant, segment, b"user_id,level\nann,High\n")
    path = f"/v1/segments/{segment}/export"
    async with (
        await psycopg.AsyncConnection.connect(ground.database_url, autocommit=True) as watch,
        await psycopg.AsyncConnection.connect(ground.database_url) as lock,
        asyncio.TaskGroup() as tasks,
    ):
        await lock.execute("LOCK TABLE segment_members IN ACCESS EXCLUSIVE MODE")
        stuck = tasks.create_task(tenant.http.get(path, timeout=None))
        while (await (await watch.execute(WAITING)).fetchone()) == (0,):
            pass
        monkeypatch.setattr(export_limit, "PATIENCE_SECONDS", 0.01)
        for wanted, headers in ((path, {}), ("/v1/ingestions", {"Accept": CSV})):
            assert (await tenant.http.head(wanted, headers=headers)).status_code == 200
            refused = await tenant.http.get(wanted, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_exports")
            assert refused.headers["Retry-After"].isdigit()
        await lock.rollback()
    assert stuck.result().status_code == 200
    assert (await tenant.http.get(path)).status_code == 200
