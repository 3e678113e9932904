"""What is done from time to time: files and error files expire, and what nothing names goes (P10, I8)."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import text
from tests.api.world import account_of
from tests.test_segment_files import make, refresh

from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.ingest.incoming import STEP
from ingestd.settings import RetentionSettings
from ingestd.store import dump, ingestions
from ingestd.store import engine as store

DAY = timedelta(days=1)
ROWS = b"identity,Age\nann,1\nbob,old\n"
COLUMNS = {"Age": {"dataType": "INTEGER"}}


@pytest_asyncio.fixture
async def pushed(tenant):
    """An ingestion that ended, with an error file."""
    return await tenant.push(ROWS, columns=COLUMNS)


def rows(upkeep, statement, **values):
    with upkeep.sql.begin() as connection:
        return connection.execute(text(statement), values).all()


def files(upkeep, tenant):
    account = ids.read(Prefix.ACCOUNT, tenant.id)
    found = rows(upkeep, "SELECT state, blob FROM files WHERE account_id = :account ORDER BY id", account=account)
    there = {blob.name for blob in upkeep.blobs.list("files")}
    return [(state, blob in there) for state, blob in found]


def stored(upkeep, tenant):
    account = ids.read(Prefix.ACCOUNT, tenant.id)
    [(found,)] = rows(upkeep, "SELECT stored_bytes FROM usage WHERE account_id = :account", account=account)
    return found


def age_all_but(young, folder):
    """Let the blobs of a folder be two days old."""
    old = (store.utc_now() - 2 * DAY).timestamp()
    for path in folder.iterdir():
        if path.name != young.replace("/", "+"):
            os.utime(path, (old, old))


@pytest.mark.rule("D18")
async def test_the_texts_of_manifests_expire_after_a_week_and_their_names_stay_used(upkeep, tenant, pushed):
    draft = {"name": "draft.manifest", "content": {"fileName": "x.csv"}}
    draft = (await tenant.http.post("/v1/manifests", json=draft)).raise_for_status().json()["id"]
    used = pushed["manifest"]["id"]
    account = ids.read(Prefix.ACCOUNT, tenant.id)
    blobs = dict(rows(upkeep, "SELECT state, blob FROM manifests WHERE account_id = :account", account=account))
    shown = (await tenant.http.get(f"/v1/manifests/{used}")).json()
    await asyncio.to_thread(upkeep.once, store.utc_now() + 8 * DAY)
    there = {blob.name for blob in upkeep.blobs.list()}
    assert [blobs[state] in there for state in ("accepted", "draft")] == [False, True]
    assert (await tenant.http.get(f"/v1/manifests/{draft}")).json()["content"] == {"fileName": "x.csv"}
    assert (await tenant.http.get(f"/v1/manifests/{used}")).json() == shown | {"content": None, "plan": None}
    again = await tenant.http.post("/v1/manifests", json={"name": pushed["manifest"]["name"], "content": {}})
    assert again.json()["code"] == "name_used"


@pytest.mark.rule("D18")
async def test_a_draft_that_nobody_submits_in_ninety_days_goes_and_its_name_is_free(upkeep, tenant):
    draft = {"name": "draft.manifest", "content": {"fileName": "x.csv"}}
    made = (await tenant.http.post("/v1/manifests", json=draft)).raise_for_status().json()["id"]
    await asyncio.to_thread(upkeep.once, store.utc_now() + 89 * DAY)
    assert (await tenant.http.post("/v1/manifests", json=draft)).json()["code"] == "name_used"
    await asyncio.to_thread(upkeep.once, store.utc_now() + 91 * DAY)
    assert (await tenant.http.get(f"/v1/manifests/{made}")).status_code == 404
    account = ids.read(Prefix.ACCOUNT, tenant.id)
    assert rows(upkeep, "SELECT FROM manifests WHERE account_id = :account", account=account) == []
    (await tenant.http.post("/v1/manifests", json=draft)).raise_for_status()


async def test_files_expire_after_a_week_and_make_room(upkeep, tenant, pushed):
    await tenant.put("waits.csv", bytes(100))
    now = store.utc_now()
    await asyncio.to_thread(upkeep.once, now + 6 * DAY)
    assert files(upkeep, tenant) == [("consumed", True), ("available", True)]
    assert stored(upkeep, tenant) == len(ROWS) + 100
    await asyncio.to_thread(upkeep.once, now + 8 * DAY)
    assert files(upkeep, tenant) == [("expired", False), ("expired", False)]
    assert stored(upkeep, tenant) == 0
    assert (await tenant.error_file(pushed)).count("\r\n") == 2


async def test_rejected_rows_are_tried_again_while_their_error_file_is_kept_whatever_became_of_the_file(
    upkeep, tenant, pushed
):
    async def retry(ingestion, which):
        return await tenant.http.post(f"/v1/ingestions/{ingestion['id']}/retry", json={"rows": which})

    await asyncio.to_thread(upkeep.once, store.utc_now() + 8 * DAY)
    whole = await retry(pushed, "all")
    assert (whole.status_code, whole.json()["code"]) == (410, "file_expired")
    again = await tenant.ended((await retry(pushed, "rejected")).raise_for_status().json()["id"])
    assert (again["counts"]["read"], again["counts"]["rejected"]) == (1, 1)
    await asyncio.to_thread(upkeep.once, store.utc_now() + 31 * DAY)
    for ingestion, which in ((pushed, "rejected"), (again, "all")):
        refused = await retry(ingestion, which)
        assert (refused.status_code, refused.json()["code"]) == (410, "error_file_expired")


@pytest.mark.rule("S128")
@pytest.mark.parametrize("what", ["errors", "error-summary", "error-file"])
async def test_what_was_rejected_is_gone_with_its_error_file_and_it_is_said(upkeep, tenant, pushed, what):
    path = f"/v1/ingestions/{pushed['id']}/{what}"
    assert (await tenant.http.get(path)).status_code == 200
    await asyncio.to_thread(upkeep.once, store.utc_now() + 31 * DAY)
    gone = await tenant.http.get(path)
    assert (gone.status_code, gone.json()["code"]) == (410, "error_file_expired")


async def test_an_ingestion_that_is_held_for_its_error_file_is_as_it_is_now(upkeep, app, tenant, pushed):
    account, ingestion = account_of(tenant), ids.read(Prefix.INGESTION, pushed["id"])
    async with app.intake.sessions() as session:
        earlier = await ingestions.get(session, account, ingestion)
        assert earlier.error_blob is not None
        await asyncio.to_thread(upkeep.once, store.utc_now() + 31 * DAY)  # between the look and the lock
        held = await ingestions.get(session, account, ingestion, lock=True)
        assert (held is earlier, held.error_blob) == (True, None)


async def test_the_file_of_an_open_ingestion_does_not_expire(upkeep, tenant, pushed):
    ingestion = ids.read(Prefix.INGESTION, pushed["id"])
    change = "UPDATE ingestions SET status = :status WHERE id = :id RETURNING id"
    rows(upkeep, change, status="in_progress", id=ingestion)
    await asyncio.to_thread(upkeep.once, store.utc_now() + 8 * DAY)
    assert files(upkeep, tenant) == [("consumed", True)]
    rows(upkeep, change, status="completed", id=ingestion)


@pytest.mark.threat("T106")
async def test_error_files_expire_after_thirty_days(upkeep, tenant, pushed):
    now = store.utc_now()
    await asyncio.to_thread(upkeep.once, now + 29 * DAY)
    assert await tenant.error_file(pushed)
    await asyncio.to_thread(upkeep.once, now + 31 * DAY)
    shown = (await tenant.http.get(f"/v1/ingestions/{pushed['id']}")).json()
    assert (shown["status"], shown["counts"]["rejected"], shown["error_file"]) == ("completed", 1, None)
    assert (await tenant.http.get(f"/v1/ingestions/{pushed['id']}/error-file")).status_code == 410
    maker = ids.read(Prefix.INGESTION, pushed["id"]).hex
    assert list(upkeep.blobs.list(f"errors/{maker}")) == []


async def test_blobs_that_nothing_names_are_removed_once_they_are_old(ground, upkeep, app, tenant, pushed):
    await tenant.put("waits.csv", bytes(10))
    await tenant.put("gone.csv", bytes(10))
    async with tenant.sftp() as sftp:
        await sftp.remove("/gone.csv")
    account = ids.read(Prefix.ACCOUNT, tenant.id)
    keys = await app.intake.keys(account)
    ended, unknown = ids.read(Prefix.INGESTION, pushed["id"]).hex, uuid4().hex
    left = [f"files/{uuid4().hex}", f"parts/{ended}/1/a", f"errors/{ended}/1-a.csv", f"parts/{unknown}/1/a"]
    young = f"files/{uuid4().hex}"
    for name in [*left, young]:
        ground.blobs.create(name, keys).commit()
    named = {blob for (blob,) in rows(upkeep, "SELECT blob FROM files WHERE state IN ('consumed', 'available')")}
    named |= {blob for (blob,) in rows(upkeep, "SELECT blob FROM manifests WHERE blob IS NOT NULL")}
    age_all_but(young, ground.blob_place)
    await asyncio.to_thread(upkeep.once, store.utc_now())
    there = {blob.name for blob in upkeep.blobs.list()}
    assert there.isdisjoint(left)
    assert young in there
    assert named <= there
    assert sorted(files(upkeep, tenant)) == [("available", True), ("consumed", True), ("removed", False)]
    assert await tenant.error_file(pushed)
    ground.blobs.delete([young])


async def test_what_is_removed_is_gone_at_once_and_later_where_a_backup_is_made(ground, upkeep, app, tenant):
    async def remove(name):
        await tenant.put(name, bytes(10))
        async with tenant.sftp() as sftp:
            await sftp.remove(f"/{name}")
        put = (await tenant.http.put(f"/v1/files/{name}", content=bytes(10))).raise_for_status().json()
        (await tenant.http.delete(f"/v1/files/{put['id']}")).raise_for_status()
        await app.intake.close()

    await remove("gone.csv")
    with dump.keeping_blobs(ground.database_url):
        await remove("kept.csv")
    assert files(upkeep, tenant) == [("removed", False)] * 2 + [("removed", True)] * 2


@pytest.mark.threat("T42")
async def test_what_a_dead_upload_had_reserved_is_given_back(upkeep, tenant, app):
    incoming = await app.intake.begin(ids.read(Prefix.ACCOUNT, tenant.id))
    await incoming.write(bytes(STEP))
    assert stored(upkeep, tenant) == STEP
    await asyncio.to_thread(upkeep.once, store.utc_now() + 2 * DAY)
    assert stored(upkeep, tenant) == 0
    incoming.abort()
    await app.intake.close()
    assert stored(upkeep, tenant) == 0


async def test_months_of_events_are_made_ahead_once(upkeep):
    later = store.utc_now() + 100 * DAY
    made = await asyncio.to_thread(upkeep.add_months, later)
    assert made >= 1
    assert await asyncio.to_thread(upkeep.add_months, later) == 0
    month = f"events_p_{later + 90 * DAY:%Y_%m}"
    assert rows(upkeep, "SELECT to_regclass(:month) IS NOT NULL", month=month) == [(True,)]


async def test_a_chore_that_fails_does_not_keep_the_others(ground, upkeep, tenant, pushed, tmp_path):
    endless = RetentionSettings(orphan_hours=10**12)  # beyond what a date can be
    broken = replace(upkeep, retention=endless)
    await asyncio.to_thread(broken.once, store.utc_now() + 8 * DAY)
    assert files(upkeep, tenant) == [("expired", False)]


async def test_a_stop_does_not_wait_for_the_end_of_a_long_chore(upkeep, monkeypatch):
    stop = asyncio.Event()

    def expire(*_, **__):
        """One batch of an endless backlog."""
        stop.set()
        return ["files/of-long-ago"]

    monkeypatch.setattr("ingestd.ingest.upkeep.files.expire", expire)
    await upkeep.run(stop)


async def test_no_blob_is_removed_while_a_backup_is_made(ground, upkeep, tenant, pushed):
    def expire():
        with dump.keeping_blobs(ground.database_url):
            upkeep.once(store.utc_now() + 8 * DAY)

    await asyncio.to_thread(expire)
    assert files(upkeep, tenant) == [("expired", True)]
    await asyncio.to_thread(upkeep.once, store.utc_now() + 8 * DAY)
    assert files(upkeep, tenant) == [("expired", False)]


async def test_the_members_of_a_deleted_segment_go_in_batches(upkeep, tenant, monkeypatch):
    segment = await make(tenant)
    await refresh(tenant, segment, b"user_id,level\nann,High\nbob,High\ncem,Low\n")
    kept = await make(tenant, name="kept")
    await refresh(tenant, kept, b"user_id,level\nann,High\n")
    (await tenant.http.post(f"/v1/segments/{segment}/deactivate")).raise_for_status()
    (await tenant.http.delete(f"/v1/segments/{segment}")).raise_for_status()
    assert (await tenant.http.get(f"/v1/segments/{segment}/members")).status_code == 404
    monkeypatch.setattr("ingestd.ingest.upkeep.BATCH", 2)
    assert await asyncio.to_thread(upkeep.remove_members, store.utc_now()) == 3
    account = ids.read(Prefix.ACCOUNT, tenant.id)
    left = rows(
        upkeep,
        "SELECT s.id FROM segment_members m JOIN segments s ON s.number = m.segment WHERE account_id = :account",
        account=account,
    )
    assert [segment for (segment,) in left] == [ids.read(Prefix.SEGMENT, kept)]
