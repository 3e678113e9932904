"""Lists: every row once, in the order that was asked for, by cursors that nobody can make up."""

import base64

import pytest

PATH = "/v1/api-keys"


@pytest.fixture
async def names(tenant):
    names = ["delta", "alpha", "charlie", "bravo", "alpha"]
    for name in names:
        await tenant.http.post(PATH, json={"name": name, "scopes": ["account:read"]})
    return ["first", *names]


async def walk(tenant, **query):
    found, page = [], (await tenant.http.get(PATH, params=query)).json()
    while True:
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        page = (await tenant.http.get(PATH, params=query | {"cursor": page["next_cursor"]})).json()


@pytest.mark.parametrize("limit", [1, 2, 3, 6])
async def test_the_pages_hold_every_row_once_and_in_order(tenant, names, limit):
    assert [each["name"] for each in await walk(tenant, limit=limit)] == names
    assert [each["name"] for each in await walk(tenant, limit=limit, sort="-created_at")] == names[::-1]
    assert [each["name"] for each in await walk(tenant, limit=limit, sort="name")] == sorted(names)
    assert [each["name"] for each in await walk(tenant, limit=limit, sort="-name")] == sorted(names)[::-1]


async def test_the_next_page_is_a_link_within_this_service(tenant, names):
    page = await tenant.http.get(PATH, params={"limit": 4}, headers={"Host": "evil.example"})
    target, relation = page.headers["link"].split("; ")
    assert relation == 'rel="next"'
    assert target.startswith(f"<{PATH}?limit=4&cursor=")
    rest = await tenant.http.get(target.strip("<>"))
    assert len(rest.json()["data"]) == 2
    assert "link" not in rest.headers


@pytest.mark.threat("T57")
async def test_a_cursor_is_good_for_its_own_list_only(tenant, other, names):
    cursor = (await tenant.http.get(PATH, params={"limit": 1})).json()["next_cursor"]
    forged = base64.urlsafe_b64encode(bytes(16) + base64.urlsafe_b64decode(cursor + "==")[16:]).decode()
    for client, query in (
        (tenant, {"cursor": cursor, "sort": "name"}),
        (tenant, {"cursor": forged}),
        (tenant, {"cursor": cursor[:-2]}),
        (tenant, {"cursor": "../../"}),
        (tenant, {"cursor": ""}),
        (other, {"cursor": cursor}),
    ):
        refused = await client.http.get(PATH, params=query)
        assert (refused.status_code, refused.json()["code"]) == (422, "cursor_invalid"), query


@pytest.mark.threat("T57")
@pytest.mark.parametrize(
    "query", ["sort=id;drop", "sort=scopes", "limit=0", "limit=201", "limit=1e9", "limit=1&limit=2", "offset=3"]
)
async def test_what_a_list_does_not_know_is_refused(tenant, query):
    refused = await tenant.http.get(f"{PATH}?{query}")
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/query/" + query.split("=")[0]
