"""Files over HTTP: streamed in, durable before they are acknowledged, one namespace with SFTP's."""

import asyncio
import hashlib
import json
from types import SimpleNamespace

import pytest
from tests.api.sources import source
from tests.api.world import ingest, manifest, upload

from ingestd.api import files
from ingestd.api.problems import Refused


async def pieces(*data):
    for piece in data:
        yield piece


@pytest.mark.threat("T24")
async def test_a_file_is_streamed_in_and_shown_and_never_given_back(tenant):
    data = b"identity\n" + b"".join(b"user-%d\n" % n for n in range(300_000))
    answer = await tenant.http.put("/v1/files/x.csv", content=pieces(data[:5], data[5:2_000_000], data[2_000_000:]))
    assert answer.status_code == 201
    made = answer.json()
    assert made["sha256"] == hashlib.sha256(data).hexdigest()
    assert (made["size_bytes"], made["state"], made["uploaded_by"]["type"]) == (len(data), "available", "api_key")
    shown = await tenant.http.get(answer.headers["location"])
    assert shown.json() == made
    assert "etag" in shown.headers
    async with tenant.sftp() as client:
        assert [entry.filename for entry in await client.readdir("/")] == ["x.csv"]


@pytest.mark.threat("T54")
@pytest.mark.parametrize(
    ("every", "piece", "times", "arrives"),
    [
        (50, b"x", 2, False),
        (50, b"x", 1, True),
        (50, bytes(50 * files.SLOWEST), 100, True),
        (50, bytes(49 * files.SLOWEST), 2, False),
        (60, bytes(60 * files.SLOWEST), 720, True),
        (60, bytes(60 * files.SLOWEST), 721, False),
    ],
)
async def test_an_upload_may_not_drip_nor_go_on_for_ever(monkeypatch, every, piece, times, arrives):
    now = 0.0

    async def stream():
        nonlocal now
        for _ in range(times):
            now += every
            yield piece

    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=lambda: now))
    found = files.pieces(SimpleNamespace(stream=stream))
    if arrives:
        assert [len(each) async for each in found] == [len(piece)] * times
    else:
        with pytest.raises(Refused, match="did not arrive in time"):
            _ = [each async for each in found]


@pytest.mark.rule("S137", "D46")
async def test_a_name_finds_what_it_was_given_to_in_either_unicode_form(tenant):
    await tenant.put("cafe\u0301.csv", b"identity\nann\n")
    await tenant.put("cafe\u0301.manifest", json.dumps(manifest("caf\u00e9.csv")).encode())
    await tenant.ended()
    for form in ("cafe\u0301", "caf\u00e9"):
        for path, name in (("files", "name"), ("manifests", "name"), ("ingestions", "file_name")):
            suffix = "manifest" if path == "manifests" else "csv"
            found = await tenant.http.get(f"/v1/{path}", params={name: f"{form}.{suffix}"})
            assert len(found.json()["data"]) == 1, (path, form)


@pytest.mark.threat("T42", "T54")
async def test_of_an_upload_that_is_too_slow_nothing_stays(tenant, monkeypatch):
    crm = await source(tenant, id="identity")
    monkeypatch.setattr(files, "FIRST", 0.0)
    monkeypatch.setattr(files, "SLOWEST", 1 << 60)
    for asked in (
        tenant.http.put("/v1/files/x.csv", content=b"identity\nann\n"),
        tenant.http.post(f"{crm.path}/uploads", files={"file": ("x.tsv", b"id\nann\n")}),
    ):
        answer = await asked
        assert (answer.status_code, answer.json()["code"]) == (408, "request_timeout")
    assert (await tenant.http.get("/v1/files")).json()["data"] == []


@pytest.mark.rule("S136")
async def test_that_a_file_has_come_is_told_whatever_door_it_took_and_under_its_last_name(tenant, receiver):
    made = (await tenant.http.put("/v1/files/one.csv", content=b"identity\nann\n")).json()
    await tenant.put("two.csv.filepart", b"identity\nann\n")
    async with tenant.sftp() as client:
        await client.rename("/two.csv.filepart", "/two.csv")
    async with receiver.news:
        await receiver.news.wait_for(lambda: len(receiver.told) == 3)
    told = {each["data"]["name"]: each["data"] for each in receiver.told if each["type"] == "file.received"}
    assert set(told) == {"one.csv", "two.csv.filepart", "two.csv"}
    assert told["one.csv"] == {name: made[name] for name in told["one.csv"]}
    assert told["two.csv"]["id"] == told["two.csv.filepart"]["id"]


@pytest.mark.parametrize(
    "name", [".csv", "a%00.csv", "-x.csv", "x.manifest", "x.Manifest", "a" * 201, "=1+1.csv", "a%0d%0ab.csv"]
)
@pytest.mark.threat("T20")
async def test_a_name_that_sftp_would_not_take_is_refused_before_a_byte_is_read(tenant, name):
    answer = await tenant.http.put(f"/v1/files/{name}", content=b"1")
    assert (answer.status_code, answer.json()["code"]) == (422, "file_name_invalid")
    assert answer.json()["errors"][0]["pointer"] == "/path/file"


@pytest.mark.rule("S138", "D10")
@pytest.mark.threat("T55")
async def test_a_file_that_says_it_is_too_large_is_refused_at_once(tenant):
    limit = tenant.app.settings.limits.file_bytes
    reader, writer = await asyncio.open_connection("127.0.0.1", tenant.app.http_port)
    writer.write(
        f"PUT /v1/files/x.csv HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tenant.key}\r\n"
        f"Content-Length: {limit + 1}\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413")
    writer.close()
    assert (await tenant.http.get("/v1/files")).json()["data"] == []


@pytest.mark.threat("T43")
async def test_an_upload_that_is_cut_off_leaves_nothing(tenant, ground):
    before = {blob.name for blob in ground.blobs.list("files")}
    reader, writer = await asyncio.open_connection("127.0.0.1", tenant.app.http_port)
    writer.write(
        f"PUT /v1/files/x.csv HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tenant.key}\r\n"
        "Content-Length: 1000\r\n\r\nidentity\nann\n".encode()
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await reader.read()) == b""
    await upload(tenant, "y.csv", b"identity\nbob\n")
    listed = (await tenant.http.get("/v1/files")).json()["data"]
    assert [file["name"] for file in listed] == ["y.csv"]
    assert len({blob.name for blob in ground.blobs.list("files")} - before) == 1


@pytest.mark.rule("D18")
async def test_files_are_listed_by_name_and_state_and_deleted_while_nobody_has_taken_them(tenant):
    first, second = await upload(tenant, "x.csv", b"identity\n1\n"), await upload(tenant, "x.csv", b"identity\n2\n")
    other = await upload(tenant, "y.csv", b"identity\n3\n")
    taken = await tenant.ended(await ingest(tenant, "z.csv", b"identity\nann\n"))
    listed = (await tenant.http.get("/v1/files", params={"state": ["available", "superseded"]})).json()["data"]
    assert [file["id"] for file in listed] == [other["id"], second["id"], first["id"]]
    by_name = (await tenant.http.get("/v1/files", params={"name": "x.csv", "limit": 1})).json()
    assert [file["id"] for file in by_name["data"]] == [second["id"]]
    refused = await tenant.http.delete(f"/v1/files/{taken['file']['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "file_taken")
    assert (await tenant.http.delete(f"/v1/files/{second['id']}")).status_code == 204
    assert (await tenant.http.delete(f"/v1/files/{second['id']}")).status_code == 409
    assert (await tenant.http.get(f"/v1/files/{second['id']}")).json()["state"] == "removed"


async def test_a_deletion_needs_the_file_to_be_what_the_caller_takes_it_for(tenant):
    file = await upload(tenant, "x.csv", b"identity\n1\n")
    answer = await tenant.http.delete(f"/v1/files/{file['id']}", headers={"If-Match": '"other"'})
    assert (answer.status_code, answer.json()["code"]) == (412, "changed_meanwhile")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Range": "bytes 100-200/300"}, 400, "bad_request"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415, "unsupported_media_type"),
    ],
)
async def test_a_part_of_a_file_and_a_form_around_one_are_never_taken_for_a_file(tenant, headers, status, code):
    refused = await tenant.http.put("/v1/files/x.csv", content=b"tail of a file", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert (await tenant.http.get("/v1/files")).json()["data"] == []
