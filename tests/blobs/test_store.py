"""The blob store, on a local folder and on an S3 server: what goes in comes out, once, sealed, or not at all."""

from __future__ import annotations

import concurrent.futures
import csv
import gc
import hashlib
import io
import os
import random
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from ingestd.blobs import BlobInfo, open_store
from ingestd.domain.errors import Conflict, Invalid, NotFound, Unavailable
from ingestd.keyring import SealBroken

LARGE = random.Random(7).randbytes(20 * 1024 * 1024 + 5)  # several pieces of a multipart upload


def put(store, name, keys, data):
    with store.create(name, keys) as blob:
        blob.write(data)
        return blob.commit()


def names(store, folder=""):
    return sorted(stored.name for stored in store.list(folder))


def test_a_blob_whose_hash_nobody_will_ask_comes_back_too(store, keys):
    with store.create("parts/a", keys, hashed=False) as blob:
        blob.write(LARGE)
        assert blob.commit() == BlobInfo("parts/a", len(LARGE), "")
    with store.open("parts/a", keys) as file:
        assert file.read() == LARGE


@pytest.mark.parametrize("data", [b"", b"x", LARGE], ids=["empty", "small", "large"])
def test_a_blob_comes_back_as_it_was(store, keys, data):
    stored = put(store, "files/a", keys, data)
    assert stored == BlobInfo("files/a", len(data), hashlib.sha256(data).hexdigest())
    assert [blob.name for blob in store.list()] == ["files/a"]
    with store.open("files/a", keys) as file:
        assert file.read() == data


def test_a_blob_is_written_in_any_pieces_and_read_into_a_buffer(store, keys):
    with store.create("files/a", keys) as blob:
        for start in range(0, len(LARGE), 256 * 1024):
            assert blob.write(memoryview(LARGE)[start : start + 256 * 1024]) > 0
        assert blob.commit().size == len(LARGE)
    buffer = bytearray(len(LARGE) + 1)
    with store.open("files/a", keys) as file:
        assert file.readinto(buffer) == len(LARGE)
    assert buffer[:-1] == LARGE


@pytest.mark.parametrize("start", [0, 1, 3 * 1024 * 1024 + 1, len(LARGE) - 1, len(LARGE), len(LARGE) + 9])
def test_a_blob_is_read_from_a_place_on(store, keys, start):
    put(store, "files/a", keys, LARGE)
    with store.open("files/a", keys, start=start) as file:
        assert file.read() == LARGE[start:]


@pytest.mark.parametrize("size", [1, len(LARGE)], ids=["small", "large"])
def test_a_name_is_used_once(store, keys, size):
    put(store, "files/a", keys, b"first")
    with pytest.raises(Conflict) as refused:
        put(store, "files/a", keys, LARGE[:size])
    assert refused.value.code == "blob_exists"
    with store.open("files/a", keys) as file:
        assert file.read() == b"first"
    assert store.sweep_parts(datetime.now(UTC) + timedelta(days=1)) == 0


def test_of_many_writers_of_one_name_one_wins(store, keys):
    def contend(number):
        try:
            return put(store, "files/a", keys, str(number).encode())
        except Conflict:
            return None

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        (winner,) = [stored for stored in pool.map(contend, range(8)) if stored]
    with store.open("files/a", keys) as file:
        assert hashlib.sha256(file.read()).hexdigest() == winner.sha256


@pytest.mark.parametrize("data", [b"x", LARGE], ids=["small", "large"])
def test_without_commit_nothing_is_there(store, keys, data):
    with store.create("a", keys) as left:
        left.write(data)
    with pytest.raises(TypeError), store.create("b", keys) as failed:
        failed.write([data, failed.write(data)])
    aborted = store.create("c", keys)
    aborted.write(data)
    aborted.abort()
    dropped = store.create("d", keys)
    dropped.write(data)
    del dropped
    gc.collect()
    assert names(store) == []
    assert store.sweep_parts(datetime.now(UTC) + timedelta(days=1)) == 0


def test_a_finished_writer_takes_no_more(store, keys):
    blob = store.create("a", keys)
    blob.write(b"x")
    blob.commit()
    blob.abort()
    for again in (blob.commit, lambda: blob.write(b"y")):
        with pytest.raises(ValueError, match="closed"):
            again()
    assert names(store) == ["a"]


@pytest.mark.threat("T112")
def test_a_blob_opens_only_under_its_name_and_with_its_accounts_keys(store, keys, other_keys):
    put(store, "a", keys, b"plain")
    with pytest.raises(SealBroken), store.open("a", other_keys) as file:
        file.read()
    with pytest.raises(SealBroken):
        store.open("a", other_keys, start=1)
    with store._backend.read("a") as sealed:
        moved = sealed.read(1_000_000)
    assert b"plain" not in moved
    upload = store._backend.begin("b")
    upload.write(moved)
    upload.publish()
    with pytest.raises(SealBroken), store.open("b", keys) as file:
        file.read()


@pytest.mark.parametrize("kept", [0, 1000, 1024 * 1024, 5 * 1024 * 1024])
def test_a_blob_cut_short_is_not_taken_for_whole(store, keys, kept):
    put(store, "a", keys, LARGE)
    with store._backend.read("a") as sealed:
        whole = b"".join(iter(lambda: sealed.read(1024 * 1024), b""))
    store.delete(["a"])
    upload = store._backend.begin("a")
    upload.write(whole[:kept])
    upload.publish()
    with pytest.raises(SealBroken), store.open("a", keys) as file:
        file.read()


def test_what_is_not_there_is_not_found(store, keys):
    with pytest.raises(NotFound):
        store.open("a", keys)
    store.delete(["a", "b"])


def test_a_folder_lists_its_own_blobs_only(store, keys):
    for name in ("parts/1/a", "parts/1/b.c", "parts/10/a", "other"):
        put(store, name, keys, name.encode())
    assert names(store) == ["other", "parts/1/a", "parts/1/b.c", "parts/10/a"]
    assert names(store, "parts") == ["parts/1/a", "parts/1/b.c", "parts/10/a"]
    assert names(store, "parts/1") == ["parts/1/a", "parts/1/b.c"]
    (stored,) = store.list("parts/10")
    assert stored.size > len("parts/10/a")
    assert abs(datetime.now(UTC) - stored.modified) < timedelta(minutes=1)
    store.delete(["parts/1/a", "missing", "parts/1/b.c"])
    assert names(store) == ["other", "parts/10/a"]


@pytest.mark.threat("T20", "T80")
@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "../a",
        "a/../b",
        ".part-1",
        "a/.b",
        "A",
        "a b",
        "a+b",
        "a\\b",
        "a\n",
        "é",
        "a%2fb",
        "*",
        "~",
        "a\x00",
        "a" * 201,
    ],
)
def test_a_name_has_one_form(store, keys, name):
    for use in (
        lambda: store.create(name, keys),
        lambda: store.open(name, keys),
        lambda: store.delete([name]),
    ):
        with pytest.raises(Invalid) as refused:
            use()
        assert refused.value.code == "blob_name_invalid"


def test_a_writer_is_a_file_to_those_who_write_files(store, keys):
    table = pa.table({"id": list(range(1000))})
    with store.create("parts/arrow", keys) as blob:
        with pa.ipc.new_stream(blob, table.schema) as stream:
            stream.write_table(table)
        assert not blob.closed
        blob.commit()
    with store.open("parts/arrow", keys) as file:
        assert pa.ipc.open_stream(file).read_all() == table

    with store.create("errors/csv", keys) as blob:
        text = io.TextIOWrapper(io.BufferedWriter(blob), encoding="utf-8", newline="")
        csv.writer(text).writerow(["é", "b"])
        text.flush()
        blob.commit()
    with store.open("errors/csv", keys) as file:
        assert file.read() == "é,b\r\n".encode()


def test_a_store_that_answers_is_ready(store):
    store.check()
    assert names(store) == []


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(("url", "secret"), [("s3://missing", "secret"), ("s3://blobs", "wrong")])
def test_a_store_that_does_not_answer_is_not_ready(url, secret, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    with pytest.raises(Unavailable) as failed:
        open_store(url).check()
    assert failed.value.code == "storage_failed"


@pytest.mark.parametrize("url", ["file://host/a", "file:a", "ftp://x/y", "/a", "", "memory:///", "s3://"])
def test_a_url_that_names_no_store_is_refused(url):
    with pytest.raises(Invalid) as refused:
        open_store(url)
    assert refused.value.code == "storage_url_invalid"


def test_a_local_store_is_named_by_path_or_url(tmp_path, keys):
    put(open_store(tmp_path / "the blobs"), "a", keys, b"x")
    assert names(open_store(f"file://{tmp_path}/the%20blobs")) == ["a"]
    assert os.listdir(tmp_path) == ["the blobs"]  # noqa: PTH208
