"""Segments over HTTP: made, edited, put into use and out of it."""

import pytest
from tests.api.walk import client_with
from tests.api.world import upload
from tests.scheduler.world import body, new_connection, put_schedule

LOYALTY = {
    "name": "loyalty",
    "description": "Who is how loyal",
    "type": "SCD",
    "method": "upload",
    "upload_type": "manual",
}


async def make(tenant, **changes):
    return (await tenant.http.post("/v1/segments", json=LOYALTY | changes)).raise_for_status().json()


async def do(tenant, segment, verb):
    return await tenant.http.post(f"/v1/segments/{segment['id']}/{verb}")


async def show(tenant, segment):
    return (await tenant.http.get(f"/v1/segments/{segment['id']}")).raise_for_status().json()


@pytest.mark.rule("S3")
@pytest.mark.parametrize("field", LOYALTY)
async def test_each_field_is_needed(tenant, field):
    body = {name: value for name, value in LOYALTY.items() if name != field}
    refused = await tenant.http.post("/v1/segments", json=body)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, f"/body/{field}")


@pytest.mark.rule("S3", "S4", "S20")
@pytest.mark.parametrize(
    ("field", "value"),
    [("type", "scd"), ("type", "Type 2"), ("method", "magic"), ("upload_type", "ftp"), ("name", "a__b"), ("name", "")],
)
async def test_what_is_no_value_of_a_field_is_refused(tenant, field, value):
    refused = await tenant.http.post("/v1/segments", json=LOYALTY | {field: value})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, f"/body/{field}")


@pytest.mark.rule("S38", "S10", "S40")
async def test_a_segment_is_saved_looked_at_and_then_created(tenant):
    made = await make(tenant)
    assert (made["status"], made["members"], made["refreshed_at"]) == ("draft", 0, None)
    assert (await show(tenant, made)) == made
    created = (await do(tenant, made, "activate")).raise_for_status().json()
    assert created["status"] == "in_progress"


async def test_a_name_is_used_once_by_an_account_and_freed_by_deleting(tenant, other):
    made = await make(tenant)
    again = await tenant.http.post("/v1/segments", json=LOYALTY)
    assert (again.status_code, again.json()["code"]) == (409, "segment_exists")
    await make(other)
    assert (await tenant.http.delete(f"/v1/segments/{made['id']}")).status_code == 204
    assert (await tenant.http.get(f"/v1/segments/{made['id']}")).status_code == 404
    await make(tenant)


@pytest.mark.rule("S42")
async def test_the_list_is_filtered_and_searched(tenant):
    for name, kind in (("loyalty", "SCD"), ("LOYAL_2", "Non-SCD"), ("spending", "SCD")):
        await make(tenant, name=name, type=kind, description=f"About {name}")

    async def names(**params):
        return [each["name"] for each in (await tenant.http.get("/v1/segments", params=params)).json()["data"]]

    assert await names() == ["loyalty", "LOYAL_2", "spending"]
    assert await names(type="SCD") == ["loyalty", "spending"]
    assert await names(type="SCD", method="upload", q="loyal") == ["loyalty"]
    assert await names(q="l_2") == ["LOYAL_2"]
    assert await names(status="active") == []
    assert await names(sort="-name") == ["spending", "loyalty", "LOYAL_2"]


@pytest.mark.rule("S12", "S16", "S44")
async def test_a_draft_is_deactivated_changed_and_activated(tenant):
    made = await make(tenant)
    assert (await do(tenant, made, "deactivate")).json()["status"] == "inactive"
    again = await do(tenant, made, "deactivate")
    assert (again.status_code, again.json()["code"]) == (409, "segment_inactive")
    changed = await tenant.http.patch(f"/v1/segments/{made['id']}", json={"description": "Anew"})
    assert changed.json()["description"] == "Anew"
    assert (await do(tenant, made, "activate")).json()["status"] == "in_progress"


@pytest.mark.rule("S11", "S14", "S43")
async def test_a_segment_in_use_is_edited_by_a_draft_that_activate_publishes(tenant):
    made = await make(tenant)
    (await do(tenant, made, "activate")).raise_for_status()
    direct = await tenant.http.patch(f"/v1/segments/{made['id']}", json={"description": "Anew"})
    assert (direct.status_code, direct.json()["code"]) == (409, "segment_in_use")
    assert (await do(tenant, made, "activate")).status_code == 409
    draft = f"/v1/segments/{made['id']}/draft"
    assert (await tenant.http.get(draft)).status_code == 404
    (await tenant.http.put(draft, json={"name": "devotion", "description": "Anew"})).raise_for_status()
    waiting = await show(tenant, made)
    assert (waiting["name"], waiting["draft"]["name"]) == ("loyalty", "devotion")
    (await do(tenant, made, "activate")).raise_for_status()
    published = await show(tenant, made)
    assert (published["name"], published["description"], published["draft"]) == ("devotion", "Anew", None)


@pytest.mark.rule("S11", "S38")
@pytest.mark.parametrize("face", ["", "/draft"])
async def test_only_what_was_read_is_published(tenant, face):
    segment = await make(tenant)
    path = f"/v1/segments/{segment['id']}"
    (await tenant.http.put(f"{path}/draft", json={"name": "devotion"})).raise_for_status()
    reviewed = (await tenant.http.get(path + face)).headers["etag"]
    (await tenant.http.put(f"{path}/draft", json={"name": "passion"})).raise_for_status()
    stale = await tenant.http.post(f"{path}/activate", headers={"If-Match": reviewed})
    assert (stale.status_code, stale.json()["code"]) == (412, "changed_meanwhile")
    assert (await show(tenant, segment))["status"] == "draft"
    reviewed = (await tenant.http.get(path + face)).headers["etag"]
    published = await tenant.http.post(f"{path}/activate", headers={"If-Match": reviewed})
    assert (published.status_code, published.json()["name"]) == (200, "passion")


async def test_a_draft_that_is_dropped_changes_nothing(tenant):
    made = await make(tenant)
    draft = f"/v1/segments/{made['id']}/draft"
    (await tenant.http.put(draft, json={"name": "devotion"})).raise_for_status()
    assert (await tenant.http.delete(draft)).status_code == 204
    assert (await tenant.http.delete(draft)).status_code == 404
    assert (await show(tenant, made)) == made


async def test_what_is_in_use_is_not_deleted(tenant):
    made = await make(tenant)
    (await do(tenant, made, "activate")).raise_for_status()
    refused = await tenant.http.delete(f"/v1/segments/{made['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "segment_in_use")


@pytest.mark.rule("S2", "S44")
async def test_a_manual_segment_becomes_a_scheduled_one_and_waits_for_its_next_refresh(tenant):
    made = await make(tenant)
    (await do(tenant, made, "activate")).raise_for_status()
    assert await refreshed(tenant, made, b"user_id,level\nann,High\n") == "active"
    assert await published(tenant, made, {"description": "Anew"}) == "active"
    await put_schedule(tenant, made, body(await new_connection(tenant)))
    assert await published(tenant, made, {"upload_type": "scheduled"}) == "in_progress"
    assert await published(tenant, made, {"description": "Once more"}) == "in_progress"  # it still waits
    assert await refreshed(tenant, made, b"user_id,level\nann,Low\n") == "active"
    (await tenant.http.delete(f"/v1/segments/{made['id']}/schedule")).raise_for_status()


@pytest.mark.rule("S14", "S44")
@pytest.mark.parametrize("way", ["published", "patched"])
async def test_a_segment_whose_upload_type_was_changed_waits_though_it_was_out_of_use_meanwhile(tenant, way):
    made = await make(tenant)
    (await do(tenant, made, "activate")).raise_for_status()
    assert await refreshed(tenant, made, b"user_id,level\nann,High\n") == "active"
    (await do(tenant, made, "deactivate")).raise_for_status()
    assert (await do(tenant, made, "activate")).json()["status"] == "active"  # with its members
    await put_schedule(tenant, made, body(await new_connection(tenant)))
    if way == "published":
        assert await published(tenant, made, {"upload_type": "scheduled"}) == "in_progress"
    (await do(tenant, made, "deactivate")).raise_for_status()
    if way == "patched":
        patched = await tenant.http.patch(f"/v1/segments/{made['id']}", json={"upload_type": "scheduled"})
        patched.raise_for_status()
    assert (await do(tenant, made, "activate")).json()["status"] == "in_progress"
    assert await refreshed(tenant, made, b"user_id,level\nann,Low\n") == "active"
    (await tenant.http.delete(f"/v1/segments/{made['id']}/schedule")).raise_for_status()


async def refreshed(tenant, segment, data):
    """The status after a file."""
    file = await upload(tenant, "loyalty__1.csv", data)
    body = {"file_id": file["id"], "segment_id": segment["id"]}
    submitted = await tenant.http.post("/v1/ingestions", json=body)
    await tenant.ended(submitted.raise_for_status().json()["id"])
    return (await show(tenant, segment))["status"]


async def published(tenant, segment, draft):
    """The status after a draft was published."""
    (await tenant.http.put(f"/v1/segments/{segment['id']}/draft", json=draft)).raise_for_status()
    return (await do(tenant, segment, "activate")).raise_for_status().json()["status"]


@pytest.mark.rule("S13", "S15")
async def test_a_key_that_only_reads_is_shown_no_segment_that_is_not_active(tenant):
    made = await make(tenant)
    async with await client_with(tenant, "segments:read") as consumer:
        for verb in (None, "activate", "deactivate"):
            if verb:
                (await do(tenant, made, verb)).raise_for_status()
            assert (await consumer.get(f"/v1/segments/{made['id']}")).status_code == 404
            assert (await consumer.get("/v1/segments")).json()["data"] == []
            assert (await consumer.get("/v1/segments", params={"status": "inactive"})).json()["data"] == []


async def test_a_key_that_only_reads_is_shown_the_draft_and_the_schedule_of_what_is_active(tenant):
    made = await make(tenant)
    (await do(tenant, made, "activate")).raise_for_status()
    assert await refreshed(tenant, made, b"user_id,level\nann,High\n") == "active"
    paths = [f"/v1/segments/{made['id']}/{each}" for each in ("draft", "schedule")]
    (await tenant.http.put(paths[0], json={"name": "devotion"})).raise_for_status()
    await put_schedule(tenant, made, body(await new_connection(tenant)))
    async with await client_with(tenant, "segments:read") as consumer:
        for path in paths:
            assert (await consumer.get(path)).json() == (await tenant.http.get(path)).json()
            assert (await consumer.delete(path)).json()["code"] == "scope_missing"
        (await do(tenant, made, "deactivate")).raise_for_status()
        assert [(await consumer.get(path)).status_code for path in paths] == [404, 404]
    (await tenant.http.delete(paths[1])).raise_for_status()
