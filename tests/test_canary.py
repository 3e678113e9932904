"""Personal data stays in files and tables: a mark in every value and name, over success and failure."""

import asyncio
import io
import logging

import asyncssh
import httpx
import pytest
from sqlalchemy import text

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
async def test_no_mark_is_found_where_personal_data_has_no_place(tenant, receiver: Receiver, written):
    for act in (files, requests, failures, sftp):
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
            "SELECT concat(attempts) FROM deliveries",
            "SELECT encode(hash || fingerprint || answer, 'escape') FROM idempotency_keys",
        ):
            rows = [str(row) for row in await session.scalars(text(query))]
            assert marked("\n".join(rows), VALUE) == [], query


def marked(lines: str, *marks: str) -> list[str]:
    return [line for line in lines.splitlines() if any(mark in line for mark in marks)]
