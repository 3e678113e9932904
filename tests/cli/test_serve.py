"""`ingestd serve` as a program on a database of its own: schema, roles, and a stop with open streams."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from contextlib import asynccontextmanager

import httpx
import pytest
import pytest_asyncio

from ingestd.app.ground import base, migrate
from ingestd.cli import accounts
from ingestd.settings import Settings

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]

STOP_SECONDS = 30
HTTP = re.compile(r"HTTP on (http\S+?)[,\s]")


@pytest_asyncio.fixture
async def spawn(place):
    """Start processes; those that still run afterwards are killed."""
    started = []

    async def start(*arguments, **changes):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ingestd", "serve", *arguments,
            env=os.environ | place | changes, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def ready(process):
    """Wait until a process says that it is ready; gives that line."""
    async for line in process.stdout:
        if b"ready" in line:
            return line.decode()
    raise AssertionError((await process.stderr.read()).decode())


async def stop(process):
    """Stop a process as an operator would, within the time that is promised; gives its exit code."""
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(STOP_SECONDS):
        await process.communicate()
    return process.returncode


async def test_a_schema_that_is_behind_and_a_missing_master_key_are_refused_with_the_remedy(spawn):
    for changes, remedy in (({}, "Run: ingestd migrate"), ({"INGESTD_MASTER_KEY": ""}, "keys master")):
        process = await spawn(**changes)
        said, complaint = await process.communicate()
        assert (process.returncode, said) == (1, b"")
        assert remedy in " ".join(complaint.decode().split())


async def test_what_keeps_a_process_from_starting_is_said_in_a_line_with_what_to_do(spawn, place, tmp_path, app):
    (tmp_path / "no.pem").write_text("no certificate")
    (tmp_path / "no.key").write_text("no key")
    (tmp_path / "no.key").chmod(0o600)
    cases = (
        ("api", {"INGESTD_HTTP__PORT": str(app.http_port)}, "INGESTD_HTTP__PORT"),
        ("api", {"INGESTD_HTTP__CERTIFICATE": str(tmp_path / "no.pem")}, "INGESTD_HTTP__CERTIFICATE"),
        ("worker", {"INGESTD_MAIL__HOST": "::1", "INGESTD_MAIL__AUTHORITY": "/dev/null/x"}, "INGESTD_MAIL__AUTHORITY"),
        ("sftp", {"INGESTD_SFTP__PORT": str(app.sftp.port)}, "INGESTD_SFTP__PORT"),
        ("sftp", {"INGESTD_SFTP__HOST_KEY": str(tmp_path / "no.key")}, "INGESTD_SFTP__HOST_KEY"),
    )
    await asyncio.to_thread(migrate, place["INGESTD_DATABASE_URL"])
    started = [await spawn("--roles", roles, **changes) for roles, changes, _ in cases]
    for process, (_, _, remedy) in zip(started, cases, strict=True):
        said, complaint = await process.communicate()
        assert (process.returncode, said, complaint.count(b"\n")) == (1, b"", 1), complaint
        assert complaint.startswith(b"ingestd: ")
        assert remedy in complaint.decode()


async def test_a_start_that_fails_keeps_no_first_account_to_itself(spawn, app):
    alone = {"INGESTD_DATABASE_URL": "", "INGESTD_MASTER_KEY": ""}
    failed = await spawn(**alone, INGESTD_HTTP__PORT=str(app.http_port))
    said, complaint = await failed.communicate()
    assert (failed.returncode, said, complaint.count(b"\n")) == (1, b"", 1), complaint
    process = await spawn(**alone)
    await ready(process)
    async with asyncio.timeout(STOP_SECONDS):
        async for line in process.stdout:
            if b"API key   isk_" in line:
                break
        else:
            raise AssertionError("no key was shown")
    assert await stop(process) == 0


async def test_processes_that_start_together_migrate_once_and_stop_with_streams_open(place, spawn):
    processes = [await spawn("--migrate", "--roles", "api") for _ in range(2)]
    said = [await ready(process) for process in processes]
    assert all("SFTP" not in line for line in said)
    _, key = await asyncio.to_thread(new_account, place)
    async with client(said[0], key) as one, client(said[1], key) as two:
        ingestion = await submitted(one)
        events = f"/v1/ingestions/{ingestion}/events"
        async with one.stream("GET", events) as first, two.stream("GET", events) as second:
            streams = [answer.aiter_lines() for answer in (first, second)]
            for lines in streams:
                assert await anext(lines)
            began = time.monotonic()
            assert await asyncio.gather(*(stop(process) for process in processes)) == [0, 0]
            assert time.monotonic() - began < STOP_SECONDS
            for lines in streams:
                _ = [line async for line in lines]  # they end in order; one that is broken off raises


def new_account(place):
    settings = Settings(**{name.removeprefix("INGESTD_").lower(): place[name] for name in list(place)[:3]})
    with base(settings) as ground:
        return accounts.make(ground, name="test", email_domains=["example.org"])


@asynccontextmanager
async def client(line, key):
    url = HTTP.search(line)[1]
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=STOP_SECONDS) as http:
        yield http


async def submitted(http):
    """An ingestion that nobody runs."""
    file = await http.put("/v1/files/x.csv", content=b"identity\nann\n", headers={"Content-Type": "text/csv"})
    manifest = {"fileName": "x.csv", "type": "profile", "clientEmail": "a@example.org", "columns": {}}
    body = {"file_id": file.raise_for_status().json()["id"], "manifest": manifest}
    made = await http.post("/v1/ingestions", json=body)
    return made.raise_for_status().json()["id"]
