"""ETags: no update is lost, nothing is sent twice."""

import asyncio

import pytest


@pytest.fixture
async def made(tenant):
    answer = await tenant.http.post("/v1/api-keys", json={"name": "first name", "scopes": ["account:read"]})
    return f"/v1/api-keys/{answer.json()['id']}"


async def test_a_client_that_has_it_already_is_told_so(tenant, made):
    first = await tenant.http.get(made)
    tag = first.headers["etag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = await tenant.http.get(made, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert (await tenant.http.get(made, headers={"If-None-Match": '"other"'})).status_code == 200


async def test_an_update_of_what_was_changed_meanwhile_is_refused(tenant, made):
    tag = (await tenant.http.get(made)).headers["etag"]
    changed = await tenant.http.patch(made, json={"name": "second name"}, headers={"If-Match": tag})
    assert changed.status_code == 200
    lost = await tenant.http.patch(made, json={"name": "third name"}, headers={"If-Match": tag})
    assert (lost.status_code, lost.json()["code"]) == (412, "changed_meanwhile")
    assert (await tenant.http.delete(made, headers={"If-Match": tag})).status_code == 412
    now = await tenant.http.get(made)
    assert now.json()["name"] == "second name"
    assert now.headers["etag"] == changed.headers["etag"] != tag
    for known in (now.headers["etag"], "*"):
        assert (await tenant.http.patch(made, json={}, headers={"If-Match": known})).status_code == 200


async def test_of_two_updates_of_one_state_at_the_same_time_one_is_refused(tenant, made):
    tag = (await tenant.http.get(made)).headers["etag"]
    answers = await asyncio.gather(
        *(tenant.http.patch(made, json={"name": name}, headers={"If-Match": tag}) for name in ("one", "two", "three"))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412]
    winner = next(answer for answer in answers if answer.status_code == 200)
    assert (await tenant.http.get(made)).json() == winner.json()
