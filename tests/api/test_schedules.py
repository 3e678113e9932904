"""The schedule of a segment through the door: made, replaced, tried out, paused, resumed, taken away."""

from datetime import date, datetime, timedelta

import pytest
from tests.api.sources import CRMID, source
from tests.api.walk import client_with
from tests.api.world import account_of
from tests.scheduler.world import (
    TODAY,
    activate,
    body,
    new_connection,
    new_segment,
    put_schedule,
    schedule_of,
    scheduled,
)

from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.store import schedules
from ingestd.store.engine import transaction

DAY = timedelta(days=1)
NEXT_YEAR = f"{TODAY.year + 1}-01-01"


@pytest.fixture
async def connection(tenant):
    return await new_connection(tenant)


@pytest.fixture
async def segment(tenant, connection):
    async with scheduled(tenant, connection) as made:
        yield made


def url(segment, verb=""):
    return f"/v1/segments/{segment['id']}/schedule{verb}"


@pytest.mark.rule("S1", "S35", "S38")
async def test_a_schedule_rests_until_its_segment_is_activated(tenant, connection):
    segment = await new_segment(tenant)
    assert (await tenant.http.get(url(segment))).status_code == 404
    refused = await tenant.http.post(f"/v1/segments/{segment['id']}/activate")
    assert (refused.status_code, refused.json()["code"]) == (409, "schedule_missing")
    saved = await put_schedule(tenant, segment, body(connection))
    assert (saved["active"], saved["next_run_at"]) == (False, None)
    assert (saved["valid_from"], saved["path"]) == (str(TODAY), "demo_path")
    await activate(tenant, segment)
    running = await schedule_of(tenant, segment)
    due = datetime.fromisoformat(running["next_run_at"])
    assert (running["active"], due.hour, due.date() - TODAY) in [(True, 2, timedelta(days)) for days in (0, 1)]
    (await tenant.http.post(f"/v1/segments/{segment['id']}/deactivate")).raise_for_status()
    assert (await schedule_of(tenant, segment))["next_run_at"] is None


@pytest.mark.rule("S2", "S43")
async def test_a_segment_that_was_refreshed_by_hand_is_switched_to_a_schedule(tenant, connection):
    segment = await new_segment(tenant, upload_type="manual")
    await activate(tenant, segment)
    assert (await put_schedule(tenant, segment, body(connection)))["active"] is False
    refused = await tenant.http.post(f"/v1/segments/{segment['id']}/runs")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_scheduled")
    draft = await tenant.http.put(f"/v1/segments/{segment['id']}/draft", json={"upload_type": "scheduled"})
    assert draft.status_code == 200
    assert (await activate(tenant, segment))["status"] == "in_progress"
    assert (await schedule_of(tenant, segment))["next_run_at"] is not None
    (await tenant.http.delete(url(segment))).raise_for_status()


@pytest.mark.rule("S17", "S19", "S26", "S35", "S37")
@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"frequency": "hourly"}, "/body/frequency"),
        ({"valid_to": str(TODAY - timedelta(days=1))}, "/body"),
        ({"valid_from": "2020-01-01", "valid_to": "2020-12-31"}, "/body/valid_to"),
        ({"frequency": "monthly", "valid_from": f"{TODAY.year + 1}-02-02", "valid_to": f"{TODAY.year + 1}-02-28"},
         "/body/valid_to"),
        ({"valid_from": 1_600_000_000}, "/body/valid_from"),
        ({"valid_from": "2020-10-01T00:00:00"}, "/body/valid_from"),
        ({"valid_to": "3000-01-01"}, "/body/valid_to"),
        ({"connection": "con_" + "0" * 26}, "/body/connection"),
        ({"recipients": ["rcp_" + "0" * 26]}, "/body/recipients/0"),
        ({"connection": "partner"}, "/body/connection"),
        ({"recipients": ["ann@example.org"]}, "/body/recipients/0"),
        ({"path": "../other"}, "/body/path"),
        ({"path": "ftp://demo_apac/demo_path"}, "/body/path"),
    ],
)  # fmt: skip
async def test_what_makes_no_schedule_is_refused_where_it_is_wrong(tenant, connection, change, pointer):
    segment = await new_segment(tenant)
    refused = await tenant.http.put(url(segment), json=body(connection) | change)
    assert (refused.status_code, [each["pointer"] for each in refused.json()["errors"]]) == (422, [pointer])
    assert (await tenant.http.get(url(segment))).status_code == 404


@pytest.mark.rule("S8", "S38")
async def test_a_segment_whose_schedule_can_never_run_is_not_activated(tenant, connection):
    segment = await new_segment(tenant)
    await put_schedule(tenant, segment, body(connection, valid_to=str(TODAY + DAY), valid_from=str(TODAY + DAY)))
    async with transaction(tenant.app.intake.sessions) as session:  # as if days had passed since
        schedule = await schedules.get(session, account_of(tenant), ids.read(Prefix.SEGMENT, segment["id"]))
        schedule.valid_from = schedule.valid_to = TODAY - DAY
    refused = await tenant.http.post(f"/v1/segments/{segment['id']}/activate")
    assert (refused.status_code, refused.json()["code"]) == (409, "never_due")
    shown = (await tenant.http.get(f"/v1/segments/{segment['id']}")).json()
    assert (shown["status"], (await schedule_of(tenant, segment))["active"]) == ("draft", False)
    await put_schedule(tenant, segment, body(connection))
    await activate(tenant, segment)
    (await tenant.http.delete(url(segment))).raise_for_status()


@pytest.mark.rule("S17", "S37")
async def test_what_another_account_has_is_unknown(tenant, other, connection):
    theirs = await new_connection(other)
    recipient = await other.http.post("/v1/recipients", json={"address": "ann@example.org", "name": "Ann"})
    wrong = body(theirs, recipients=[recipient.json()["id"]])
    refused = await tenant.http.put(url(await new_segment(tenant)), json=wrong)
    assert [each["code"] for each in refused.json()["errors"]] == ["connection_unknown", "recipient_unknown"]


@pytest.mark.rule("S31")
async def test_weekly_and_monthly_are_taken_with_an_advice(tenant, segment, connection):
    for frequency, codes in (("daily", []), ("weekly", ["daily_recommended"]), ("monthly", ["daily_recommended"])):
        saved = await put_schedule(tenant, segment, body(connection, frequency=frequency))
        assert [each["code"] for each in saved["advice"]] == codes


@pytest.mark.rule("S36")
async def test_recipients_are_kept_once_each_and_forgotten_when_they_are_deleted(tenant, segment, connection):
    recipient = (await tenant.http.post("/v1/recipients", json={"address": "ann@example.org", "name": "Ann"})).json()
    saved = await put_schedule(tenant, segment, body(connection, recipients=[recipient["id"]] * 2))
    assert saved["recipients"] == [recipient["id"]]
    (await tenant.http.delete(f"/v1/recipients/{recipient['id']}")).raise_for_status()
    assert (await schedule_of(tenant, segment))["recipients"] == []


async def test_a_timetable_is_tried_out_without_being_kept(tenant):
    change = {"time_zone": "Europe/Vienna", "sync_time": "02:30:00"}
    (await tenant.http.patch("/v1/account", json=change)).raise_for_status()
    wanted = {"frequency": "monthly", "valid_from": NEXT_YEAR, "valid_to": "2999-12-31"}
    shown = (await tenant.http.post("/v1/schedules/preview", json=wanted)).raise_for_status().json()
    days = [date.fromisoformat(each["day"]) for each in shown["runs"]]
    assert (len(days), {each.day for each in days}, days[0]) == (10, {1}, date.fromisoformat(NEXT_YEAR))
    assert shown["runs"][0]["local"] == f"{NEXT_YEAR}T02:30:00+01:00"
    assert shown["runs"][0]["at"] == f"{NEXT_YEAR}T01:30:00Z"
    assert shown["description"].startswith("On the first day of every month at 02:30 (Europe/Vienna), first on")
    over = wanted | {"valid_to": NEXT_YEAR, "valid_from": "2020-01-01", "frequency": "weekly"}
    assert len((await tenant.http.post("/v1/schedules/preview", json=over)).json()["runs"]) <= 10


async def test_the_next_run_follows_the_accounts_sync_time(tenant, segment):
    for sync_time in ("03:15:00", "23:45:00"):
        (await tenant.http.patch("/v1/account", json={"sync_time": sync_time})).raise_for_status()
        shown = await schedule_of(tenant, segment)
        assert (shown["next_run_at"][11:19], shown["sync_time"]) == (sync_time, sync_time)


async def test_a_schedule_is_paused_and_resumed_once(tenant, segment):
    for verb, again in (("/pause", "schedule_paused"), ("/resume", "schedule_not_paused")):
        done = (await tenant.http.post(url(segment, verb))).raise_for_status().json()
        assert (done["pause_reason"], done["next_run_at"] is None) == (
            ("requested", True) if verb == "/pause" else (None, False)
        )
        refused = await tenant.http.post(url(segment, verb))
        assert (refused.status_code, refused.json()["code"]) == (409, again)


async def test_a_schedule_is_replaced_only_as_it_was_seen(tenant, segment, connection):
    tag = (await tenant.http.get(url(segment))).headers["etag"]
    change = body(connection, path="elsewhere")
    saved = await tenant.http.put(url(segment), json=change, headers={"If-Match": tag})
    assert (saved.status_code, saved.json()["path"]) == (200, "elsewhere")
    stale = await tenant.http.put(url(segment), json=change, headers={"If-Match": tag})
    assert (stale.status_code, stale.json()["code"]) == (412, "changed_meanwhile")


async def test_a_schedule_goes_with_its_segment(tenant, segment):
    (await tenant.http.post(f"/v1/segments/{segment['id']}/deactivate")).raise_for_status()
    (await tenant.http.delete(f"/v1/segments/{segment['id']}")).raise_for_status()
    assert (await tenant.http.get(url(segment))).status_code == 404


@pytest.mark.rule("S17")
async def test_a_connection_that_a_schedule_uses_is_not_deleted(tenant, segment, connection):
    refused = await tenant.http.delete(f"/v1/connections/{connection['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "connection_used")
    [entry] = [
        each for each in (await tenant.http.get("/problems")).json()["data"] if each["code"] == "connection_used"
    ]
    assert "GET /v1/schedules?connection_id=" in entry["remedy"]
    [uses] = (await tenant.http.get("/v1/schedules", params={"connection_id": connection["id"]})).json()["data"]
    assert uses["segment"]["id"] == segment["id"]
    (await tenant.http.delete(url(segment))).raise_for_status()
    assert (await tenant.http.delete(f"/v1/connections/{connection['id']}")).status_code == 204


@pytest.mark.rule("S13", "S17", "D51")
async def test_the_schedules_of_an_account_are_listed_with_what_they_keep_fresh(tenant, segment, connection):
    crm, second = await source(tenant, crmid=CRMID), await new_connection(tenant, name="second")
    saved = (await tenant.http.put(f"{crm.path}/schedule", json=body(second))).raise_for_status().json()
    paused = (await tenant.http.post(url(segment, "/pause"))).raise_for_status().json()
    of_source = saved | {"segment": None, "data_source": {"id": crm.id, "name": "CRM"}}
    of_segment = paused | {"segment": {"id": segment["id"], "name": "loyalty"}, "data_source": None}
    for params, expected in (
        ({}, [of_segment, of_source]),
        ({"sort": "-created_at"}, [of_source, of_segment]),
        ({"paused": True}, [of_segment]),
        ({"paused": False}, [of_source]),
        ({"connection_id": second["id"]}, [of_source]),
        ({"connection_id": connection["id"], "paused": False}, []),
    ):
        page = (await tenant.http.get("/v1/schedules", params=params)).raise_for_status().json()
        assert (page["data"], page["next_cursor"]) == (expected, None), params
    first = (await tenant.http.get("/v1/schedules", params={"limit": 1})).json()
    rest = (await tenant.http.get("/v1/schedules", params={"limit": 1, "cursor": first["next_cursor"]})).json()
    assert first["data"] + rest["data"] == [of_segment, of_source]
    async with await client_with(tenant, "segments:read") as narrow:
        refused = await narrow.get("/v1/schedules")
        assert (refused.status_code, "data_sources:read" in refused.json()["detail"]) == (403, True)
    async with await client_with(tenant, "segments:read", "data_sources:read") as reader:
        assert (await reader.get("/v1/schedules")).json()["data"] == [of_source]  # the segment is not active yet
    (await tenant.http.delete(f"{crm.path}/schedule")).raise_for_status()


@pytest.mark.rule("S49", "D51")
async def test_a_schedule_of_a_data_source_is_read_and_one_tried_out_without_a_scope_to_write(tenant, connection):
    crm = await source(tenant, crmid=CRMID)
    saved = (await tenant.http.put(f"{crm.path}/schedule", json=body(connection))).raise_for_status().json()
    async with await client_with(tenant, "data_sources:read", "account:read") as reader:
        assert (await reader.get(f"{crm.path}/schedule")).json() == saved
        assert (await reader.delete(f"{crm.path}/schedule")).json()["code"] == "scope_missing"
        timetable = {"frequency": "daily", "valid_from": str(TODAY), "valid_to": NEXT_YEAR}
        tried = (await reader.post("/v1/schedules/preview", json=timetable)).raise_for_status().json()
        assert tried["time_zone"] == saved["time_zone"]
    (await tenant.http.delete(f"{crm.path}/schedule")).raise_for_status()
