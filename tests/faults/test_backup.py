"""Backup and restore: what comes back is whole, opens, and goes on where it was."""

import asyncio
import shutil
import stat

import pytest
from tests.faults.invariants import check_invariants
from tests.faults.program import Program
from tests.faults.world import PARTS, adding

from ingestd.app import backup as backups
from ingestd.app.ground import base
from ingestd.domain.errors import Conflict, NotFound, Unavailable
from ingestd.keyring import new_master
from ingestd.settings import Settings
from ingestd.store import embedded

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]


@pytest.fixture
def restored(temporary_folder):
    """A program that has no state yet."""
    folder = temporary_folder()
    yield Program(folder)
    embedded.remove(folder / "data" / "postgres")
    shutil.rmtree(folder)


def settings(program):
    return Settings(data_dir=program.folder / "data", database_settings={"fsync": "off", "shared_buffers": "64MB"})


async def test_a_restored_service_opens_every_blob_and_goes_on_in_the_middle_of_a_file(
    program, client, restored, tmp_path
):
    await client.push("before", b"identity,Age\nann,1\n" + b'"bob\n')
    await client.ended()
    program.arm("in a part, all written", call=PARTS // 4)
    await client.push("first", adding("Rock"))
    await program.held()
    await client.push("second", adding("Jazz"))
    folder = tmp_path / "backup"
    with program.ground() as ground:
        made = await asyncio.to_thread(backups.backup, ground, folder)
        with pytest.raises(Conflict, match="is not empty"):
            backups.backup(ground, folder)
    program.release()
    for name in ("master.key", "database.dump"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    assert made.blobs >= 3

    await asyncio.to_thread(backups.restore, settings(restored), folder)
    assert stat.S_IMODE((restored.folder / "data").stat().st_mode) == 0o700
    with pytest.raises(Conflict, match="holds a service already"):
        backups.restore(settings(restored), folder)
    await restored.start()
    try:
        again = client.of(restored)
        before, *others = await again.ended()
        assert [each["status"] for each in others] == ["completed"] * 2
        assert len(await again.error_file(before)) == 2
        assert await again.playlist("person-0") == ["Rock", "Jazz"]
        await again.push("after", b"identity,Playlist,Playlist.operation\nperson-0,Blues,$add\n")
        await again.ended()
        assert await again.playlist("person-0") == ["Rock", "Jazz", "Blues"]
        with restored.ground() as ground:
            ground.blobs.delete({blob.name for blob in ground.blobs.list("parts")})  # those the sweep would remove
            await asyncio.to_thread(check_invariants, ground, restored)
    finally:
        await restored.kill()


def test_a_backup_that_was_cut_short_is_not_restored(restored, tmp_path):
    (tmp_path / "database.dump").touch()
    with pytest.raises(NotFound, match=r"backup\.json is missing"):
        backups.restore(settings(restored), tmp_path)
    assert not (restored.folder / "data").exists()


def test_nothing_is_restored_beside_another_host_key(restored, tmp_path):
    (tmp_path / "backup.json").write_text('{"version": "0", "made_at": "2026-11-25", "blobs": 0}')
    data = restored.folder / "data"
    data.mkdir(mode=0o700, parents=True)
    (data / "sftp_host_key").touch(mode=0o600)
    with pytest.raises(Conflict, match="holds a service already"):
        backups.restore(settings(restored), tmp_path)


def test_a_backup_whose_note_is_damaged_is_not_restored(restored, tmp_path):
    (tmp_path / "backup.json").write_text('{"version": ')
    with pytest.raises(NotFound, match=r"backup\.json cannot be read"):
        backups.restore(settings(restored), tmp_path)


def test_a_restore_that_broke_off_leaves_nothing_that_would_start_as_an_empty_service(restored, tmp_path):
    (tmp_path / "database.dump").write_bytes(b"half of it")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "master.key").write_text(new_master())
    (tmp_path / "backup.json").write_text('{"version": "0", "made_at": "2026-11-25", "blobs": 0}')
    with pytest.raises(Unavailable, match="pg_restore failed"):
        backups.restore(settings(restored), tmp_path)
    with pytest.raises(Unavailable, match=r"master\.key is missing"), base(settings(restored)):
        pass
