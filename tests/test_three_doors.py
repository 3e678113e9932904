"""The same bytes and plan through each door give the same people, the same counts and the same error file."""

from __future__ import annotations

import pytest
from tests.api.sources import CRMID, source, tsv
from tests.api.world import ingest
from tests.fetch.servers import SftpServer, put
from tests.scheduler.world import body, ended, new_connection

MANIFEST_FILE = b"identity,Age,City\nann,21,Rome\nbob,x,Oslo\ncat,7,\nann,22,\n,1,Ulm\n"
COLUMNS = {"Age": {"dataType": "INTEGER"}}
SOURCE_FILE = tsv("crmid age", "c-1 30", "c-2 x", "c-1 31", "c-3 7")
AGE = {"name": "age", "format": "INTEGER"}


async def outcome(tenant, done, identifiers):
    people = [await tenant.profile(*each) for each in identifiers]
    attributes = [person and person["attributes"] for person in people]
    return done["status"], done["counts"], attributes, await tenant.error_file(done)


async def test_sftp_and_http_do_the_same_with_a_manifest(tenant, other):
    people = [(name, "identity") for name in ("ann", "bob", "cat")]
    pushed = await tenant.push(MANIFEST_FILE, columns=COLUMNS)
    posted = await other.ended(await ingest(other, "file-1.csv", MANIFEST_FILE, columns=COLUMNS))
    assert (pushed["channel"], posted["channel"]) == ("sftp", "upload")
    assert await outcome(tenant, pushed, people) == await outcome(other, posted, people)


@pytest.mark.rule("S49", "D51")
async def test_http_and_a_schedule_do_the_same_for_a_data_source(tenant, other, tmp_path):
    people = [(name, "crmid") for name in ("c-1", "c-2", "c-3")]
    uploaded = await (await source(tenant, crmid=CRMID, age=AGE)).ingest(SOURCE_FILE)
    crm = await source(other, crmid=CRMID, age=AGE)
    folder = tmp_path / "theirs"
    folder.mkdir()
    async with SftpServer(folder) as server:
        put(folder / "demo_path", "CRM__1.csv", b"not this", age=60)
        put(folder / "demo_path", "CRM__1.tsv", SOURCE_FILE, age=120)
        connection = await new_connection(other, **server.connection())
        (await other.http.put(f"{crm.path}/schedule", json=body(connection))).raise_for_status()
        run = await ended(other, (await other.http.post(f"{crm.path}/runs")).raise_for_status().json())
        assert (run["result"], run["data_source"], run["file"]["name"]) == ("ingested", crm.id, "CRM__1.tsv"), run
        fetched = await other.ended(run["ingestion"]["id"])
        assert (fetched["channel"], fetched["data_source"]["id"]) == ("schedule", crm.id)
        assert await outcome(tenant, uploaded, people) == await outcome(other, fetched, people)

        again = await ended(other, (await other.http.post(f"{crm.path}/runs")).raise_for_status().json())
        assert again["result"] == "unchanged"
        put(folder / "demo_path", "CRM__2.tsv", tsv("crmid years", "c-1 30"), age=60)
        refused = await ended(other, (await other.http.post(f"{crm.path}/runs")).raise_for_status().json())
        assert (refused["outcome"], refused["error"]["code"]) == ("failed", "header_incorrect")
    await other.http.delete(f"{crm.path}/schedule")
