"""A manifest meets its data file at the door (S105 to S111, D17, D18, D39)."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import asyncssh
import pytest
from sqlalchemy import text, update
from tests.sftpd.world import LIMIT, manifest, put

from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.domain.manifest import MAX_BYTES
from ingestd.scheduler.clock import Clock
from ingestd.store import usage
from ingestd.store.engine import transaction
from ingestd.store.files import File
from ingestd.store.ingestions import Ingestion
from ingestd.store.manifests import Manifest
from ingestd.store.notices import Notice

NO_DATA = ("failed", "No data file found", None)
INCORRECT = ("failed", "Incorrect details in manifest file", None)
UNREADABLE = ("failed", "File couldn't be read", None)


async def test_what_is_submitted_is_queued_and_told(world, client):
    async with client.sftp() as sftp:
        await put(sftp, "x.csv", b"identity\n1\n")
        await put(sftp, "x.manifest", manifest())
        await put(sftp, "y.manifest", manifest("y.csv"))
    accepted, refused = await world.rows(Ingestion)
    async with world.sessions() as session:
        queued = set(await session.scalars(text("SELECT workflow_uuid FROM dbos.workflow_status")))
    assert str(accepted.id) in queued
    assert str(refused.id) not in queued
    assert [(notice.type, notice.subject_id) for notice in await world.rows(Notice)] == [
        ("file.received", accepted.file_id),
        ("ingestion.scheduled", accepted.id),
        ("ingestion.failed", refused.id),
    ]
    assert accepted.recipients == ["a@example.org"]
    assert accepted.uploaded_by["type"] == "import_key"


@pytest.mark.threat("T103")
async def test_a_notice_stays_small_however_much_is_wrong_with_a_manifest(world, client):
    async with client.sftp() as sftp:
        await put(sftp, "x.manifest", manifest(columns={f"x{n}": {"dataType": "DATE"} for n in range(4000)}))
    (row,), (notice,) = await world.rows(Ingestion), await world.rows(Notice)
    assert len(row.error["problems"]) == 101
    assert len(notice.data["error"]["problems"]) == 10
    assert len(json.dumps(notice.data)) < 20_000


@pytest.mark.rule("S87", "D17")
async def test_a_file_without_a_manifest_is_never_processed(world, client):
    async with client.sftp() as sftp:
        await put(sftp, "x.csv", b"1")
    assert await world.ingestions() == []
    assert await world.files() == [("x.csv", 1, "available")]


@pytest.mark.rule("D17", "S119")
async def test_a_manifest_before_its_file_fails_and_the_file_waits_for_another(world, client):
    async with client.sftp() as sftp:
        await put(sftp, "x.manifest", manifest())
        await put(sftp, "x.csv", b"1")
        assert await world.ingestions() == [NO_DATA]
        await put(sftp, "x2.manifest", manifest())
    assert await world.ingestions() == [NO_DATA, ("scheduled", None, 1)]


@pytest.mark.rule("D17", "D18")
@pytest.mark.parametrize("arrives", [True, False])
async def test_with_a_grace_period_a_manifest_waits_for_its_file_and_fails_only_after_it(open_world, arrives):
    async with open_world(manifest_grace=600) as world:
        client, clock = await world.client(), Clock(world.intake)
        async with client.sftp() as sftp:
            await put(sftp, "x.manifest", manifest())
            await put(sftp, "x.manifest", manifest())
            await clock.look()
            assert await world.ingestions() == []
            if arrives:
                await put(sftp, "x.csv", b"1")
        if not arrives:
            await came_earlier(world, minutes=10)
        for _ in range(2):
            await clock.look()
            assert await world.ingestions() == [("scheduled", None, 1) if arrives else NO_DATA]
        [row], [paper] = await world.rows(Ingestion), await world.rows(Manifest)
    assert (row.manifest_id, row.uploaded_by["id"]) == (paper.id, ids.show(Prefix.IMPORT_KEY, client.key_id))
    assert paper.state == ("accepted" if arrives else "refused")


async def came_earlier(world, *, minutes):
    """Let time pass: the manifests came so many minutes earlier."""
    async with transaction(world.sessions) as session:
        await session.execute(update(Manifest).values(created_at=Manifest.created_at - timedelta(minutes=minutes)))


@pytest.mark.rule("S107", "D18")
@pytest.mark.threat("T99")
async def test_the_same_manifest_again_is_the_same_ingestion(world, client):
    async with client.sftp() as sftp:
        await put(sftp, "x.csv", b"1")
        for _ in range(3):
            await put(sftp, "x.manifest", manifest())
    assert await world.ingestions() == [("scheduled", None, 1)]


@pytest.mark.rule("S107", "D18")
async def test_a_refused_manifest_again_is_the_same_ingestion_until_its_file_comes_anew(world, client):
    wrong = manifest(clientEmail="a@elsewhere.example")
    async with client.sftp() as sftp:
        await put(sftp, "x.csv", b"1")
        for _ in range(2):
            await put(sftp, "x.manifest", wrong)
        assert await world.ingestions() == [INCORRECT]
        await put(sftp, "x.csv", b"1")
        await put(sftp, "x.manifest", wrong)
    codes = [[problem["code"] for problem in row.error["problems"]] for row in await world.rows(Ingestion)]
    assert codes == [["recipient_unknown"], ["name_used"]]


@pytest.mark.rule("S107", "D18")
async def test_a_manifest_that_failed_keeps_its_name(world, client):
    async with client.sftp() as sftp:
        await put(sftp, "x.manifest", b"{")
        await put(sftp, "x.manifest", b"{")
        await put(sftp, "x.csv", b"1")
        await put(sftp, "x.manifest", manifest())
    assert await world.ingestions() == [INCORRECT, INCORRECT]
    assert [file.state for file in await world.rows(File)] == ["available"]
    codes = [[problem["code"] for problem in row.error["problems"]] for row in await world.rows(Ingestion)]
    assert codes == [["json"], ["name_used"]]
    assert "'x.manifest'" in (await world.rows(Ingestion))[-1].error["detail"]
    names = [(notice.data["manifest"] is None, notice.data["manifest_name"]) for notice in await told(world)]
    assert names == [(False, "x.manifest"), (True, "x.manifest")]


async def told(world):
    return [notice for notice in await world.rows(Notice) if notice.type == "ingestion.failed"]


@pytest.mark.rule("S107", "D18")
@pytest.mark.parametrize(
    ("newer", "again"), [(b"2", manifest()), (None, manifest(columns={"a": {"ctName": "b", "dataType": "STRING"}}))]
)
async def test_a_used_name_is_refused_for_a_newer_upload_or_other_bytes(world, client, newer, again):
    async with client.sftp() as sftp:
        await put(sftp, "x.csv", b"1")
        await put(sftp, "x.manifest", manifest())
        if newer is not None:
            await put(sftp, "x.csv", newer)
        await put(sftp, "x.manifest", again)
    assert await world.ingestions() == [("scheduled", None, 1), INCORRECT]
    assert len(await world.rows(Manifest)) == 1


@pytest.mark.rule("S88", "D18")
async def test_a_second_manifest_for_one_file_finds_no_file(world, client):
    async with client.sftp() as sftp:
        await put(sftp, "x.csv", b"1")
        await put(sftp, "x.manifest", manifest())
        await put(sftp, "y.manifest", manifest())
    assert await world.ingestions() == [("scheduled", None, 1), NO_DATA]


@pytest.mark.rule("D18")
@pytest.mark.threat("T38")
async def test_the_newest_upload_is_taken_and_supersedes_the_older_ones(world, client):
    async with client.sftp() as sftp:
        for data in (b"1", b"22", b"333"):
            await put(sftp, "x.csv", data)
        await put(sftp, "x.manifest", manifest())
        await put(sftp, "x.csv", b"4444")
        await put(sftp, "y.manifest", manifest())
    assert [row[1:] for row in await world.files()] == [
        (1, "superseded"),
        (2, "superseded"),
        (3, "consumed"),
        (4, "consumed"),
    ]
    assert await world.ingestions() == [("scheduled", None, 1), ("scheduled", None, 2)]
    (one, two), files = await world.rows(Ingestion), await world.rows(File)
    assert (one.file_id, two.file_id) == (files[2].id, files[3].id)


@pytest.mark.rule("D39", "S111")
@pytest.mark.threat("T94")
@pytest.mark.parametrize(
    "address", ["a@elsewhere.test", "a@example.org,b@example.org", "a@example.org\r\nBcc: b@x.test"]
)
async def test_a_recipient_outside_of_the_accounts_domains_is_refused(world, client, address):
    async with client.sftp() as sftp:
        await put(sftp, "x.csv", b"1")
        await put(sftp, "x.manifest", manifest(clientEmail=address))
    assert await world.ingestions() == [INCORRECT]
    assert [file.state for file in await world.rows(File)] == ["available"]


@pytest.mark.rule("S86")
async def test_a_data_file_must_end_in_csv_in_capitals_or_not(world, client):
    async with client.sftp() as sftp:
        await put(sftp, "x.txt", b"1")
        await put(sftp, "x.manifest", manifest("x.txt"))
        await put(sftp, "X.CSV", b"1")
        await put(sftp, "y.manifest", manifest("X.CSV"))
    assert await world.ingestions() == [UNREADABLE, ("scheduled", None, 1)]


@pytest.mark.rule("S106")
async def test_a_manifest_may_end_in_capitals_as_a_data_file_may(world, client):
    async with client.sftp() as sftp:
        for name in ("X.CSV", "Y.CSV"):
            await put(sftp, name, b"identity\n1\n")
        await put(sftp, "X.MANIFEST", manifest("X.CSV"))
        await put(sftp, "y.part", manifest("Y.CSV"))
        await sftp.rename("y.part", "Y.Manifest")
    assert await world.ingestions() == [("scheduled", None, 1), ("scheduled", None, 2)]
    assert [paper.name for paper in await world.rows(Manifest)] == ["X.MANIFEST", "Y.Manifest"]


@pytest.mark.rule("S110")
@pytest.mark.threat("T80", "T93")
@pytest.mark.parametrize("name", ["../other/x.csv", "*.csv", "[xy].csv", "http://example.org/x.csv", "X.csv", "x.csv "])
async def test_only_the_exact_name_finds_a_file(world, client, name):
    other = await world.client()
    async with client.sftp() as sftp, other.sftp() as elsewhere:
        await put(sftp, "x.csv", b"1")
        await put(elsewhere, "theirs.csv", b"1")
        await put(sftp, "x.manifest", manifest(name))
        await put(sftp, "y.manifest", manifest("theirs.csv"))
    assert await world.ingestions(client) == [NO_DATA, NO_DATA]


async def test_a_name_in_another_spelling_finds_its_file(world, client):
    async with client.sftp() as sftp:
        await put(sftp, "caf\u00e9.csv", b"1")
        await put(sftp, "x.manifest", manifest("cafe\u0301.csv"))
    assert await world.ingestions() == [("scheduled", None, 1)]


@pytest.mark.rule("D26", "S122")
@pytest.mark.threat("T42")
async def test_a_manifest_too_large_is_refused_and_no_more_of_it_is_kept_than_shows_that(world, client):
    async with client.sftp() as sftp:
        await put(sftp, "x.csv", b"1")
        await put(sftp, "x.manifest", b" " * LIMIT)
    assert await world.ingestions() == [INCORRECT]
    (row,) = await world.rows(Ingestion)
    assert [problem["code"] for problem in row.error["problems"]] == ["too_large"]
    (paper,) = await world.rows(Manifest)
    assert await world.content(paper) == b" " * (MAX_BYTES + 1)
    assert paper.size_bytes == MAX_BYTES + 1


@pytest.mark.threat("T42")
async def test_a_file_larger_than_a_manifest_is_not_renamed_to_one_and_goes_on_counting(world, client):
    async with client.sftp() as sftp:
        await put(sftp, "x.manifest.part", b" " * LIMIT)
        with pytest.raises(asyncssh.SFTPFailure, match=f"A manifest may have {MAX_BYTES} bytes"):
            await sftp.rename("x.manifest.part", "x.manifest")
    assert (await world.ingestions(), await world.rows(Manifest)) == ([], [])
    assert await world.files() == [("x.manifest.part", LIMIT, "available")]
    async with world.sessions() as session:
        assert await usage.stored(session, client.account_id) == LIMIT


@pytest.mark.rule("D18")
async def test_renaming_a_file_to_a_manifest_moves_its_bytes_and_leaves_no_file(world, client):
    async with client.sftp() as sftp:
        await put(sftp, "x.csv", b"1")
        await put(sftp, "old", b"{")
        await put(sftp, "old", manifest())
        await sftp.rename("old", "x.manifest")
        assert await sftp.listdir() == []
        assert not await sftp.exists("old")
    (paper,) = await world.rows(Manifest)
    assert await world.content(paper) == manifest()
    assert await world.ingestions() == [("scheduled", None, 1)]
    assert await world.files() == [("x.csv", 1, "consumed"), ("old", 1, "superseded")]


@pytest.mark.rule("D31")
@pytest.mark.threat("T40")
async def test_sessions_at_once_give_each_file_to_one_manifest_and_every_ingestion_its_number(world, client):
    async def push(number: int) -> None:
        async with client.sftp() as sftp:
            await put(sftp, "x.csv", b"1")
            await put(sftp, f"{number}.manifest", manifest())

    await asyncio.gather(*(push(number) for number in range(8)))
    rows = await world.rows(Ingestion)
    taken = [row.file_id for row in rows if row.status == "scheduled"]
    assert sorted(row.seq for row in rows if row.seq) == list(range(1, len(taken) + 1))
    assert len(set(taken)) == len(taken) > 0
    assert {row.error["code"] for row in rows if row.status == "failed"} <= {"no_data_file"}
    assert {state for _, _, state in await world.files()} <= {"consumed", "superseded"}
