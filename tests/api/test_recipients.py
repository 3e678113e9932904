"""Recipients: to whom an account's mail may go (S129 to S133, D39)."""

import json

import pytest
from tests.api.walk import code_of
from tests.api.world import manifest


async def register(tenant, address="ann@elsewhere.example", **more):
    return await tenant.http.post("/v1/recipients", json={"address": address, "name": "Ann"} | more)


async def test_a_recipient_is_registered_changed_and_deleted(tenant):
    made = await register(tenant, milestones=["failed", "completed"])
    assert made.status_code == 201
    shown = made.json()
    assert (shown["address"], shown["milestones"]) == ("ann@elsewhere.example", ["completed", "failed"])
    path = made.headers["location"]
    tag = (await tenant.http.get(path)).headers["etag"]
    changed = await tenant.http.patch(path, json={"milestones": []}, headers={"If-Match": tag})
    assert (changed.status_code, changed.json()) == (200, shown | {"milestones": []})
    assert (await tenant.http.patch(path, json={"name": "x"}, headers={"If-Match": tag})).status_code == 412
    assert (await tenant.http.patch(path, json={"address": "bob@elsewhere.example"})).status_code == 422
    assert [each["id"] for each in (await tenant.http.get("/v1/recipients")).json()["data"]] == [shown["id"]]
    assert (await tenant.http.delete(path)).status_code == 204
    assert (await tenant.http.get(path)).status_code == 404


@pytest.mark.threat("T60")
@pytest.mark.rule("D39")
async def test_an_address_is_one_address_in_its_normal_form_and_registered_once(tenant):
    assert (await register(tenant, "Ann@Elsewhere.EXAMPLE")).json()["address"] == "ann@elsewhere.example"
    again = await register(tenant, "ANN@elsewhere.example")
    assert (again.status_code, again.json()["code"]) == (409, "recipient_exists")
    for wrong in ("ann", "a@x.example, b@x.example", "a@x.example\r\nBcc: b@x.example", "a@[127.0.0.1]"):
        refused = await register(tenant, wrong)
        assert refused.status_code == 422, wrong
        assert wrong not in refused.text


@pytest.mark.rule("D39")
async def test_a_manifest_may_name_a_registered_address_and_no_longer_when_it_is_deleted(tenant, other):
    for of_another in (await register(other), await register(tenant)):
        assert of_another.status_code == 201
    path = of_another.headers["location"]
    outcomes = []
    for day in (1, 2):
        await tenant.put("x.csv", b"identity\nann\n")
        text = manifest("x.csv", clientEmail="ANN@elsewhere.example")
        await tenant.put(f"day{day}.manifest", json.dumps(text).encode())
        outcomes.append((await tenant.ended())["status"])
        await tenant.http.delete(path)
    assert outcomes == ["completed", "failed"]
    assert (await tenant.newest())["error"]["problems"][0]["code"] == "recipient_unknown"


@pytest.mark.rule("S37")
async def test_where_the_account_wants_it_an_address_counts_once_its_code_came_back(tenant):
    await tenant.http.patch("/v1/account", json={"confirm_recipients": True})
    made = (await register(tenant)).json()
    path = f"/v1/recipients/{made['id']}"
    naming = manifest("x.csv", clientEmail="ann@elsewhere.example")

    async def problems():
        return (await tenant.http.post("/v1/manifests/validate", json=naming)).json()["problems"]

    assert made["confirmed_at"] is None
    assert [each["code"] for each in await problems()] == ["recipient_unknown"]
    wrong = await tenant.http.post(f"{path}/confirm", json={"code": "aaaa-bbbb-cccc"})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/body/code")
    code = await code_of(tenant, made["id"])
    confirmed = (await tenant.http.post(f"{path}/confirm", json={"code": f" {code.upper()}"})).json()
    assert confirmed["confirmed_at"] is not None
    assert await problems() == []
