"""The clock: one run for each slot, whatever restarts, replicas and clocks do."""

import asyncio
from datetime import datetime, time, timedelta

import pytest
from tests.api.world import account_of
from tests.scheduler.world import (
    TODAY,
    body,
    move_clock,
    new_connection,
    next_due,
    put_schedule,
    runs_of,
    schedule_of,
    scheduled,
)

from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.store import accounts, schedules
from ingestd.store.engine import transaction, utc_now

DAY = timedelta(days=1)


@pytest.fixture
async def connection(tenant):
    return await new_connection(tenant)


@pytest.fixture
async def segment(tenant, connection):
    async with scheduled(tenant, connection) as made:
        yield made


async def slots(tenant, segment):
    """The days of a segment's runs, oldest first, and whether each was missed."""
    return [(each["slot"], each["result"] == "missed") for each in reversed(await runs_of(tenant, segment))]


@pytest.mark.rule("S8", "S30")
async def test_a_run_is_made_at_the_sync_time_and_not_before(tenant, segment):
    due = await next_due(tenant, segment)
    assert due.time() == time(2)
    await move_clock(tenant, due - timedelta(microseconds=1))
    assert await runs_of(tenant, segment) == []
    await move_clock(tenant, due)
    [run] = await runs_of(tenant, segment)
    assert (run["slot"], datetime.fromisoformat(run["due_at"])) == (str(due.date()), due)
    assert await next_due(tenant, segment) == due + DAY


async def test_of_many_looks_at_once_one_makes_the_run(tenant, segment):
    due = await next_due(tenant, segment)
    await asyncio.gather(*(move_clock(tenant, due) for _ in range(8)))
    assert len(await runs_of(tenant, segment)) == 1


async def test_a_clock_that_is_put_back_makes_no_second_run(tenant, segment):
    due = await next_due(tenant, segment)
    for now in (due, due - DAY, due - timedelta(hours=1), due, due + timedelta(hours=1)):
        await move_clock(tenant, now)
    assert await slots(tenant, segment) == [(str(due.date()), False)]


async def test_after_a_downtime_the_newest_slot_runs_and_the_others_are_listed_as_missed(tenant, segment):
    due = await next_due(tenant, segment)
    await move_clock(tenant, due + 3 * DAY + timedelta(hours=5))
    days = [str((due + number * DAY).date()) for number in range(4)]
    assert await slots(tenant, segment) == [(days[0], True), (days[1], True), (days[2], True), (days[3], False)]
    [oldest] = (await runs_of(tenant, segment))[-1:]
    assert (oldest["state"], oldest["outcome"], oldest["error"]["code"]) == ("ended", "failed", "run_missed")
    assert await next_due(tenant, segment) == due + 4 * DAY
    assert len(await runs_of(tenant, segment, result="missed")) == 3


@pytest.mark.rule("S36", "S46")
async def test_missed_runs_are_told_each_and_by_one_mail(tenant, receiver, connection):
    made = await tenant.http.post("/v1/recipients", json={"address": "ann@example.org", "name": "Ann"})
    async with scheduled(tenant, connection, recipients=[made.raise_for_status().json()["id"]]) as segment:
        async with transaction(tenant.app.intake.sessions) as session:  # as if no clock had run for three days
            account = await accounts.lock(session, account_of(tenant))
            schedule = await schedules.get(session, account.id, ids.read(Prefix.SEGMENT, segment["id"]), lock=True)
            schedule.valid_from, schedule.since = TODAY - 9 * DAY, utc_now() - 3 * DAY
            schedule.plan_next(account)
        await move_clock(tenant, utc_now())
        missed = await runs_of(tenant, segment, result="missed")
        assert len(missed) == 2
        for run in missed:
            assert (await receiver.until("run.failed", run["id"]))["error"]["code"] == "run_missed"
        mails = (await tenant.http.get("/v1/messages")).raise_for_status().json()["data"]
        assert [each["about"] for each in mails if each["about"] in {run["id"] for run in missed}] == [missed[0]["id"]]


async def test_a_sync_time_that_moves_makes_no_day_run_twice_and_none_be_lost(tenant, segment):
    due = await next_due(tenant, segment)
    await move_clock(tenant, due)
    for sync_time in ("23:00:00", "01:00:00"):
        (await tenant.http.patch("/v1/account", json={"sync_time": sync_time})).raise_for_status()
        await move_clock(tenant, due + timedelta(hours=22))
    assert await slots(tenant, segment) == [(str(due.date()), False)]
    await move_clock(tenant, due + DAY)  # the slot of the day after was at one o'clock
    assert [day for day, _ in await slots(tenant, segment)] == [str(due.date()), str((due + DAY).date())]


async def test_a_sync_time_that_moves_to_before_the_schedule_was_saved_loses_no_day(
    tenant, segment, connection, monkeypatch
):
    (await tenant.http.patch("/v1/account", json={"sync_time": "23:00:00"})).raise_for_status()
    due = await next_due(tenant, segment)
    monkeypatch.setattr("ingestd.api.schedules.utc_now", lambda: due - timedelta(hours=13))
    await put_schedule(tenant, segment, body(connection))
    (await tenant.http.patch("/v1/account", json={"sync_time": "09:00:00"})).raise_for_status()
    assert await next_due(tenant, segment) == due - timedelta(hours=14)
    await move_clock(tenant, due - timedelta(hours=11))
    assert await slots(tenant, segment) == [(str(due.date()), False)]
    assert await next_due(tenant, segment) == due + timedelta(hours=10)


@pytest.mark.rule("S8", "S30")
async def test_a_schedule_that_is_saved_when_it_is_due_loses_no_run(tenant, segment, connection, monkeypatch):
    due = await next_due(tenant, segment)
    for late in (timedelta(0), timedelta(seconds=1)):
        monkeypatch.setattr("ingestd.api.schedules.utc_now", lambda late=late: due + late)
        await put_schedule(tenant, segment, body(connection, path="elsewhere"))
    await move_clock(tenant, due + timedelta(seconds=2))
    await put_schedule(tenant, segment, body(connection))
    await move_clock(tenant, due + timedelta(seconds=3))
    assert await slots(tenant, segment) == [(str(due.date()), False)]
    assert await next_due(tenant, segment) == due + DAY


async def test_a_paused_schedule_makes_no_run_and_makes_up_for_none(tenant, segment):
    due = await next_due(tenant, segment)
    url = f"/v1/segments/{segment['id']}/schedule"
    (await tenant.http.post(f"{url}/pause")).raise_for_status()
    await move_clock(tenant, due + 2 * DAY)
    assert await runs_of(tenant, segment) == []
    (await tenant.http.post(f"{url}/resume")).raise_for_status()
    assert await next_due(tenant, segment) == due


@pytest.mark.rule("S8", "S35")
async def test_after_the_last_day_of_its_validity_a_schedule_is_over(tenant, segment, connection):
    last = TODAY + 2 * DAY
    await put_schedule(tenant, segment, body(connection, valid_from=str(last), valid_to=str(last)))
    due = await next_due(tenant, segment)
    assert due.date() == last
    await move_clock(tenant, due + 10 * DAY)
    assert await slots(tenant, segment) == [(str(last), False)]
    assert (await schedule_of(tenant, segment))["next_run_at"] is None


@pytest.mark.rule("S8", "S35")
async def test_a_schedule_is_not_saved_for_a_day_that_has_had_its_run(tenant, segment, connection):
    last = TODAY + 2 * DAY
    await put_schedule(tenant, segment, body(connection, valid_from=str(last), valid_to=str(last)))
    await move_clock(tenant, await next_due(tenant, segment))
    again = body(connection, valid_from=str(last), valid_to=str(last), path="other")
    refused = await tenant.http.put(f"/v1/segments/{segment['id']}/schedule", json=again)
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "never_due")
    assert (await schedule_of(tenant, segment))["path"] == "demo_path"


async def test_the_log_is_filtered_by_time_and_outcome(tenant, segment):
    due = await next_due(tenant, segment)
    await move_clock(tenant, due + DAY)
    assert len(await runs_of(tenant, segment, created_from=due.isoformat())) == 2
    assert await runs_of(tenant, segment, created_to=due.isoformat()) == []
    assert await runs_of(tenant, segment, outcome="succeeded") == []
