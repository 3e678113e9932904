"""Pieces of an upload, in any order that a client may send them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestd.blobs.store import open_store
from ingestd.domain.errors import Invalid
from ingestd.ingest.incoming import Incoming, Room
from ingestd.keyring import Keyring, new_master
from ingestd.sftpd.upload import EARLY_PIECES, PASS_ON, WINDOW, Pace, Upload
from ingestd.store.engine import async_engine, sessions

ACCOUNT = UUID(int=1)
KEYRING = Keyring.load(new_master())
KEYS = KEYRING.open(ACCOUNT, KEYRING.new_account_keys(ACCOUNT))
LIMIT = 2 * WINDOW
AT_LEISURE = Pace(idle=300, longest=3600, slowest=1024)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return open_store(tmp_path_factory.mktemp("blobs") / "blobs")


@pytest.fixture(scope="module")
def begin(store):
    """Begin uploads, each with a blob of its own."""
    numbers = itertools.count()
    room = Room(sessions(async_engine("postgresql:///never_asked")), store, LIMIT)

    def begin(pace=AT_LEISURE, kept=None):
        incoming = Incoming(ACCOUNT, store.create(f"files/{next(numbers)}", KEYS), room)
        return Upload("x.csv", incoming, limit=LIMIT, pace=pace, kept=kept)

    return begin


async def test_of_an_upload_no_more_is_kept_than_is_wanted(begin, store):
    upload = begin(kept=5)
    for offset, piece in ((3, b"defg"), (0, b"abc"), (7, b"h")):
        await upload.write(offset, piece)
    blob = await upload.commit()
    assert (upload.size, blob.size, content(store, blob.name)) == (8, 5, b"abcde")


def content(store, name):
    with store.open(name, KEYS) as file:
        return b"".join(iter(lambda: file.read(1 << 16), b""))


@st.composite
def shuffled(draw):
    """Bytes, and the pieces they were cut into, in some order."""
    data = draw(st.binary(max_size=64))
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=10)) | {0, len(data)})
    pieces = [(a, data[a:b]) for a, b in itertools.pairwise(cuts)]
    return data, draw(st.permutations(pieces))


@settings(max_examples=60, deadline=None)
@given(case=shuffled())
async def test_pieces_in_any_order_give_the_same_bytes(begin, store, case):
    data, pieces = case
    upload = begin()
    for offset, piece in pieces:
        await upload.write(offset, piece)
    stored = await upload.commit()
    assert (stored.size, content(store, stored.name)) == (len(data), data)


async def test_an_upload_larger_than_what_is_kept_in_memory_is_stored_whole(begin, store):
    data = bytes(range(256)) * 12_345  # 3 MiB and some
    assert len(data) > 3 * PASS_ON
    upload = begin()
    for start in range(0, len(data), 32_768):
        await upload.write(start, data[start : start + 32_768])
    assert content(store, (await upload.commit()).name) == data


@pytest.mark.threat("T26")
@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        ([(2**40, b"x")], "file_too_large"),
        ([(WINDOW, b"x")], "upload_hole"),
        ([(1, bytes(WINDOW))], "upload_hole"),
        ([(2, bytes(WINDOW - 2)), (1, b"xxx")], "upload_hole"),
        ([(0, bytes(LIMIT)), (LIMIT, b"x")], "file_too_large"),
        ([(0, b"abc"), (1, b"b")], "upload_rewrite"),
        ([(5, b"f"), (5, b"f")], "upload_rewrite"),
        ([(2 * n + 1, b"x") for n in range(EARLY_PIECES + 1)], "upload_hole"),
    ],
    ids=["far", "window", "wide", "heavy", "limit", "again", "twice", "many"],
)
async def test_a_piece_that_breaks_a_rule_ends_the_upload(begin, store, pieces, code):
    upload = begin()
    for offset, piece in pieces[:-1]:
        await upload.write(offset, piece)
    with pytest.raises(Invalid) as refused:
        await upload.write(*pieces[-1])
    assert refused.value.code == code
    for again, told in ((upload.write(upload.size, b"more"), "upload_failed"), (upload.commit(), code)):
        with pytest.raises(Invalid) as refused:
            await again
        assert refused.value.code == told


@pytest.mark.threat("T26")
@pytest.mark.parametrize("pieces", [[(1, b"b")], [(0, b"a"), (2, b"c")], [(2, b"cde"), (3, b"d"), (0, b"ab")]])
async def test_a_hole_or_an_overlap_is_refused_at_the_end(begin, pieces):
    upload = begin()
    for offset, piece in pieces:
        await upload.write(offset, piece)
    with pytest.raises(Invalid) as refused:
        await upload.commit()
    assert refused.value.code == "upload_hole"


@pytest.mark.rule("S86")
async def test_the_limit_itself_is_accepted(begin):
    upload = begin()
    await upload.write(0, bytes(LIMIT))
    assert (await upload.commit()).size == LIMIT


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.threat("T37")
@pytest.mark.parametrize(
    ("after", "size", "enough"), [(59, 1, True), (61, 61 * 1024, True), (61, 1024, False), (3601, 4000 * 1024, False)]
)
async def test_an_upload_that_drips_is_ended(begin, after, size, enough):
    clock = Clock()
    upload = begin(replace(AT_LEISURE, clock=clock))
    await upload.write(0, bytes(size))
    clock.now = after
    if enough:
        await upload.write(size, b"x")
        assert (await upload.commit()).size == size + 1
        return
    for attempt in (upload.write(size, b"x"), upload.commit()):
        with pytest.raises(Invalid) as refused:
            await attempt
    assert refused.value.code == "upload_slow"


@pytest.mark.threat("T37")
async def test_an_upload_that_is_left_alone_is_ended(begin):
    clock = Clock()
    upload = begin(replace(AT_LEISURE, slowest=0, clock=clock))
    await upload.write(0, b"x")
    clock.now = 300
    upload.end_if_idle()
    await upload.write(1, b"y")
    clock.now = 601
    upload.end_if_idle()
    with pytest.raises(Invalid) as refused:
        await upload.commit()
    assert refused.value.code == "upload_idle"
