"""Personal data stays in files and tables: a mark in every value and name, over success and failure."""

import asyncio
import io
import logging
from functools import partial

import asyncssh
import httpx
import pytest
from sqlalchemy import text
from tests.api.sources import CRMID, source, tsv
from tests.api.walk import SERVER
from tests.fetch.servers import SftpServer, put
from tests.scheduler.world import activate, ended, new_connection, scheduled

from ingestd import telemetry
from ingestd.cli.receiver import Receiver
from ingestd.store.engine import transaction

VALUE = "canaryvalue"
NAME = "canaryname"

PROFILES = (
    f"identity,{NAME},Phone,Age\n"
    f"{VALUE}@example.org,{VALUE},+15550100,1\n"
    f"{VALUE},{VALUE},{VALUE},{VALUE}\n"
    f'"{VALUE},unclosed\n'
).encode()
EVENTS = f"identity,evtName,{NAME}\n{VALUE},{VALUE},{VALUE}\n,{VALUE},{VALUE}\n".encode()


@pytest.fixture
def written():
    """What the service logs, at its most talkative."""
    stream = io.StringIO()
    handler = telemetry.output(stream, pretty=False)
    root, ours = logging.getLogger(), logging.getLogger("ingestd")
    level = ours.level
    root.addHandler(handler)
    ours.setLevel(logging.DEBUG)
    yield stream
    ours.setLevel(level)
    root.removeHandler(handler)


async def files(tenant):
    """Files that succeed, partly fail and fail, each full of marks."""
    columns = {"Age": {"dataType": "INTEGER"}}
    ended = [await tenant.push(PROFILES, fileName=f"{NAME}.csv", columns=columns)]
    ended.append(await tenant.push(EVENTS, type="event"))
    ended.append(await tenant.push(b"\x1f\x8b" + VALUE.encode()))
    ended.append(await tenant.push(PROFILES, columns={NAME: {"dataType": VALUE}}))
    ended.append(await tenant.push(PROFILES, clientEmail=f"{VALUE}@evil.example"))
    ended.append(await tenant.push(f"{NAME}\n{VALUE}\n".encode()))
    assert {each["status"] for each in ended} == {"completed", "failed"}


async def requests(tenant):
    """Requests that succeed and fail, with marks wherever a caller can put one."""
    lookup = {"identifiers": [{"kind": "identity", "value": f"{VALUE}@example.org"}]}
    for body in (lookup, lookup | {VALUE: VALUE}, {"identifiers": [{"kind": VALUE, "value": VALUE}]}):
        await tenant.http.post("/v1/profiles/lookup", json=body, headers={"Idempotency-Key": VALUE})
    for content in (VALUE, f'{{"{VALUE}"', f'"{VALUE}"', f"[[[{VALUE}"):
        headers = {"content-type": "application/json", "If-Match": VALUE, "Account-Id": VALUE}
        await tenant.http.post("/v1/profiles/lookup", content=content, headers=headers)
    for path in (
        f"/v1/ingestions/{VALUE}",
        f"/{VALUE}",
        f"/v1/api-keys?{VALUE}={VALUE}",
        f"/v1/api-keys?cursor={VALUE}",
    ):
        assert (await tenant.http.get(path)).status_code in {404, 422}
    await tenant.http.post("/v1/webhooks", json={"name": VALUE, "url": f"https://{VALUE}.invalid:1/{VALUE}"})
    await tenant.http.post("/v1/import-keys", json={"name": VALUE, "public_key": f"ssh-rsa {VALUE} {VALUE}"})
    async with httpx.AsyncClient(base_url=tenant.app.http_url) as stranger:
        for key in (VALUE, f"Bearer {VALUE}", f"Bearer isk_{'0' * 26}_{VALUE}"):
            await stranger.get("/v1/me", headers={"Authorization": key})


async def sources(tenant):
    """A data source, its uploads, and a filter segment of who they bring."""
    columns = {
        "town": {"name": NAME, "use_in_segments": True, "pii": True},
        "age": {"name": "age", "format": "INTEGER"},
    }
    crm = await source(tenant, NAME, crmid=CRMID, **columns)
    condition = {"attribute": NAME, "op": "equals", "value": VALUE}
    body = {"name": f"{NAME} filter", "description": VALUE, "type": "SCD", "condition": condition}
    made = await tenant.http.post("/v1/filters", json=body)
    await activate(tenant, made.raise_for_status().json())
    await tenant.http.post("/v1/filters/preview", json={"condition": condition | {"op": VALUE}})
    done = await crm.ingest(
        tsv("crmid town age", f"{VALUE} {VALUE} 1", f"{VALUE}-2 {VALUE} {VALUE}"), name=f"{NAME}.tsv"
    )
    assert (done["counts"]["accepted"], done["counts"]["rejected"]) == (1, 1)
    assert (await crm.post(tsv(f"crmid {VALUE}", f"{VALUE} {VALUE}"))).json()["code"] == "header_incorrect"
    form = {"data_source_id": (None, crm.id), "file": (f"{VALUE}.tsv", VALUE.encode())}
    await tenant.http.post("/v1/ingestions", files=form)


async def segments(tenant, folder):
    """A segment that fetches its members from a server, which is browsed, too."""
    for age, row in ((120, f"{VALUE},{VALUE}"), (60, f'{VALUE},{VALUE},{VALUE}\n"{VALUE}')):
        put(folder / "demo_path", f"{NAME}__{age}.csv", f"user_id,level\n{row}\n".encode(), age=age)
    async with SftpServer(folder) as server:
        connection = await new_connection(tenant, **server.connection())
        async with scheduled(tenant, connection, NAME, path="demo_path") as segment:
            path = f"/v1/segments/{segment['id']}"
            run = await ended(tenant, (await tenant.http.post(f"{path}/runs")).raise_for_status().json())
            await tenant.ended(run["ingestion"]["id"])
            looked_up = {"identifiers": [{"kind": "user_id", "value": VALUE}, {"kind": VALUE, "value": VALUE}]}
            await tenant.http.post(f"{path}/members/lookup", json=looked_up)
            for asked in ("members", "export", f"members?partition={VALUE}"):
                await tenant.http.get(f"{path}/{asked}")
            await tenant.http.put(f"{path}/draft", json={"description": VALUE, VALUE: VALUE})
        browsed = await tenant.http.get(f"/v1/connections/{connection['id']}/files", params={"path": "demo_path"})
        assert NAME in browsed.raise_for_status().text
        await tenant.http.get(f"/v1/connections/{connection['id']}/files", params={"path": VALUE})
        await tenant.http.post(f"/v1/connections/{connection['id']}/resolve", json={"path": VALUE, "name": VALUE})
    for wrong in ({"host": f"{VALUE}.invalid"}, {"username": VALUE, "password": VALUE}, {"root": f"../{VALUE}"}):
        await tenant.http.post("/v1/connections/test", json=SERVER | {"name": VALUE} | wrong)


async def failures(tenant):
    """A database that fails, quoting what it stumbled over."""
    async with transaction(tenant.app.intake.sessions) as session:
        await session.execute(text(
            "CREATE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'cannot keep %', NEW.name USING DETAIL = NEW.name; END $$"
        ))  # fmt: skip
        await session.execute(text("CREATE TRIGGER quote BEFORE INSERT ON api_keys EXECUTE FUNCTION quote()"
                                   .replace("EXECUTE", "FOR EACH ROW EXECUTE")))  # fmt: skip
    try:
        answer = await tenant.http.post("/v1/api-keys", json={"name": VALUE, "scopes": ["account:read"]})
        assert (answer.status_code, VALUE in answer.text) == (500, False)
    finally:
        async with transaction(tenant.app.intake.sessions) as session:
            await session.execute(text("DROP FUNCTION quote CASCADE"))


async def sftp(tenant):
    """Names and users that the SFTP door refuses."""
    async with tenant.sftp() as client:
        for name in (f"/{NAME}/../x", f"/{VALUE}\n.csv", f"/{VALUE}/x.csv", f"/{VALUE}" * 60):
            with pytest.raises(asyncssh.SFTPError):
                await client.open(name, "wb")
    options = {"known_hosts": None, "config": None, "agent_path": None, "client_keys": [str(tenant.import_key)]}
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect("127.0.0.1", tenant.app.sftp.port, username=VALUE, **options)


@pytest.mark.threat("T102", "T103")
async def test_no_mark_is_found_where_personal_data_has_no_place(tenant, receiver: Receiver, written, tmp_path):
    for act in (files, requests, sources, partial(segments, folder=tmp_path / "theirs"), failures, sftp):
        await act(tenant)
    async with asyncio.timeout(30), receiver.news:
        await receiver.news.wait_for(lambda: len(receiver.told) >= 12)
    lines = written.getvalue()
    assert lines.count('"event": "request"') > 10
    assert '"event": "request failed"' in lines
    assert marked(lines, VALUE, NAME) == []
    async with httpx.AsyncClient(base_url=tenant.app.operations_url) as operations:
        assert marked((await operations.get("/metrics")).text, VALUE, NAME) == []
    assert marked("\n".join(map(str, receiver.told)), VALUE) == []
    async with transaction(tenant.app.intake.sessions) as session:
        for query in (
            "SELECT concat(error, warnings, checked, counts, progress) FROM ingestions",
            "SELECT concat(data) FROM notices",
            "SELECT concat(error, why) FROM runs",
            "SELECT concat(attempts) FROM deliveries",
            "SELECT encode(hash || fingerprint || answer, 'escape') FROM idempotency_keys",
        ):
            rows = [str(row) for row in await session.scalars(text(query))]
            assert marked("\n".join(rows), VALUE) == [], query


def marked(lines: str, *marks: str) -> list[str]:
    return [line for line in lines.splitlines() if any(mark in line for mark in marks)]
