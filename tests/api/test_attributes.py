"""Attributes and macros (S62 to S64, D14)."""

from __future__ import annotations

import pytest


async def make(tenant, name, **more):
    return await tenant.http.post("/v1/attributes", json={"name": name} | more)


def problems(answer):
    return {each["pointer"]: each["code"] for each in answer.json()["errors"]}


@pytest.mark.rule("S63", "D14")
async def test_an_attribute_is_made_changed_and_deleted(tenant):
    made = await make(tenant, "slot_num", display_name="Slot number", format="INTEGER")
    assert made.status_code == 201
    shown = made.json()
    assert (shown["display_name"], shown["format"]) == ("Slot number", "INTEGER")
    flags = ("identifier", "pii", "use_in_segments", "use_as_macro")
    assert [shown[flag] for flag in flags] == [False] * 4
    path = made.headers["location"]
    changed = (await tenant.http.patch(path, json={"use_in_segments": True})).json()
    assert (changed["segment_name"], changed["macro_name"]) == ("SLOT_NUM", None)
    assert (await tenant.http.patch(path, json={"format": "LONG"})).status_code == 422
    assert (await tenant.http.delete(path)).status_code == 204
    assert (await tenant.http.get(path)).status_code == 404


@pytest.mark.rule("S64")
async def test_names_in_segments_and_macros_are_capitals_and_underscores(tenant):
    made = (await make(tenant, "slot num", use_in_segments=True, use_as_macro=True)).json()
    assert (made["segment_name"], made["macro_name"]) == ("SLOT_NUM", "SLOT_NUM")
    for wrong, fit in (("Slot num", "SLOT_NUM"), ("SLOT-NUM", "SLOT_NUM"), ("_SLOT", "SLOT"), ("Größe", "GROE")):
        refused = await make(tenant, "other", use_as_macro=True, macro_name=wrong)
        assert problems(refused) == {"/body/macro_name": "upper_snake"}, wrong
        assert f"Did you mean {fit}?" in refused.json()["errors"][0]["detail"]
    assert problems(await make(tenant, "тариф", use_as_macro=True)) == {"/body/macro_name": "upper_snake"}
    assert (await make(tenant, "тариф", use_as_macro=True, macro_name="TARIFF")).status_code == 201


@pytest.mark.rule("S64")
async def test_a_name_is_one_attributes_and_one_macros(tenant, other):
    assert (await make(tenant, "tier", use_as_macro=True)).status_code == 201
    for name in ("tier", "Tier"):  # the second would be the same macro
        clash = await make(tenant, name, use_as_macro=True)
        assert (clash.status_code, clash.json()["code"]) == (409, "attribute_exists")
    assert (await make(tenant, "Tier")).status_code == 201
    assert (await make(other, "tier", use_as_macro=True)).status_code == 201


async def test_a_name_that_means_something_else_is_refused(tenant):
    for name in ("identity", "GUID", "email", "MSG-SMS", "ts", "$x", "a.operation", " a", 'a"b'):
        assert problems(await make(tenant, name)) == {"/body/name": "name"}, name


@pytest.mark.rule("D54")
async def test_an_attribute_that_identifies_people_is_a_text(tenant):
    assert problems(await make(tenant, "crmid", identifier=True, format="LONG")) == {"/body/format": "format"}
    assert (await make(tenant, "crmid", identifier=True)).json()["identifier"] is True


@pytest.mark.rule("S63")
async def test_macros_are_the_attributes_marked_so(tenant):
    await make(tenant, "zip", use_as_macro=True)
    await make(tenant, "tier", use_as_macro=True, macro_name="CUSTOMER_TIER", display_name="Tier")
    await make(tenant, "secret")
    found = (await tenant.http.get("/v1/macros")).json()["data"]
    assert [(each["name"], each["attribute"]) for each in found] == [("CUSTOMER_TIER", "tier"), ("ZIP", "zip")]
