"""Data sources and their mappings (S56 to S62)."""

from __future__ import annotations

import pytest
from tests.api.walk import DOCUMENT

from ingestd.domain.data_source import BUILT_IN


async def source(tenant, name="CRM"):
    made = await tenant.http.post("/v1/data-sources", json={"name": name})
    return f"/v1/data-sources/{made.raise_for_status().json()['id']}"


async def put(tenant, path, *columns, **more):
    return await tenant.http.put(f"{path}/mapping", json={"columns": list(columns)} | more)


def to(column, attribute, **more):
    return {"column": column, "attribute": attribute} | more


def problems(answer):
    return {each["pointer"]: each["code"] for each in answer.json()["errors"]}


@pytest.mark.rule("S58", "D25", "D54")
async def test_the_document_says_what_a_column_can_be_mapped_to_in_every_account(tenant):
    declared = DOCUMENT["components"]["schemas"]["ColumnIn"]["properties"]["attribute"]
    words = declared["examples"]
    assert set(words) == {goal.name for goal in BUILT_IN.values()} > {"identity", "mobile", "MSG-sms"}
    assert all(word in declared["description"] for word in words)
    mapped = await put(tenant, await source(tenant), *(to(f"c{place}", word) for place, word in enumerate(words)))
    assert [each["attribute"] for each in mapped.raise_for_status().json()["columns"]] == words


@pytest.mark.rule("D51", "D57")
@pytest.mark.parametrize("name", ["crm__eu", "crm_", "crm/eu"])
async def test_the_name_of_a_data_source_can_be_told_from_the_suffix_of_a_file(tenant, name):
    made = await tenant.http.post("/v1/data-sources", json={"name": name})
    assert (made.status_code, set(problems(made))) == (422, {"/body/name"})
    renamed = await tenant.http.patch(await source(tenant, "crm"), json={"name": name})
    assert (renamed.status_code, set(problems(renamed))) == (422, {"/body/name"})


@pytest.mark.rule("S56", "D33")
async def test_a_data_source_is_made_by_name_listed_opened_and_renamed(tenant, other):
    path = await source(tenant, "Festive offers")
    again = await tenant.http.post("/v1/data-sources", json={"name": "Festive offers"})
    assert (again.status_code, again.json()["code"]) == (409, "data_source_exists")
    await source(other, "Festive offers")
    await source(tenant, "CRM")
    listed = (await tenant.http.get("/v1/data-sources", params={"q": "FESTIVE"})).json()["data"]
    assert [each["name"] for each in listed] == ["Festive offers"]
    assert (await tenant.http.get(path)).json() == listed[0]
    assert (await tenant.http.patch(path, json={"name": "CRM"})).json()["code"] == "data_source_exists"
    assert (await tenant.http.patch(path, json={"name": "Offers"})).json()["name"] == "Offers"
    for description in ("From the shop", None):
        changed = await tenant.http.patch(path, json={"description": description})
        assert (changed.status_code, changed.json()["description"]) == (200, description or "")
    assert (await tenant.http.delete(path)).status_code == 204
    assert (await tenant.http.get(path)).status_code == 404


@pytest.mark.rule("S58", "S59", "S62", "S63")
async def test_columns_are_mapped_to_attributes_and_a_new_one_is_made_on_the_way(tenant):
    path = await source(tenant)
    assert (await tenant.http.get(f"{path}/mapping")).status_code == 404
    await tenant.http.post("/v1/attributes", json={"name": "cross sell product"})
    new = {"name": "slot_num", "display_name": "Slot", "format": "INTEGER", "use_in_segments": True}
    columns = [
        to("crm", "IDENTITY"),
        to("preferences", "cross sell product", pii=True),
        {"column": "slot_num", "new_attribute": new},
    ]
    written = await put(tenant, path, *columns)
    assert written.status_code == 200, written.text
    shown = written.json()
    assert shown["version"] == 1
    assert [(each["column"], each["attribute"], each["format"], each["pii"]) for each in shown["columns"]] == [
        ("crm", "identity", "STRING", False),
        ("preferences", "cross sell product", "STRING", True),
        ("slot_num", "slot_num", "INTEGER", False),
    ]
    assert (await tenant.http.get(f"{path}/mapping")).json() == shown
    attributes = (await tenant.http.get("/v1/attributes")).json()["data"]
    assert [(each["name"], each["segment_name"]) for each in attributes] == [
        ("cross sell product", None),
        ("slot_num", "SLOT_NUM"),
    ]
    assert (await tenant.http.get(path)).json()["mapping_version"] == 1


async def test_a_mapping_is_kept_in_versions_and_one_that_changes_nothing_is_none(tenant):
    path = await source(tenant)
    first, same = [(await put(tenant, path, to("id", "identity"))).json() for _ in range(2)]
    assert (first["version"], same["version"]) == (1, 1)
    stale = await tenant.http.put(
        f"{path}/mapping", json={"columns": [to("id", "email")]}, headers={"If-Match": '"stale"'}
    )
    assert stale.status_code == 412
    assert (await put(tenant, path, to("id", "email"))).json()["version"] == 2


@pytest.mark.rule("S58", "S60", "S53", "S54", "D11", "D12")
async def test_all_that_is_wrong_with_a_mapping_is_told_and_nothing_is_made(tenant):
    path = await source(tenant)
    refused = await put(
        tenant,
        path,
        to("id", "identity"),
        to("id", "email"),
        to("slot num", "nowhere"),
        to("slot-num", "guid"),
        to("x", "Identity"),
        {"column": "new", "new_attribute": {"name": "new"}},
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "mapping_incorrect")
    assert problems(refused) == {
        "/body/columns/1/column": "duplicate",
        "/body/columns/2/column": "name",
        "/body/columns/2/attribute": "attribute_unknown",
        "/body/columns/3/column": "name",
        "/body/columns/4/attribute": "duplicate",
    }
    assert (await tenant.http.get("/v1/attributes")).json()["data"] == []
    assert problems(await put(tenant, path, to("a", "MSG-sms"))) == {"/body/columns": "identifier_missing"}
    assert problems(await put(tenant, path, to("a", "email", pii=True))) == {"/body/columns/0/pii": "not_markable"}
    assert problems(await put(tenant, path, {"column": "a"})) == {"/body/columns/0": "value_error"}


async def test_a_mapping_can_be_copied_from_another_source_of_the_account(tenant, other):
    path, copy, foreign = await source(tenant), await source(tenant, "2"), await source(other)
    await put(tenant, path, to("id", "identity"))
    await put(other, foreign, to("id", "identity"))

    async def copied_from(where):
        return await tenant.http.put(f"{copy}/mapping", json={"copy_of": where.rpartition("/")[2]})

    assert (await copied_from(copy)).json()["code"] == "mapping_missing"
    assert (await copied_from(path)).json()["columns"][0]["attribute"] == "identity"
    assert (await copied_from(foreign)).status_code == 404


async def test_an_attribute_that_a_mapping_names_is_not_deleted(tenant):
    path = await source(tenant)
    attribute = await tenant.http.post("/v1/attributes", json={"name": "tier"})
    await put(tenant, path, to("id", "identity"), to("tier", "tier"))
    await put(tenant, path, to("id", "identity"))
    refused = await tenant.http.delete(attribute.headers["location"])
    assert (refused.status_code, refused.json()["code"]) == (409, "attribute_used")
