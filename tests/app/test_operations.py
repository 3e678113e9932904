"""The operator's side: health by name, metrics on their own port, roles, TLS and a clean stop."""

from __future__ import annotations

import asyncio
import re
import ssl
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import trustme
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from tests.conftest import new_client

from ingestd.app import checks, serving
from ingestd.app.role import Role
from ingestd.app.service import running
from ingestd.metrics import new_metrics

ROOT = Path(__file__).parents[2]


async def scraped(app):
    async with new_client(app.operations_url) as http:
        text = (await http.get("/metrics")).raise_for_status().text
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


@contextmanager
def away(folder):
    """A folder is gone, for a moment."""
    folder.rename(folder.with_name("away"))
    yield
    folder.with_name("away").rename(folder)


async def test_readiness_names_each_check(ground, app):
    expected = dict.fromkeys(("database", "migrations", "blobs", "worker", "clock", "sftp"), "ok")
    for url in (app.http_url, app.operations_url):
        async with new_client(url) as http:
            assert (await http.get("/livez")).json() == {"status": "ok"}
            ready = await http.get("/readyz")
            assert (ready.status_code, ready.json()) == (200, {"status": "ok", "checks": expected})
    with away(ground.blob_place):
        async with new_client(app.http_url) as http:
            while (ready := await http.get("/readyz")).status_code == 200:
                pass  # the last answer holds for a second
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert ready.json()["checks"] == expected | {"blobs": "unavailable"}


async def test_a_check_is_made_once_however_many_ask():
    made = 0

    async def check():
        nonlocal made
        made += 1
        return True

    [ask] = checks.all_of({"thing": check}).values()
    assert all(await asyncio.gather(*(ask() for _ in range(100))))
    assert made == 1


async def test_metrics_tell_what_was_done_and_what_waits(app, tenant):
    before = await scraped(app)
    columns = {"Age": {"dataType": "INTEGER"}}
    await tenant.push(b"identity,Age\nann,1\nbob,old\n", columns=columns)
    async with tenant.sftp():
        during = await scraped(app)
    grown = {name: float(value) - float(before.get(name, 0)) for name, value in during.items()}
    assert grown['ingestd_ingestions_total{status="completed",target="profiles"}'] == 1
    assert grown['ingestd_rows_total{outcome="accepted"}'] == 1
    assert grown['ingestd_rows_total{outcome="rejected"}'] == 1
    assert grown['ingestd_rejections_total{code="integer_invalid"}'] == 1
    assert grown['ingestd_stage_seconds_count{stage="checking"}'] == 1
    assert float(during["ingestd_sftp_sessions"]) >= 1
    assert float(during["ingestd_stored_bytes"]) > 0
    assert during['ingestd_queue_depth{queue="scheduled"}'] == "0.0"
    assert {"ingestd_oldest_scheduled_seconds", "ingestd_delivery_lag_seconds"} <= during.keys()


@pytest.mark.threat("T102")
async def test_no_metric_is_labelled_with_who_or_what_file(app, tenant):
    text = str(await scraped(app))
    assert tenant.id not in text
    assert set(re.findall(r"(\w+)=\"", text)) <= {
        "target",
        "status",
        "outcome",
        "code",
        "stage",
        "le",
        "result",
        "queue",
    }


def test_the_documents_list_every_metric_with_its_labels():
    text = (ROOT / "docs/operations.md").read_text()
    table = re.findall(r"^\| `(ingestd_\w+)`(?: by ([\w, `]+))? \|", text, re.MULTILINE)
    documented = {name: set(re.findall(r"\w+", labels)) for name, labels in table}
    metrics = new_metrics()
    counted = {}
    for collector in metrics.registry._collector_to_names:
        [family] = collector.describe()
        suffix = "_total" if family.type == "counter" else ""
        counted[family.name + suffix] = set(collector._labelnames)
    assert documented == counted


async def test_a_process_without_a_role_has_neither_its_door_nor_its_check(ground, app):
    async with running(ground, [Role.API]) as api, new_client(api.http_url) as http:
        assert list((await http.get("/readyz")).json()["checks"]) == ["database", "migrations", "blobs"]
        assert api.sftp_door is None
    async with running(ground, [Role.CLOCK]) as clock, new_client(clock.operations_url) as http:
        assert list((await http.get("/readyz")).json()["checks"])[3:] == ["clock"]
        assert (await http.get("/version")).status_code == 200
        assert clock.http_port is None


@pytest.mark.rule("S84")
@pytest.mark.threat("T41")
async def test_an_api_apart_tells_where_the_sftp_server_of_another_process_is(ground, app, tenant, tmp_path):
    told = (await tenant.http.get("/v1/sftp")).raise_for_status().json()
    public = tmp_path / "host_key.pub"
    public.write_text(app.sftp.host_keys[0])
    port = {"public_port": app.sftp.port}

    async def apart(folder, **changes):
        sftp = ground.settings.sftp.model_copy(update=port | changes)
        settings = ground.settings.model_copy(update={"sftp": sftp, "data_dir": folder})
        async with (
            running(replace(ground, settings=settings), [Role.API]) as api,
            new_client(api.http_url, headers=tenant.http.headers) as http,
        ):
            keys = (await http.get("/v1/import-keys")).raise_for_status().json()
            answer = await http.get("/v1/sftp")
            assert keys["server"] == (answer.json() if answer.status_code == 200 else None)
            return answer

    for answer in (await apart(ground.settings.data_dir), await apart(tmp_path, host_key=public)):
        assert answer.json() == told
    without = (await apart(tmp_path, public_host="sftp.example.org")).json()
    assert (without["host"], without["host_key_fingerprints"]) == ("sftp.example.org", [])
    for unreadable in (None, tmp_path):
        unknown = await apart(tmp_path, host_key=unreadable)
        assert (unknown.status_code, "INGESTD_SFTP__HOST_KEY" in unknown.json()["detail"]) == (503, True)


async def test_the_api_speaks_tls_where_a_certificate_is_set(ground, app, tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(chain, append=True)
    certificate.private_key_pem.write_to_path(key)
    http = ground.settings.http.model_copy(update={"certificate": chain, "private_key": key, "host": "localhost"})
    secured = replace(ground, settings=ground.settings.model_copy(update={"http": http}))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with running(secured, [Role.API]) as api:
        assert api.http_url.startswith("https://localhost:")
        async with new_client(api.http_url, verify=context) as trusting:
            assert (await trusting.get("/livez")).status_code == 200
        async with new_client(api.http_url) as stranger:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await stranger.get("/livez")


async def stream_until_stop(port, *, stopping):
    """Read a stream to its end; tell when its first piece is there."""
    async with new_client(f"http://127.0.0.1:{port}") as http, http.stream("GET", "/stream") as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"open"
        stopping.set()
        return [piece async for piece in pieces]


def streaming(wait_for):
    api = FastAPI()

    @api.get("/stream")
    async def stream():
        async def pieces():
            yield b"open"
            await wait_for.wait()
            yield b"end"

        return StreamingResponse(pieces())

    return api


async def test_open_streams_end_in_order_when_the_service_stops():
    stopping, begun = asyncio.Event(), asyncio.Event()
    async with serving.serving(streaming(stopping), "127.0.0.1", 0, stopping=stopping) as port:
        reading = asyncio.create_task(stream_until_stop(port, stopping=begun))
        await begun.wait()
    assert await reading == [b"end"]


async def test_a_stream_that_does_not_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(serving, "STOP_SECONDS", 1)
    never, begun = asyncio.Event(), asyncio.Event()
    async with serving.serving(streaming(never), "127.0.0.1", 0) as port:
        reading = asyncio.create_task(stream_until_stop(port, stopping=begun))
        await begun.wait()
    with pytest.raises(httpx.RemoteProtocolError):
        await reading
