"""The local folder: what power, disks and kills do to it."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingestd.blobs import open_store
from ingestd.domain.errors import Unavailable

WRITE_AND_WAIT = """
import pathlib, sys, uuid
from ingestd.blobs import open_store
from ingestd.keyring import Keyring, new_master

keyring = Keyring.load(new_master())
keys = keyring.open(uuid.UUID(int=1), keyring.new_account_keys(uuid.UUID(int=1)))
blob = open_store(pathlib.Path(sys.argv[1])).create("files/a", keys)
blob.write(bytes(5_000_000))
print("written", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "blobs"


@pytest.fixture
def store(folder):
    return open_store(folder)


def put(store, name, keys, data):
    with store.create(name, keys) as blob:
        blob.write(data)
        return blob.commit()


def test_folder_and_files_are_for_our_user_only(store, folder, keys):
    umask = os.umask(0)
    try:
        put(store, "files/a", keys, b"x")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_nlink == 1


@pytest.mark.fault
@pytest.mark.threat("T43")
def test_a_writer_killed_midway_leaves_nothing_but_a_part_to_sweep(store, folder, keys):
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout.readline() == b"written\n"
        child.kill()
    assert child.returncode == -signal.SIGKILL
    assert list(store.list()) == []
    now = datetime.now(UTC)
    assert store.sweep_parts(now - timedelta(hours=1)) == 0  # it may still be written to
    assert store.sweep_parts(now + timedelta(hours=1)) == 1
    assert list(folder.iterdir()) == []
    put(store, "files/a", keys, b"x")


def test_the_sweep_leaves_blobs_alone(store, keys):
    put(store, "files/a", keys, b"x")
    assert store.sweep_parts(datetime.now(UTC) + timedelta(days=1)) == 0
    assert [blob.name for blob in store.list()] == ["files/a"]


@pytest.mark.fault
@pytest.mark.parametrize("data", [bytes(3_000_000), bytes(1_000_100)], ids=["at write", "at commit"])
def test_a_full_disk_is_told_and_leaves_nothing(store, folder, keys, data):
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(Unavailable) as failed:
            put(store, "files/a", keys, data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert failed.value.code == "storage_full"
    assert list(folder.iterdir()) == []
    put(store, "files/a", keys, data)


@pytest.mark.parametrize(
    "refusal",
    [
        (errno.ENOSPC, "storage_full"),
        (errno.EDQUOT, "storage_full"),
        (errno.EIO, "storage_failed"),
        (errno.EROFS, "storage_failed"),
    ],
)
@pytest.mark.parametrize("call", ["open", "fsync", "link"])
@pytest.mark.fault
def test_what_the_system_refuses_is_told_by_kind(store, folder, keys, monkeypatch, call, refusal):
    number, code = refusal

    def refuse(*args, **options):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(Unavailable) as failed:
            put(store, "files/a", keys, b"x")
    assert failed.value.code == code
    assert list(folder.iterdir()) == []


@pytest.mark.fault
def test_a_failed_sync_is_never_tried_again(store, folder, keys, monkeypatch):
    synced = []

    def fail(descriptor):
        synced.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    blob = store.create("files/a", keys)
    blob.write(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(Unavailable):
            blob.commit()
    with pytest.raises(ValueError, match="closed"):
        blob.commit()
    assert len(synced) == 1
    assert list(folder.iterdir()) == []


@pytest.mark.fault
def test_a_name_whose_folder_did_not_sync_is_taken_back(store, folder, keys, monkeypatch):
    sync, calls = os.fsync, []

    def fail_for_folders(descriptor):
        calls.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        if calls[-1]:
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_for_folders)
        with pytest.raises(Unavailable):
            put(store, "files/a", keys, b"x")
    assert calls == [False, True]
    assert list(folder.iterdir()) == []


def test_file_then_name_then_folder(store, folder, keys, monkeypatch):
    order, sync, link, ours = [], os.fsync, os.link, threading.get_ident()

    def note(what):
        if threading.get_ident() == ours:  # the service of the run, which other threads are, may write blobs too
            order.append(what)

    def note_sync(descriptor):
        note("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def note_link(source, target):
        note("name")
        link(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "link", note_link)
    put(store, "files/a", keys, b"x")
    assert order == ["file", "name", "folder"]


@pytest.mark.fault
def test_an_error_of_the_disk_while_reading_is_not_taken_for_a_broken_seal(store, folder, keys):
    (folder / "files+a").mkdir()  # reading a folder is the one read error that needs no broken disk
    with pytest.raises(Unavailable) as failed:
        store.open("files/a", keys)
    assert failed.value.code == "storage_failed"


def test_a_folder_that_cannot_be_written_is_not_ready(store, folder):
    folder.rename(folder.with_name("gone"))
    with pytest.raises(Unavailable):
        store.check()


def test_reading_leaves_no_descriptor_open(store, folder, keys):
    def opened():
        return [link for link in Path("/proc/self/fd").iterdir() if str(link.resolve()).startswith(str(folder))]

    put(store, "files/a", keys, bytes(3_000_000))
    before = opened()
    with store.open("files/a", keys) as file:
        file.read(10)
        assert len(opened()) > len(before)
    dropped = store.open("files/a", keys)
    del dropped
    assert opened() == before
