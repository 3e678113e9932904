"""The demo's upload: the documents' sample looked at, tried out, mapped, ingested for a data source, and filtered."""

from __future__ import annotations

import asyncio
from importlib import resources
from typing import Any, Final

import httpx
from rich.console import Console
from rich.json import JSON
from rich.table import Table

from ingestd.cli.receiver import Receiver

SAMPLE: Final = "festive_offer.tsv"
PERSON: Final = {"kind": "crmid", "value": "C-1001"}
MAPPING: Final[list[dict[str, Any]]] = [
    {"column": "crmid", "new_attribute": {"name": "crmid", "identifier": True}},
    {"column": "phone", "new_attribute": {"name": "hm", "format": "PHONE", "pii": True}},
    {"column": "preferences", "new_attribute": {"name": "cross sell product"}},
    {"column": "slot_num", "new_attribute": {"name": "slot_num", "format": "INTEGER", "use_in_segments": True}},
]
MORE: Final = b"crmid\tphone\tpreferences\tslot_num\nC-1005\t+919972752995\thome loan\t15\n"
LATE: Final = {"attribute": "SLOT_NUM", "op": "greater", "value": 10}


async def show_upload(client: httpx.AsyncClient, receiver: Receiver, console: Console) -> None:
    """Upload the sample for a data source and show what was seen, foretold and done."""
    data = (resources.files("ingestd.cli") / "samples" / SAMPLE).read_bytes()
    source = (await client.post("/v1/data-sources", json={"name": "Festive offer"})).raise_for_status().json()
    file = (await client.put(f"/v1/files/{SAMPLE}", content=data)).raise_for_status().json()
    console.print(f"\nAn upload of {SAMPLE} for a data source: what its columns seem to be …")
    console.print(_columns((await client.post(f"/v1/files/{file['id']}/preview")).raise_for_status().json()))
    mapping = await client.put(f"/v1/data-sources/{source['id']}/mapping", json={"columns": MAPPING})
    console.print("… what they become …")
    console.print(_mapped(mapping.raise_for_status().json()))
    body = {"file_id": file["id"], "data_source_id": source["id"]}
    tried = await _ended(client, receiver, body | {"dry_run": True})
    foretold = (await client.get(f"/v1/ingestions/{tried['id']}/dry-run")).raise_for_status().json()
    figures = ", ".join(f"{what} {each['count']}" for what, each in foretold.items())
    console.print(f"… what a dry run says of it: {figures}")
    done = await _ended(client, receiver, body)
    console.print(f"… and what became of it: {done['status']}, {done['counts']['created']} people made.")
    for scopes in (["profiles:read"], ["profiles:read", "profiles:read_pii"]):
        console.print(f"One of them, for a key that has {' and '.join(scopes)}:")
        console.print(JSON.from_data(await _read_by(client, scopes)))
    await _show_filter(client, receiver, source["id"], console)


async def _read_by(client: httpx.AsyncClient, scopes: list[str]) -> Any:
    """The attributes of one of the people as a new key reads them that has only these scopes."""
    key = await client.post("/v1/api-keys", json={"name": ", ".join(scopes), "scopes": scopes})
    bearer = {"Authorization": f"Bearer {key.raise_for_status().json()['key']}"}
    found = await client.post("/v1/profiles/lookup", json={"identifiers": [PERSON]}, headers=bearer)
    return found.raise_for_status().json()["data"][0]["profile"]["attributes"]


async def _show_filter(client: httpx.AsyncClient, receiver: Receiver, source: str, console: Console) -> None:
    """Make a segment by a condition over what was uploaded, then upload one more row, in one request."""
    body = {"name": "late", "description": "Who has a late slot", "type": "Non-SCD", "condition": LATE}
    segment = (await client.post("/v1/filters", json=body)).raise_for_status().json()["id"]
    (await client.post(f"/v1/segments/{segment}/activate")).raise_for_status()
    before = await _active(client, segment)
    more = await client.post(f"/v1/data-sources/{source}/uploads", files={"file": ("more.tsv", MORE)})
    await _completed(more, receiver)
    after = await _active(client, segment)
    console.print(
        f"\nA segment of everybody whose slot is above {LATE['value']} has {before['members']} members; "
        f"after a file with one more, {after['members']}."
    )


async def _active(client: httpx.AsyncClient, segment: str) -> dict[str, Any]:
    """Wait until a segment has its members; gives it as it is then."""
    while True:
        found: dict[str, Any] = (await client.get(f"/v1/segments/{segment}")).raise_for_status().json()
        if found["status"] == "active":
            return found
        await asyncio.sleep(0.1)


async def _ended(client: httpx.AsyncClient, receiver: Receiver, body: dict[str, Any]) -> dict[str, Any]:
    return await _completed(await client.post("/v1/ingestions", json=body), receiver)


async def _completed(asked: httpx.Response, receiver: Receiver) -> dict[str, Any]:
    made = asked.raise_for_status().json()
    ended: dict[str, Any] = await receiver.until("ingestion.completed", made["id"])
    return ended


def _columns(seen: dict[str, Any]) -> Table:
    suggested = {each["column"]: each["attribute"] for each in seen["suggested_mapping"]}
    table = Table("column", "format", "identifies", "masked", "suggested")
    for place, column in enumerate(seen["columns"]):
        first = seen["rows"][0][place] or ""
        telling = f"{column['identifier']:.2f}"
        table.add_row(column["header"], column["format"], telling, first, suggested.get(column["header"], ""))
    return table


def _mapped(mapping: dict[str, Any]) -> Table:
    table = Table("column", "attribute", "format", "identifier", "personal")
    for each in mapping["columns"]:
        marks = ("yes" if each[mark] else "" for mark in ("identifier", "pii"))
        table.add_row(each["column"], each["attribute"], each["format"], *marks)
    return table
