"""Members of a segment over HTTP: who is in it, who was, and what changed."""

import asyncio
import csv
import json

import psycopg
import pytest
from tests.api.walk import client_with
from tests.api.world import account_of
from tests.test_segment_files import make, refresh, show

from ingestd.domain import ids
from ingestd.domain.identity import IdentifierKind
from ingestd.domain.ids import Prefix
from ingestd.store import members, segments
from ingestd.store.partitions import of_segment
from ingestd.store.profiles import identifier_hash

FIRST = b"user_id,level\nann,High\nbob,Medium\ncem,Low\n"
SECOND = b"user_id,level\nann,Low\nbob,Medium\ndan,High\n"


async def data(client, path, **params):
    answer = await client.get(path, params=params)
    return answer.raise_for_status().json()["data"]


async def where(client, segment, **params):
    """The partition of each member."""
    found = await data(client, f"/v1/segments/{segment}/members", **params)
    return {each["value"]: each["partition"]["name"] for each in found}


async def partitions(client, segment, **params):
    found = await data(client, f"/v1/segments/{segment}/partitions", **params)
    return {each["name"]: each for each in found}


async def filled(tenant, kind="SCD"):
    """A segment that was refreshed twice, and when the first refresh became visible."""
    segment = await make(tenant, kind)
    await refresh(tenant, segment, FIRST)
    first = (await show(tenant, segment))["refreshed_at"]
    await refresh(tenant, segment, SECOND)
    return segment, first


@pytest.mark.rule("S39", "S40", "S41")
async def test_there_is_a_partition_for_each_value_once_a_file_has_come(tenant):
    segment = await make(tenant)
    assert await partitions(tenant.http, segment) == {}
    await refresh(tenant, segment, FIRST)
    found = await partitions(tenant.http, segment)
    assert {name: each["members"] for name, each in found.items()} == {"High": 1, "Medium": 1, "Low": 1}


@pytest.mark.rule("S5")
async def test_an_scd_segment_tells_who_was_where_when(tenant):
    segment, first = await filled(tenant)
    assert await where(tenant.http, segment) == {"ann": "Low", "bob": "Medium", "dan": "High"}
    assert await where(tenant.http, segment, as_of=first) == {"ann": "High", "bob": "Medium", "cem": "Low"}
    high = (await partitions(tenant.http, segment))["High"]["id"]
    assert await where(tenant.http, segment, as_of=first, partition=high) == {"ann": "High"}
    then = await partitions(tenant.http, segment, as_of=first)
    assert [each["members"] for each in then.values()] == [1, 1, 1]
    snapshots = await data(tenant.http, f"/v1/segments/{segment}/snapshots")
    figures = [(each["members"], each["entered"], each["left"], each["moved"]) for each in snapshots]
    assert figures == [(3, 1, 1, 1), (3, 3, 0, 0)]


@pytest.mark.rule("S6")
async def test_a_non_scd_segment_keeps_only_the_present(tenant):
    segment, first = await filled(tenant, "Non-SCD")
    assert await where(tenant.http, segment) == {"ann": "Low", "bob": "Medium", "dan": "High"}
    refused = await tenant.http.get(f"/v1/segments/{segment}/members", params={"as_of": first})
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "no_history")
    assert await data(tenant.http, f"/v1/segments/{segment}/snapshots") == []


async def test_changes_between_two_moments_say_who_entered_left_and_moved(tenant):
    segment, first = await filled(tenant)
    found = await data(tenant.http, f"/v1/segments/{segment}/changes", **{"from": first})
    name = {each["value"]: (each["change"], each["was"], each["now"]) for each in found}
    assert {who: what for who, (what, _, _) in name.items()} == {"ann": "moved", "cem": "left", "dan": "entered"}
    assert (name["ann"][1]["name"], name["ann"][2]["name"]) == ("High", "Low")
    assert (name["cem"][2], name["dan"][1]) == (None, None)
    page = await tenant.http.get(f"/v1/segments/{segment}/changes", params={"from": first, "limit": 2})
    rest = await tenant.http.get(page.headers["link"].partition(">")[0][1:])
    assert [*page.json()["data"], *rest.json()["data"]] == found
    reverse = await tenant.http.get(f"/v1/segments/{segment}/changes", params={"from": "2100-01-01T00:00:00Z"})
    assert (reverse.status_code, reverse.json()["errors"][0]["pointer"]) == (422, "/query/to")


@pytest.mark.rule("S24", "D5")
async def test_members_are_looked_up_by_any_way_to_write_them(tenant):
    segment = await make(tenant)
    await refresh(tenant, segment, b"mobile,level\n919972752991,High\n")
    asked = [("mobile", "919972752991"), ("Mobile", "+919972752991"), ("mobile", "12"), ("user_id", "919972752991")]
    body = {"identifiers": [{"kind": kind, "value": value} for kind, value in asked]}
    found = (await tenant.http.post(f"/v1/segments/{segment}/members/lookup", json=body)).json()["data"]
    assert [each["member"] and each["member"]["partition"]["name"] for each in found] == ["High", "High", None, None]
    refused = await tenant.http.post(
        f"/v1/segments/{segment}/members/lookup", json={"identifiers": body["identifiers"] * 251}
    )
    assert refused.status_code == 422


@pytest.mark.threat("T117")
async def test_a_member_by_address_is_the_same_in_every_case_of_the_domain(tenant):
    segment = await make(tenant)
    await refresh(tenant, segment, b"email,level\nann@EXAMPLE.org,High\n")
    await refresh(tenant, segment, b"email,level\nann@example.org,Low\nAnn@example.org,High\n")
    assert await where(tenant.http, segment) == {"ann@example.org": "Low", "Ann@example.org": "High"}
    body = {"identifiers": [{"kind": "email", "value": value} for value in ("ann@Example.Org", "ANN@example.org")]}
    found = (await tenant.http.post(f"/v1/segments/{segment}/members/lookup", json=body)).json()["data"]
    assert [each["member"] and each["member"]["partition"]["name"] for each in found] == ["Low", None]


@pytest.mark.threat("T100")
async def test_an_export_is_csv_or_json_lines_without_formulas(tenant):
    segment, first = await filled(tenant)
    await refresh(tenant, segment, SECOND + b"=1+1,@x\n")
    text = (await tenant.http.get(f"/v1/segments/{segment}/export")).raise_for_status().text
    rows = {row["value"]: row["partition"] for row in csv.DictReader(text.splitlines())}
    assert rows == {"ann": "Low", "bob": "Medium", "dan": "High", "'=1+1": "'@x"}
    answer = await tenant.http.get(f"/v1/segments/{segment}/export", params={"format": "ndjson", "as_of": first})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert {line["value"]: line["partition"] for line in lines} == {"ann": "High", "bob": "Medium", "cem": "Low"}


async def test_addresses_and_numbers_are_masked_for_a_key_that_may_not_read_them(tenant):
    segment = await make(tenant)
    await refresh(tenant, segment, b"email,level\nann@example.org,High\n")
    async with await client_with(tenant, "segments:read") as consumer:
        assert await where(consumer, segment) == {"***": "High"}
        assert "ann@" not in (await consumer.get(f"/v1/segments/{segment}/export")).text
    async with await client_with(tenant, "segments:read", "profiles:read_pii") as consumer:
        assert await where(consumer, segment) == {"ann@example.org": "High"}


@pytest.mark.rule("S45")
async def test_a_partition_is_renamed_and_the_files_go_on_by_its_value(tenant):
    segment, _ = await filled(tenant)
    found = await partitions(tenant.http, segment)
    path = f"/v1/segments/{segment}/partitions/{found['High']['id']}"
    renamed = (await tenant.http.patch(path, json={"name": "Top"})).raise_for_status().json()
    assert (renamed["name"], renamed["value"]) == ("Top", "High")
    taken = await tenant.http.patch(path, json={"name": "Low"})
    assert (taken.status_code, taken.json()["code"]) == (409, "partition_exists")
    await refresh(tenant, segment, FIRST)
    assert (await where(tenant.http, segment))["ann"] == "Top"


@pytest.mark.rule("S45")
async def test_a_disabled_partition_is_hidden_from_services(tenant):
    segment, _ = await filled(tenant)
    low = (await partitions(tenant.http, segment))["Low"]["id"]
    (await tenant.http.patch(f"/v1/segments/{segment}/partitions/{low}", json={"disabled": True})).raise_for_status()
    async with await client_with(tenant, "segments:read") as consumer:
        assert await where(consumer, segment) == {"bob": "Medium", "dan": "High"}
        assert set(await partitions(consumer, segment)) == {"High", "Medium"}
        assert (await consumer.get(f"/v1/segments/{segment}/partitions/{low}")).status_code == 404
        assert "ann" not in (await consumer.get(f"/v1/segments/{segment}/export")).text
    assert "ann" in await where(tenant.http, segment)


@pytest.mark.rule("S45")
@pytest.mark.parametrize("kind", ["SCD", "Non-SCD"])
async def test_a_partition_that_is_removed_takes_its_members_out_until_a_file_has_it_again(tenant, kind):
    segment, _ = await filled(tenant, kind)
    before = (await show(tenant, segment))["refreshed_at"]
    low = (await partitions(tenant.http, segment))["Low"]["id"]
    assert (await tenant.http.delete(f"/v1/segments/{segment}/partitions/{low}")).status_code == 204
    assert await where(tenant.http, segment) == {"bob": "Medium", "dan": "High"}
    assert (await show(tenant, segment))["members"] == 2
    if kind == "SCD":
        assert (await where(tenant.http, segment, as_of=before))["ann"] == "Low"
    done = await refresh(tenant, segment, SECOND)
    assert done["counts"]["created"] == 1
    again = (await partitions(tenant.http, segment))["Low"]
    assert (again["members"], again["id"] == low) == (1, kind == "SCD")
    if kind == "SCD":
        assert (await where(tenant.http, segment, as_of=before))["ann"] == "Low"


@pytest.mark.rule("S5", "S39", "S45")
async def test_the_partitions_of_a_moment_are_those_that_were_there_with_all_who_were_in_them(tenant):
    segment, first = await filled(tenant)
    low = (await partitions(tenant.http, segment))["Low"]["id"]
    (await tenant.http.delete(f"/v1/segments/{segment}/partitions/{low}")).raise_for_status()
    await refresh(tenant, segment, b"user_id,level\nbob,Medium\ndan,Top\n")
    shown = await show(tenant, segment)
    for moment, counts in (
        (shown["created_at"], {}),
        (first, {"High": 1, "Medium": 1, "Low": 1}),
        (shown["refreshed_at"], {"High": 0, "Medium": 1, "Top": 1}),
    ):
        found = await partitions(tenant.http, segment, as_of=moment)
        assert {name: each["members"] for name, each in found.items()} == counts
        assert sum(counts.values()) == len(await where(tenant.http, segment, as_of=moment))


@pytest.mark.rule("S11", "S12", "S43")
async def test_partitions_are_edited_in_a_draft_that_activate_publishes(tenant, other):
    segment, _ = await filled(tenant)
    high = (await partitions(tenant.http, segment))["High"]["id"]
    draft = {"partitions": [{"id": high, "name": "Top", "disabled": True}]}
    (await tenant.http.put(f"/v1/segments/{segment}/draft", json=draft)).raise_for_status()
    assert "High" in await partitions(tenant.http, segment)
    published = (await tenant.http.post(f"/v1/segments/{segment}/activate")).raise_for_status().json()
    assert published["status"] == "active"
    assert (await partitions(tenant.http, segment))["Top"]["disabled"]
    theirs, _ = await filled(other)
    assert (await other.http.put(f"/v1/segments/{theirs}/draft", json=draft)).status_code == 404


@pytest.mark.rule("D40")
async def test_a_profile_shows_its_segments_also_after_a_merge(tenant):
    await filled(tenant)
    await tenant.push(b"identity,Age\nann,1\n")
    await tenant.push(b"objectId,Age\no1,1\n")
    other = await make(tenant, name="spending")
    await refresh(tenant, other, b"user_id,level\nann,Big\n")
    await tenant.push(b"identity,objectId\nann,o1\n")
    person = await tenant.profile("o1", "objectId")
    shown = (await tenant.http.get(f"/v1/profiles/{person['id']}")).raise_for_status().json()["segments"]
    assert [(each["segment"]["name"], each["partition"]["name"]) for each in shown] == [
        ("loyalty", "Low"),
        ("spending", "Big"),
    ]
    assert await data(tenant.http, f"/v1/profiles/{person['id']}/segments") == shown
    (await tenant.http.post(f"/v1/segments/{other}/deactivate")).raise_for_status()
    assert len(await data(tenant.http, f"/v1/profiles/{person['id']}/segments")) == 1


@pytest.mark.threat("T114", "T115")
async def test_who_is_erased_is_in_no_segment_and_never_was(tenant):
    segment, first = await filled(tenant)
    await tenant.push(b"identity,Age\nann,1\n")
    person = await tenant.profile("ann")
    assert (await tenant.http.delete(f"/v1/profiles/{person['id']}")).status_code == 204
    assert await where(tenant.http, segment) == {"bob": "Medium", "dan": "High"}
    assert "ann" not in await where(tenant.http, segment, as_of=first)
    assert (await show(tenant, segment))["members"] == 2
    assert (await partitions(tenant.http, segment))["Low"]["members"] == 0
    newest = await tenant.newest()
    listed = await data(tenant.http, "/v1/ingestions", segment_id=segment)
    assert newest["segment"] is None
    retried = await tenant.http.post(f"/v1/ingestions/{listed[0]['id']}/retry", json={"rows": "all"})
    done = await tenant.ended(retried.raise_for_status().json()["id"])
    assert (done["counts"]["erased"], done["counts"]["removed"]) == (1, 0)
    assert "ann" not in await where(tenant.http, segment)


@pytest.mark.rule("D40")
@pytest.mark.threat("T114", "T115")
async def test_who_is_in_segments_only_is_erased_by_an_identifier(tenant, other):
    segment = await make(tenant)
    theirs = await make(other)
    people = b"mobile,level\n919972752991,High\n919972752992,Low\n"
    await refresh(other, theirs, people)
    first = await refresh(tenant, segment, people)
    moment = (await show(tenant, segment))["refreshed_at"]
    await refresh(tenant, segment, people.replace(b"91,High", b"91,Low"))
    asked = {"identifiers": [{"kind": "mobile", "value": "919972752991"}]}
    wrong = {"identifiers": [*asked["identifiers"], {"kind": "telephone", "value": "919972752991"}]}
    refused = await tenant.http.post("/v1/profiles/erase", json=wrong)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/body/identifiers/1")
    assert len(await where(tenant.http, segment)) == 2
    erased = (await tenant.http.post("/v1/profiles/erase", json=asked)).raise_for_status().json()
    assert erased == {"profiles": [], "memberships": 2}
    left = {"+919972752992": "Low"}
    assert await where(tenant.http, segment) == await where(tenant.http, segment, as_of=moment) == left
    assert {name: each["members"] for name, each in (await partitions(tenant.http, segment)).items()} == {
        "High": 0,
        "Low": 1,
    }
    retried = await tenant.http.post(f"/v1/ingestions/{first['id']}/retry", json={"rows": "all"})
    done = await tenant.ended(retried.raise_for_status().json()["id"])
    assert (done["counts"]["erased"], await where(tenant.http, segment)) == (1, left)
    assert len(await where(other.http, theirs)) == 2
    again = (await tenant.http.post("/v1/profiles/erase", json=asked)).raise_for_status().json()
    assert again == {"profiles": [], "memberships": 0}


@pytest.mark.rule("D40")
async def test_who_was_stored_under_a_domain_with_capitals_is_found_and_erased_by_it(tenant, ground):
    segment = await make(tenant)
    await refresh(tenant, segment, b"email,level\nann@example.org,High\n")
    keys = await tenant.app.intake.keys(account_of(tenant))
    before = identifier_hash(keys.index_key, IdentifierKind.EMAIL, "ann@EXAMPLE.org")
    with psycopg.connect(ground.database_url) as sql:
        number = "SELECT number FROM segments WHERE id = %s"
        sql.execute(
            f"UPDATE segment_members SET hash = %s, value = %s WHERE segment = ({number})",
            [before, "ann@EXAMPLE.org", ids.read(Prefix.SEGMENT, segment)],
        )
    asked = {"identifiers": [{"kind": "email", "value": "ann@EXAMPLE.org"}]}
    found = await tenant.http.post(f"/v1/segments/{segment}/members/lookup", json=asked)
    assert found.json()["data"][0]["member"]["partition"]["name"] == "High"
    erased = await tenant.http.post("/v1/profiles/erase", json=asked)
    assert erased.json() == {"profiles": [], "memberships": 1}
    assert await where(tenant.http, segment) == {}


@pytest.mark.threat("T114")
async def test_whoever_has_an_identifier_is_erased_with_all_others_of_theirs(tenant):
    segment, first = await filled(tenant)
    await tenant.push(b"identity,objectId\nann,a-1\n")
    person = (await tenant.profile("ann"))["id"]
    asked = [("objectId", "a-1"), ("user_id", "ann"), ("user_id", "bob")]
    body = {"identifiers": [{"kind": kind, "value": value} for kind, value in asked]}
    erased = (await tenant.http.post("/v1/profiles/erase", json=body)).raise_for_status().json()
    assert erased == {"profiles": [person], "memberships": 3}
    assert await where(tenant.http, segment) == {"dan": "High"}
    assert await where(tenant.http, segment, as_of=first) == {"cem": "Low"}
    assert await tenant.profile("a-1", "objectId") is None
    trail = (await tenant.http.get("/v1/audit", params={"limit": 2})).json()["data"]
    assert {each["action"] for each in trail} == {"profile.erased", "identifiers.erased"}


async def test_partitions_and_who_is_in_them_are_of_one_moment(tenant):
    segment = await make(tenant)
    await refresh(tenant, segment, b"user_id,level\nann,A\n")
    async with tenant.app.intake.sessions() as session:
        await members.at_one_moment(session)
        row = await segments.get(session, account_of(tenant), ids.read(Prefix.SEGMENT, segment))
        numbers = [each.number for each in await of_segment(session, row, disabled_too=True)]
        await refresh(tenant, segment, b"user_id,level\nann,B\n")
        rows = members.export(session, row, numbers, moment=None)
        assert [value async for some in rows for _, value, _, _ in some] == ["ann"]


async def test_a_refresh_is_seen_whole_or_not_at_all(tenant):
    segment = await make(tenant)
    people = [f"p{number}" for number in range(150)]
    await refresh(tenant, segment, "\n".join(["user_id,level", *(f"{each},A" for each in people)]).encode())
    running = asyncio.create_task(
        refresh(tenant, segment, "\n".join(["user_id,level", *(f"{each},B" for each in people)]).encode())
    )
    seen = set()
    while not running.done():
        found = await tenant.http.get(f"/v1/segments/{segment}/members", params={"limit": 200})
        seen.add(tuple({each["partition"]["name"] for each in found.json()["data"]}))
    assert (await running)["counts"]["updated"] == 150
    assert seen <= {("A",), ("B",)}
