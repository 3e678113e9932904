"""Ingestions over HTTP: made, listed, exported, waited for, cancelled and tried again."""

import asyncio
import csv
import io

import httpx
import psycopg
import pytest
from tests.api.world import ingest, manifest, nothing_is_applied, nothing_is_checked, until, upload

from ingestd.api.export_limit import EXPORTS
from ingestd.domain import ids
from ingestd.domain.ids import Prefix

AGE = {"Age": {"dataType": "INTEGER"}}
GOOD, BAD = b"identity\nann\n", b"identity,Age\nann,x\n"


async def answer(tenant, ingestion, verb, **body):
    return await tenant.http.post(f"/v1/ingestions/{ingestion}/{verb}", json=body or None)


async def listed(tenant, **filters):
    found = (await tenant.http.get("/v1/ingestions", params=filters)).raise_for_status().json()
    return [each["id"] for each in found["data"]]


async def key_id(tenant):
    return (await tenant.http.get("/v1/api-keys")).json()["data"][0]["id"]


@pytest.mark.rule("S70")
async def test_a_file_is_ingested_with_a_manifest_given_beside_it(tenant):
    file = await upload(tenant, "x.csv", b"identity,Age\nann,21\n")
    body = {"file_id": file["id"], "manifest": manifest("x.csv", columns=AGE)}
    made = await tenant.http.post("/v1/ingestions", json=body)
    assert made.status_code == 202
    assert made.headers["location"] == f"/v1/ingestions/{made.json()['id']}"
    ended = await tenant.ended(made.json()["id"])
    assert (ended["status"], ended["channel"], ended["manifest"]) == ("completed", "upload", None)
    progress = ended["progress"]
    assert (progress["percent"], progress["rows_read"], progress["bytes_read"]) == (100, 1, file["size_bytes"])
    assert progress["rows_per_second"] >= 0
    assert progress["eta_seconds"] == 0
    assert (await tenant.profile("ann"))["attributes"] == {"Age": 21}
    again = await tenant.http.post("/v1/ingestions", json=body)
    assert (again.status_code, again.json()["code"]) == (409, "file_taken")


async def test_what_is_refused_leaves_the_file_to_another_manifest(tenant, other):
    file = await upload(tenant, "x.csv", GOOD)
    body = {"file_id": file["id"], "manifest": manifest("x.csv")}
    for content, code, pointer in (
        ({}, "missing", "/body/manifest/type"),
        (manifest("y.csv"), "other_file", "/body/manifest/fileName"),
        (manifest("x.csv", clientEmail="x@nowhere.example"), "recipient_unknown", "/body/manifest/clientEmail"),
    ):
        refused = await tenant.http.post("/v1/ingestions", json={"file_id": file["id"], "manifest": content})
        first = refused.json()["errors"][0]
        assert (refused.status_code, first["code"], first["pointer"]) == (422, code, pointer)
    refused = await tenant.http.post("/v1/ingestions", json=body | {"mode": "replace"})
    assert [(each["pointer"], each["code"]) for each in refused.json()["errors"]] == [("/body/mode", "not_here")]
    assert (await other.http.post("/v1/ingestions", json=body)).status_code == 404
    assert (await tenant.http.get(f"/v1/files/{file['id']}")).json()["state"] == "available"
    assert await listed(tenant) == []


@pytest.mark.threat("T60")
async def test_a_request_sent_twice_with_one_key_makes_one_ingestion(tenant):
    file = await upload(tenant, "x.csv", GOOD)
    body, key = {"file_id": file["id"], "manifest": manifest("x.csv")}, {"Idempotency-Key": "once"}
    first, second = [await tenant.http.post("/v1/ingestions", json=body, headers=key) for _ in range(2)]
    assert (first.status_code, first.json()) == (second.status_code, second.json())
    assert await listed(tenant) == [first.json()["id"]]


@pytest.mark.rule("S71", "S134", "S137")
async def test_the_activity_log_is_filtered_by_everything_it_shows(tenant):
    by_http = await ingest(tenant, "a.csv", GOOD)
    await tenant.ended(by_http)
    failed = await ingest(tenant, "b.csv", BAD, columns=AGE)
    await tenant.ended(failed)
    await tenant.put("c.csv", b"identity,what\nann,Bought\n")
    columns = {"what": {"ctName": "evtName"}}
    body = {"name": "c.manifest", "content": manifest("c.csv", type="event", columns=columns)}
    events = (await tenant.http.post("/v1/manifests", json=body, params={"submit": True})).json()["ingestion"]
    await tenant.ended(events)
    by_sftp = (await tenant.push(GOOD))["id"]
    everything = [by_sftp, events, failed, by_http]
    assert await listed(tenant) == everything
    assert await listed(tenant, sort="created_at") == everything[::-1]
    moment = (await tenant.http.get(f"/v1/ingestions/{events}")).json()["created_at"]
    for filters, expected in (
        ({"status": "failed"}, [failed]),
        ({"status": ["failed", "completed"]}, everything),
        ({"status": "cancelled"}, []),
        ({"channel": "sftp"}, [by_sftp]),
        ({"target": "events"}, [events]),
        ({"file_name": "b.csv"}, [failed]),
        ({"uploader": await key_id(tenant)}, [events, failed, by_http]),
        ({"uploader": await key_id(tenant), "status": "completed", "target": "profiles"}, [by_http]),
        ({"created_from": moment}, [by_sftp, events]),
        ({"created_to": moment}, [failed, by_http]),
    ):
        assert await listed(tenant, **filters) == expected, filters
    for wrong in ({"status": "done"}, {"created_from": "2026-01-01T00:00:00"}, {"uploader": "x"}, {"colour": "red"}):
        assert (await tenant.http.get("/v1/ingestions", params=wrong)).status_code == 422, wrong


@pytest.mark.rule("S137")
@pytest.mark.threat("T100")
async def test_the_activity_log_is_exported_as_csv_with_the_same_filters(tenant):
    key = (await tenant.http.post("/v1/api-keys", json={"name": "=1+1", "scopes": ["ingestions:write"]})).json()["key"]
    first = await tenant.ended(await ingest(tenant, "a.csv", GOOD))
    file = await upload(tenant, "b.csv", BAD)
    body = {"file_id": file["id"], "manifest": manifest("b.csv", columns=AGE)}
    headers = {"Authorization": f"Bearer {key}"}
    made = (await tenant.http.post("/v1/ingestions", json=body, headers=headers)).json()
    second = await tenant.ended(made["id"])
    exported = await tenant.http.get("/v1/ingestions", headers={"Accept": "text/csv"}, params={"limit": 1})
    assert exported.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(exported.text)))
    assert [row["id"] for row in rows] == [second["id"], first["id"]]
    assert (rows[0]["status"], rows[0]["rejected"], rows[0]["error_code"]) == ("failed", "1", "nothing_applied")
    assert rows[0]["uploaded_by_name"] == "'=1+1"
    assert (rows[1]["file_name"], rows[1]["created_at"]) == ("a.csv", first["created_at"])
    filtered = await tenant.http.get("/v1/ingestions", headers={"Accept": "text/csv"}, params={"status": "failed"})
    assert [row["id"] for row in csv.DictReader(io.StringIO(filtered.text))] == [second["id"]]


@pytest.mark.rule("S137")
async def test_an_export_has_every_ingestion_however_many_there_are_and_however_many_ask(tenant, ground):
    made = await tenant.ended(await ingest(tenant, "a.csv", GOOD))
    copies = 3 * 500 + 1  # more than are fetched, and more than are sent, at a time
    with psycopg.connect(ground.database_url) as connection:
        connection.execute(
            "CREATE TEMP TABLE more AS SELECT i.* FROM ingestions i, generate_series(1, %s) WHERE i.id = %s",
            (copies, ids.read(Prefix.INGESTION, made["id"])),
        )
        connection.execute("UPDATE more SET id = gen_random_uuid(), seq = NULL")
        connection.execute("INSERT INTO ingestions SELECT * FROM more")
    answers = await asyncio.gather(
        *(tenant.http.get("/v1/ingestions", headers={"Accept": "text/csv"}) for _ in range(2 * EXPORTS + 1))
    )
    for answer in answers:
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert len({row["id"] for row in rows}) == len(rows) == copies + 1


async def test_a_long_poll_answers_at_the_end(tenant, ground):
    async with nothing_is_applied(ground, tenant):
        ingestion = await ingest(tenant, "x.csv", GOOD)
        early = await tenant.http.get(f"/v1/ingestions/{ingestion}", params={"wait": 1})
        assert early.json()["status"] in {"scheduled", "in_progress"}
        waiting = asyncio.create_task(tenant.http.get(f"/v1/ingestions/{ingestion}", params={"wait": 60}))
        await until(tenant, ingestion, stage="applying")
        assert not waiting.done()
    assert (await waiting).json()["status"] == "completed"
    assert (await tenant.http.get(f"/v1/ingestions/{ingestion}", params={"wait": 61})).status_code == 422


@pytest.mark.rule("D32")
async def test_what_waits_in_the_queue_is_cancelled_and_never_runs(tenant, receiver, ground):
    async with nothing_is_applied(ground, tenant):
        first = await ingest(tenant, "x.csv", GOOD)
        await until(tenant, first, stage="applying")
        second = await ingest(tenant, "y.csv", b"identity\nbob\n")
        cancelled = await answer(tenant, second, "cancel")
        late = await answer(tenant, first, "cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert cancelled.json()["finished_at"] is not None
    assert (late.status_code, late.json()["code"]) == (409, "too_late")
    trail = (await tenant.http.get("/v1/audit", params={"action": "ingestion.cancelled"})).json()["data"]
    assert [entry["target"] for entry in trail] == [second]
    assert (await tenant.ended(first))["status"] == "completed"
    third = await tenant.ended(await ingest(tenant, "z.csv", b"identity\nzoe\n"))
    assert third["status"] == "completed"
    assert await tenant.profile("bob") is None
    assert (await tenant.http.get(f"/v1/ingestions/{second}")).json()["started_at"] is None
    assert (await answer(tenant, second, "cancel")).json()["code"] == "too_late"
    assert (await receiver.until("ingestion.cancelled", second))["status"] == "cancelled"


@pytest.mark.rule("D32")
async def test_what_is_being_checked_is_cancelled_and_leaves_nothing(tenant, ground):
    assert (await tenant.push(GOOD))["status"] == "completed"
    async with nothing_is_checked(ground):
        ingestion = await ingest(tenant, "x.csv", b"identity,Age\nbob,1\nzoe,x\n", columns=AGE)
        await until(tenant, ingestion, stage="checking")
        assert (await answer(tenant, ingestion, "cancel")).json()["status"] == "cancelled"
    await tenant.ended(await ingest(tenant, "y.csv", GOOD))
    assert await tenant.profile("bob") is None
    shown = (await tenant.http.get(f"/v1/ingestions/{ingestion}")).json()
    assert (shown["status"], shown["error_file"], shown["counts"]["read"]) == ("cancelled", None, 0)
    folder = ids.read(Prefix.INGESTION, ingestion).hex
    assert [*ground.blobs.list(f"parts/{folder}"), *ground.blobs.list(f"errors/{folder}")] == []


@pytest.mark.rule("S123")
async def test_the_rejected_rows_are_tried_again_as_a_new_ingestion(tenant):
    first = await tenant.push(b"identity,objectId,Age\nann,a,1\nbob,b,2\nann,b,3\nmax,m,x\n", columns=AGE)
    assert first["counts"]["rejected"] == 2
    made = await answer(tenant, first["id"], "retry", rows="rejected")
    assert made.status_code == 202
    second = await tenant.ended(made.json()["id"])
    assert (second["retry_of"], second["channel"], second["manifest"]) == (first["id"], "sftp", first["manifest"])
    assert second["uploaded_by"]["id"] == await key_id(tenant)
    assert (second["counts"]["read"], second["counts"]["rejected"], second["status"]) == (2, 2, "failed")
    assert await tenant.error_file(second) == await tenant.error_file(first)
    third = await tenant.ended((await answer(tenant, second["id"], "retry", rows="all")).json()["id"])
    assert (third["retry_of"], third["counts"]["read"]) == (second["id"], 2)


@pytest.mark.rule("D44", "D47")
async def test_broken_records_are_rejected_again_instead_of_being_guessed_at(tenant):
    long_name = "n" * (64 * 1024 + 1)
    data = f'identity,Name\nann,A\nbob,B,C\nmax,"M\nzoe,{long_name}\nkim,K\0\n'.encode()
    first = await tenant.push(data)
    assert (first["counts"]["accepted"], first["counts"]["rejected"]) == (1, 4)
    second = await tenant.ended((await answer(tenant, first["id"], "retry", rows="rejected")).json()["id"])
    assert (second["status"], second["counts"]["read"], second["counts"]["rejected"]) == ("failed", 4, 4)
    rejected = (await tenant.http.get(f"/v1/ingestions/{second['id']}/errors")).json()["data"]
    assert [row["codes"] for row in rejected][:2] == [["unmended"], ["unmended"]]
    assert await tenant.profile("bob,B,C") is None
    third = await tenant.ended((await answer(tenant, second["id"], "retry", rows="rejected")).json()["id"])
    assert (third["counts"]["read"], third["counts"]["rejected"]) == (4, 4)


@pytest.mark.rule("D31")
async def test_a_failed_file_is_tried_again_whole_and_last(tenant):
    first = await tenant.push(BAD, columns=AGE)
    second = await tenant.push(b"identity,Age\nann,5\n", columns=AGE)
    third = await tenant.ended((await answer(tenant, first["id"], "retry", rows="all")).json()["id"])
    assert (third["status"], third["retry_of"], third["counts"]["read"]) == ("failed", first["id"], 1)
    assert await listed(tenant) == [third["id"], second["id"], first["id"]]


@pytest.mark.parametrize(("rows", "data", "code"), [("rejected", GOOD, "nothing_to_retry"), ("some", GOOD, "invalid")])
async def test_what_cannot_be_tried_again_says_why(tenant, rows, data, code):
    ended = await tenant.push(data)
    assert (await answer(tenant, ended["id"], "retry", rows=rows)).json()["code"] == code


async def test_neither_what_runs_nor_a_refused_manifest_can_be_tried_again(tenant, ground):
    async with nothing_is_applied(ground, tenant):
        running = await ingest(tenant, "x.csv", GOOD)
        assert (await answer(tenant, running, "retry", rows="all")).json()["code"] == "not_ended"
    await tenant.ended(running)
    await tenant.put("x.manifest", b"{")
    refused = await tenant.newest()
    assert (await answer(tenant, refused["id"], "retry", rows="all")).json()["code"] == "nothing_to_retry"


@pytest.mark.threat("T50")
async def test_another_account_can_neither_cancel_nor_retry(tenant, other):
    ended = await tenant.push(GOOD)
    for verb, body in (("cancel", {}), ("retry", {"rows": "all"})):
        assert (await answer(other, ended["id"], verb, **body)).status_code == 404
    async with httpx.AsyncClient(base_url=tenant.app.http_url, trust_env=False) as stranger:
        assert (await stranger.get(f"/v1/ingestions/{ended['id']}?wait=60")).status_code == 401
