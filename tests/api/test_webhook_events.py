"""The types of events, and all that an account is told, followed live."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from openapi_schema_validator import OAS31Validator

from ingestd.domain.ids import Prefix, show

PATH = "/v1/webhook-events"

TOLD = {
    "ingestion": "scheduled picked_up delayed completed failed cancelled held",
    "segment": "created activated deactivated refreshed",
    "run": "succeeded failed",
    "connection": "host_key_changed",
}
"""Events whose resource stands in some way then."""


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


async def test_no_example_of_an_event_contradicts_it(tenant):
    told = {each["type"]: each["example"]["data"] for each in (await tenant.http.get(PATH)).json()["data"]}
    of = {kind: {name: told[f"{kind}.{name}"] for name in names.split()} for kind, names in TOLD.items()}
    for name, data in of["ingestion"].items():
        counts, ended = data["counts"], name in {"completed", "failed", "cancelled"}
        assert data["status"] == (name if ended or name == "scheduled" else "in_progress"), name
        assert (data["stage"] == "done", data["finished_at"] is not None) == (ended, ended), name
        assert (data["stage"] == "queued", data["started_at"] is None) == (name == "scheduled",) * 2, name
        assert (data["stage"] == "held", data["held"] is not None) == (name == "held",) * 2, name
        assert (data["error"] is not None) == (name == "failed"), name
        assert (data["progress"]["percent"] == 100) == (name in {"completed", "failed"}), name
        assert counts["read"] == counts["accepted"] + counts["rejected"] + counts["blank"], name
        assert (counts["read"] > 0) == (name in {"completed", "failed"}), name
        assert (counts["accepted"] > 0, counts["created"] > 0) == (name == "completed",) * 2, name
        assert (data["error_file"] or {"rows": 0})["rows"] == counts["rejected"], name
    held = of["ingestion"]["held"]
    assert (held["target"], held["segment"] is not None, held["manifest"]) == ("segment", True, None)
    assert (held["channel"], held["uploaded_by"]["type"]) == ("upload", "api_key")
    statuses = {"created": "draft", "activated": "in_progress", "deactivated": "inactive", "refreshed": "active"}
    for name, data in of["segment"].items():
        assert data["status"] == statuses[name], name
        assert (data["members"] == 0, data["refreshed_at"] is None) == (name in {"created", "activated"},) * 2, name
    for name, data in of["run"].items():
        succeeded = name == "succeeded"
        assert (data["state"], data["outcome"], data["result"]) == ("ended", name, "ingested" if succeeded else name)
        assert (data["error"] is None, data["ingestion"] is not None, data["counts"] is not None) == (succeeded,) * 3
        assert (data["file"] is not None, data["data_as_of"] is not None) == (succeeded,) * 2
    changed = of["connection"]["host_key_changed"]
    assert changed["host_key_changed_at"] is not None
    assert changed["changed_host_key"]["algorithm"] == changed["host_keys"][0]["algorithm"]
    assert changed["changed_host_key"] not in changed["host_keys"]


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
