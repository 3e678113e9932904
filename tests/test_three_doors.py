"""One table through each door gives the same people, the same counts and the same error file.

No one plan enters all three doors: SFTP takes manifests and nothing else (S85 to S88), and a schedule keeps a segment
or a data source fresh (D51), never a manifest, whose name is used up at once (D18). So the table comes as CSV under a
manifest, pushed and posted, and as TSV under a data source's mapping that says the same, posted and fetched; all four
are held to one outcome. Only the sentence about a row without an identifier is each plan's own: the one of manifests
names their kinds (S115).
"""

from __future__ import annotations

import asyncio
import json

import psycopg
import pytest
from tests.api.sources import source
from tests.api.world import account_of, ingest
from tests.fetch.servers import SftpServer, put
from tests.scheduler.world import body, ended, new_connection

TABLE = "identity,Age,City\nann,21,Rome\nbob,x,Oslo\ncat,7,\nann,22,\n,1,Ulm\n"
AS_CSV, AS_TSV = TABLE.encode(), TABLE.replace(",", "\t").encode()
COLUMNS = {"Age": {"dataType": "INTEGER"}}
MAPPING = {"identity": "identity", "Age": {"name": "Age", "format": "INTEGER"}, "City": {"name": "City"}}

PEOPLE = {"ann": {"Age": 22, "City": "Rome"}, "bob": None, "cat": {"Age": 7}}
COUNTS = {"read": 5, "accepted": 3, "rejected": 2, "blank": 0, "created": 2, "updated": 0, "unchanged": 0}
ERROR_FILE = (
    '"identity","Age","City","Failure Description"\r\n'
    '"bob","x","Oslo","Age: not an INTEGER of 32 bits (LONG has 64)"\r\n'
    '"","1","Ulm","{}"\r\n'
)
OF_MANIFESTS = "Atleast one of identity / fbId / gpId / objectId is mandatory under 1024 chars to identify the user"
OF_MAPPINGS = "At least one identifier is mandatory, under 1024 characters"


async def check(tenant, done, channel, sentence):
    """Hold an ingestion to the one outcome, whatever door it came through."""
    assert (done["channel"], done["status"]) == (channel, "completed")
    assert done["counts"] == done["counts"] | COUNTS
    found = {name: await tenant.profile(name) for name in PEOPLE}
    assert {name: person and person["attributes"] for name, person in found.items()} == PEOPLE
    assert await tenant.error_file(done) == ERROR_FILE.format(sentence)


async def test_a_manifest_pushed_and_posted(tenant, other):
    await check(tenant, await tenant.push(AS_CSV, columns=COLUMNS), "sftp", OF_MANIFESTS)
    posted = await other.ended(await ingest(other, "file-1.csv", AS_CSV, columns=COLUMNS))
    await check(other, posted, "upload", OF_MANIFESTS)


async def waiting(sql, count):
    """Wait until so many wait for a lock; the test's time limit ends a wait in vain."""
    while sql.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0] < count:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_two_doors_of_an_account_do_not_wait_for_each_other(ground, tenant):
    crm = await source(tenant, **MAPPING)
    manifest = json.dumps({"fileName": "a.csv", "type": "profile", "clientEmail": "data@example.org"})
    await tenant.put("a.csv", b"identity\nann\n")
    await tenant.put("a.part", manifest.encode())
    async with tenant.sftp() as client:
        with psycopg.connect(ground.database_url) as sql:
            sql.execute("SELECT FROM accounts WHERE id = %s FOR NO KEY UPDATE", [account_of(tenant)])
            renaming = asyncio.create_task(client.rename("/a.part", "/a.manifest"))
            await waiting(sql, 1)
            uploading = asyncio.create_task(
                tenant.http.post(f"{crm.path}/uploads", files={"file": ("people.tsv", AS_TSV)})
            )
            await waiting(sql, 2)
        await renaming
    await tenant.ended((await uploading).raise_for_status().json()["id"])


@pytest.mark.rule("S49", "D16", "D51")
async def test_a_data_source_posted_and_fetched(tenant, other, tmp_path):
    await check(tenant, await (await source(tenant, **MAPPING)).ingest(AS_TSV), "upload", OF_MAPPINGS)
    crm = await source(other, **MAPPING)
    folder = tmp_path / "theirs"
    folder.mkdir()
    async with SftpServer(folder) as server:
        put(folder / "demo_path", "CRM__1.csv", b"not this", age=240)
        put(folder / "demo_path", "CRM__1.tsv", AS_TSV, age=300)
        connection = await new_connection(other, **server.connection())
        (await other.http.put(f"{crm.path}/schedule", json=body(connection))).raise_for_status()
        run = await ended(other, (await other.http.post(f"{crm.path}/runs")).raise_for_status().json())
        assert (run["result"], run["data_source"], run["file"]["name"]) == ("ingested", crm.id, "CRM__1.tsv"), run
        fetched = await other.ended(run["ingestion"]["id"])
        assert (fetched["mode"], fetched["data_source"]["id"]) == ("append", crm.id)
        await check(other, fetched, "schedule", OF_MAPPINGS)

        again = await ended(other, (await other.http.post(f"{crm.path}/runs")).raise_for_status().json())
        assert again["result"] == "unchanged"
        put(folder / "demo_path", "CRM__2.tsv", b"name\tyears\nann\t30\n", age=180)
        refused = await ended(other, (await other.http.post(f"{crm.path}/runs")).raise_for_status().json())
        assert (refused["outcome"], refused["error"]["code"]) == ("failed", "header_incorrect")

        put(folder / "demo_path", "CRM__3.tsv", b"identity\tAge\tCity\nann\t22\tRome\n", age=120)
        replacing = body(connection, mode="replace")
        assert (await other.http.put(f"{crm.path}/schedule", json=replacing)).json()["mode"] == "replace"
        run = await ended(other, (await other.http.post(f"{crm.path}/runs")).raise_for_status().json())
        replaced = await other.ended(run["ingestion"]["id"])
        assert (replaced["mode"], replaced["counts"]["removed"], replaced["counts"]["unchanged"]) == ("replace", 1, 1)
    await other.http.delete(f"{crm.path}/schedule")
