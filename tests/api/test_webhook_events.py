"""The types of events, and all that an account is told, followed live."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from openapi_schema_validator import OAS31Validator

from ingestd.domain.ids import Prefix, show

PATH = "/v1/webhook-events"


@asynccontextmanager
async def following(tenant, **asked):
    async with tenant.http.stream("GET", f"{PATH}/stream", **asked) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith("retry: ")
        yield lines


async def take(lines, count):
    """The next events: id, name and data."""
    found, event = [], {}
    async for line in lines:
        name, _, value = line.partition(": ")
        if value and name:
            event[name] = value
        elif event:
            found.append((event["id"], event["event"], json.loads(event["data"])))
            event = {}
            if len(found) == count:
                break
    return found


@pytest.mark.rule("S136")
async def test_every_type_has_a_schema_that_its_example_fits(tenant):
    told = (await tenant.http.get(PATH)).raise_for_status().json()["data"]
    assert {"ingestion.picked_up", "ingestion.delayed", "ingestion.completed", "ingestion.failed"} <= {
        each["type"] for each in told
    }
    for each in told:
        OAS31Validator(each["schema"], format_checker=OAS31Validator.FORMAT_CHECKER).validate(each["example"])
        assert each["example"]["type"] == each["type"]


async def test_all_that_is_told_is_followed_live_and_from_where_the_reader_was_cut_off(tenant, receiver, other):
    async with following(tenant) as lines:
        await other.push(b"identity\nann\n")
        await tenant.push(b"identity\nann\n")
        first, *rest = await take(lines, 4)
        async with receiver.news:
            await receiver.news.wait_for(lambda: len(receiver.told) == 4)
    assert [name for _, name, _ in (first, *rest)] == [
        "file.received",
        "ingestion.scheduled",
        "ingestion.picked_up",
        "ingestion.completed",
    ]
    assert {(each[0], each[2]["type"]) for each in (first, *rest)} == {
        (each["id"], each["type"]) for each in receiver.told
    }
    async with following(tenant, headers={"Last-Event-ID": first[0]}) as lines:
        assert await take(lines, 3) == rest


async def test_only_the_types_that_are_asked_for_are_told(tenant):
    async with following(tenant, params={"type": "ingestion.completed"}) as lines:
        ended = await tenant.push(b"identity\nann\n")
        ((_, name, body),) = await take(lines, 1)
    assert (name, body["data"]["id"]) == ("ingestion.completed", ended["id"])


@pytest.mark.parametrize(
    "seen", ["nonsense", *(show(Prefix.MESSAGE, UUID(int=made_up)) for made_up in (0, 2**128 - 1))]
)
async def test_an_id_that_is_none_of_ours_begins_anew(tenant, seen):
    await tenant.push(b"identity\nann\n")
    async with following(tenant, headers={"Last-Event-ID": seen}) as lines:
        ended = await tenant.push(b"identity\nbob\n")
        (_, (_, _, body)) = await take(lines, 2)
    assert body["data"]["id"] == ended["id"]
