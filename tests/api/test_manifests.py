"""Manifests over HTTP: drafts, what they would do, and the one way of pairing (S105 to S113, D18, D39)."""

import json
from contextlib import asynccontextmanager

import pytest
from tests.api.world import manifest, upload

from ingestd.store.engine import transaction


async def draft(tenant, name="x.manifest", content=None):
    body = {"name": name, "content": content or manifest("x.csv", columns={"age": {"dataType": "INTEGER"}})}
    return await tenant.http.post("/v1/manifests", json=body)


@pytest.mark.rule("S107", "D17", "D18")
async def test_a_draft_is_written_shown_changed_and_submitted(tenant):
    made = await draft(tenant)
    assert made.status_code == 201
    path = made.headers["location"]
    shown = (await tenant.http.get(path)).json()
    assert shown == made.json()
    assert (shown["state"], shown["problems"], shown["ingestion"]) == ("draft", [], None)
    assert shown["plan"] == {
        "file_name": "x.csv",
        "target": "profiles",
        "columns": {"age": {"name": None, "type": "INTEGER", "kind": None}},
    }
    early = await tenant.http.post(f"{path}/submit")
    assert (early.status_code, early.json()["code"]) == (422, "no_data_file")
    changed = await tenant.http.put(
        path, json={"name": "y.manifest", "content": manifest("x.csv", columns={"age": {"ctName": "Age"}})}
    )
    assert (changed.status_code, changed.json()["name"], changed.json()["state"]) == (200, "y.manifest", "draft")
    await upload(tenant, "x.csv", b"identity,age\nann,21\n")
    submitted = await tenant.http.post(f"{path}/submit")
    assert submitted.status_code == 202
    ended = await tenant.ended(submitted.json()["id"])
    assert submitted.headers["location"] == f"/v1/ingestions/{ended['id']}"
    assert (ended["status"], ended["channel"], ended["manifest"]["name"]) == ("completed", "upload", "y.manifest")
    assert (await tenant.profile("ann"))["attributes"] == {"Age": "21"}
    after = (await tenant.http.get(path)).json()
    assert (after["state"], after["ingestion"]) == ("accepted", ended["id"])
    for method, way in (("PUT", path), ("DELETE", path), ("POST", f"{path}/submit")):
        body = {"name": "y.manifest", "content": {}} if method == "PUT" else None
        refused = await tenant.http.request(method, way, json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "manifest_submitted"), method


@pytest.mark.rule("D18")
async def test_a_draft_reserves_its_name_until_it_is_deleted(tenant):
    path = (await draft(tenant)).headers["location"]
    assert (await draft(tenant)).json()["code"] == "name_used"
    await tenant.put("x.csv", b"identity\nann\n")
    await tenant.put("x.manifest", json.dumps(manifest("x.csv")).encode())
    reused = await tenant.newest()
    assert (reused["status"], reused["error"]["problems"][0]["code"]) == ("failed", "name_used")
    assert (await tenant.http.delete(path)).status_code == 204
    assert (await tenant.http.get(path)).status_code == 404
    await tenant.put("x.manifest", json.dumps(manifest("x.csv")).encode())
    assert (await tenant.ended())["status"] == "completed"


async def test_what_a_draft_said_stays_stored_since_a_backup_may_name_it(tenant, ground):
    """Bytes are removed by the sweep, which makes way for backups, and by nobody else."""
    before = {blob.name for blob in ground.blobs.list("files")}
    path = (await draft(tenant)).headers["location"]
    (await tenant.http.put(path, json={"name": "y.manifest", "content": manifest("y.csv")})).raise_for_status()
    (await tenant.http.delete(path)).raise_for_status()
    assert len({blob.name for blob in ground.blobs.list("files")} - before) == 2


async def test_a_draft_is_whole_though_nobody_heard_that_it_was_written(tenant, monkeypatch):
    @asynccontextmanager
    async def lost(sessions):
        async with transaction(sessions) as session:
            yield session
        raise ConnectionError("the answer to COMMIT did not come")

    with monkeypatch.context() as patch:
        patch.setattr("ingestd.api.context.transaction", lost)
        assert (await draft(tenant)).status_code == 500
    [found] = (await tenant.http.get("/v1/manifests")).json()["data"]
    shown = (await tenant.http.get(f"/v1/manifests/{found['id']}")).raise_for_status().json()
    assert shown["content"]["fileName"] == "x.csv"


@pytest.mark.rule("D18")
async def test_a_manifest_is_created_submitted_or_nothing_stays_of_it(tenant, ground):
    body = {"name": "x.manifest", "content": manifest("x.csv")}
    before = {blob.name for blob in ground.blobs.list("files")}
    refused = await tenant.http.post("/v1/manifests", json=body, params={"submit": True})
    assert (refused.status_code, refused.json()["code"]) == (422, "no_data_file")
    assert {blob.name for blob in ground.blobs.list("files")} == before
    assert (await tenant.http.get("/v1/manifests")).json()["data"] == []
    assert (await tenant.http.get("/v1/ingestions")).json()["data"] == []
    await upload(tenant, "x.csv", b"identity\nann\n")
    wrong = {"name": "x.manifest", "content": manifest("x.csv", columns={"a": {"dataType": "INT"}})}
    refused = await tenant.http.post("/v1/manifests", json=wrong, params={"submit": True})
    assert [each["pointer"] for each in refused.json()["errors"]] == ["/body/content/columns/a/dataType"]
    made = await tenant.http.post("/v1/manifests", json=body, params={"submit": True})
    assert (made.status_code, made.json()["state"]) == (201, "accepted")
    assert (await tenant.ended(made.json()["ingestion"]))["status"] == "completed"


@pytest.mark.rule("D39")
async def test_a_draft_says_what_is_wrong_with_it_now_and_submitting_says_the_same(tenant):
    content = manifest("x.csv", clientEmail="ann@elsewhere.example", type="people")
    made = (await draft(tenant, content=content)).json()
    assert [each["code"] for each in made["problems"]] == ["unknown", "recipient_unknown"]
    assert (made["plan"], made["content"]) == (None, content)
    path = f"/v1/manifests/{made['id']}"
    changed = await tenant.http.put(path, json={"name": made["name"], "content": content | {"type": "profile"}})
    assert [each["code"] for each in changed.json()["problems"]] == ["recipient_unknown"]
    assert changed.json()["plan"]["target"] == "profiles"
    await upload(tenant, "x.csv", b"identity\nann\n")
    refused = await tenant.http.post(f"{path}/submit")
    assert (refused.status_code, refused.json()["code"]) == (422, "manifest_incorrect")
    assert [each["code"] for each in refused.json()["errors"]] == ["recipient_unknown"]
    recipient = {"address": "Ann@Elsewhere.example", "name": "Ann"}
    assert (await tenant.http.post("/v1/recipients", json=recipient)).status_code == 201
    assert (await tenant.http.get(path)).json()["problems"] == []
    assert (await tenant.http.post(f"{path}/submit")).status_code == 202


async def test_a_lost_update_of_a_draft_is_refused(tenant):
    path = (await draft(tenant)).headers["location"]
    tag = (await tenant.http.get(path)).headers["etag"]
    body = {"name": "x.manifest", "content": manifest("other.csv")}
    assert (await tenant.http.put(path, json=body, headers={"If-Match": tag})).status_code == 200
    lost = await tenant.http.put(path, json=body, headers={"If-Match": tag})
    assert (lost.status_code, lost.json()["code"]) == (412, "changed_meanwhile")
    assert (await tenant.http.delete(path, headers={"If-Match": tag})).status_code == 412


@pytest.mark.rule("D18")
async def test_only_what_was_read_of_a_draft_is_submitted(tenant):
    path = (await draft(tenant)).headers["location"]
    tag = (await tenant.http.get(path)).headers["etag"]
    await upload(tenant, "x.csv", b"identity\nann\n")
    body = {"name": "x.manifest", "content": manifest("x.csv", type="event")}
    now = (await tenant.http.put(path, json=body)).headers["etag"]
    stale = await tenant.http.post(f"{path}/submit", headers={"If-Match": tag})
    assert (stale.status_code, stale.json()["code"]) == (412, "changed_meanwhile")
    assert (await tenant.http.post(f"{path}/submit", headers={"If-Match": now})).status_code == 202


@pytest.mark.rule("S106", "S113", "S116")
async def test_validating_says_what_sftp_would(tenant, samples):
    file = await upload(tenant, "profiles.csv", b"identity\nann\n")
    good = await tenant.http.post("/v1/manifests/validate", content=(samples / "profiles.manifest").read_bytes())
    assert (good.status_code, good.json()["valid"], good.json()["problems"]) == (200, True, [])
    assert good.json()["file"]["id"] == file["id"]
    for text, code in (
        (b'{"type": "profile", "type": "event"}', "duplicate_key"),
        (b"{", "json"),
        (b"[" * 100_000, "too_deep"),
        (b"\xff", "encoding"),
        (b"", "json"),
    ):
        bad = (await tenant.http.post("/v1/manifests/validate", content=text)).json()
        assert (bad["valid"], [each["code"] for each in bad["problems"]], bad["plan"]) == (False, [code], None)


@pytest.mark.rule("S86", "S110")
@pytest.mark.parametrize(("name", "fits"), [("in/x.csv", False), ("x.txt", False), ("x.csv ", False), ("x.CSV", True)])
async def test_a_manifest_for_a_name_that_no_data_file_can_have_is_not_valid(tenant, name, fits):
    content = manifest(name, clientEmail="ann@elsewhere.example")
    wrong = [*([] if fits else ["/fileName"]), "/clientEmail"]
    found = (await tenant.http.post("/v1/manifests/validate", json=content)).json()
    assert (found["valid"], [each["pointer"] for each in found["problems"]]) == (False, wrong)
    kept = (await draft(tenant, content=manifest(name))).json()
    assert [each["code"] for each in kept["problems"]] == ([] if fits else ["name"])


@pytest.mark.rule("S122")
async def test_a_manifest_that_sftp_brought_and_that_was_refused_is_shown_with_its_problems(tenant):
    await tenant.put("x.manifest", b'{"type": "profile"')
    (listed,) = (await tenant.http.get("/v1/manifests", params={"state": "refused"})).json()["data"]
    shown = (await tenant.http.get(f"/v1/manifests/{listed['id']}")).json()
    assert (shown["state"], shown["content"], shown["plan"]) == ("refused", None, None)
    assert [each["code"] for each in shown["problems"]] == ["json"]
    assert shown["ingestion"] == (await tenant.newest())["id"]


@pytest.mark.parametrize("name", ["x.csv", ".manifest", "../x.manifest", "a\n.manifest"])
@pytest.mark.threat("T20")
async def test_a_manifest_has_a_name_that_sftp_would_take(tenant, name):
    refused = await draft(tenant, name=name)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/body/name")


@pytest.mark.rule("S105", "S112")
async def test_the_schema_of_manifests_is_public_and_takes_what_is_taken(tenant, samples):
    answer = await tenant.http.get("/schemas/manifest.json", headers={"Authorization": ""})
    assert answer.headers["content-type"] == "application/schema+json"
    schema = answer.json()
    for name in ("profiles.manifest", "events.manifest"):
        sample = json.loads((samples / name).read_bytes())
        assert schema["required"] == [key for key in schema["properties"] if key in schema["required"]]
        assert sample.keys() <= schema["properties"].keys()
        assert sample["type"] in schema["properties"]["type"]["enum"]


async def test_an_unknown_recipient_is_told_beside_what_else_is_wrong(tenant):
    columns = {"a": {"dataType": "INT"}}
    manifest = {"type": "profile", "fileName": "x.csv", "clientEmail": "x@nowhere.example", "columns": columns}
    found = (await tenant.http.post("/v1/manifests/validate", json=manifest)).json()["problems"]
    assert [problem["pointer"] for problem in found] == ["/columns/a/dataType", "/clientEmail"]
