"""Sealed streams: the same bytes out, in any pieces, and never a part of them taken for the whole."""

from __future__ import annotations

import gc
import io
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestd.keyring import Keyring, SealBroken, new_master

ACCOUNT = UUID(int=7)
KEYRING = Keyring.load(new_master())
KEYS, OTHERS = (KEYRING.open(ACCOUNT, KEYRING.new_account_keys(ACCOUNT)) for _ in range(2))
SEGMENT = 1024 * 1024
LONG = bytes(range(256)) * (3 * SEGMENT // 256) + b"end"


def seal(plain, context="name"):
    sealer = KEYS.sealer(context)
    return b"".join([*sealer.update(plain), *sealer.finish()])


def read_all(sealed, got):
    file = KEYS.open_stream(io.BytesIO(sealed), "name")
    while piece := file.read(100_000):
        got.append(piece)


SEALED = seal(LONG)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, SEGMENT + 3), max_size=6),
    st.integers(10_000, SEGMENT + 7),
)
def test_any_pieces_in_give_the_same_bytes_out_in_any_pieces(sizes, step):
    sealer, plain, sealed = KEYS.sealer("name"), b"", []
    for number, size in enumerate(sizes):
        plain += bytes([number]) * size
        sealed += sealer.update(bytes([number]) * size)
    sealed += sealer.finish()
    file = KEYS.open_stream(io.BytesIO(b"".join(sealed)), "name")
    assert b"".join(iter(lambda: file.read(step), b"")) == plain


def test_views_and_arrays_are_taken_as_they_are():
    for data in (bytearray(b"abc"), memoryview(b"abc")):
        assert KEYS.open_stream(io.BytesIO(seal(data)), "name").read() == b"abc"


def test_readinto_fills_the_buffer_across_segments():
    buffer = bytearray(2 * SEGMENT + 5)
    assert KEYS.open_stream(io.BytesIO(SEALED), "name").readinto(buffer) == len(buffer)
    assert buffer == LONG[: len(buffer)]


@pytest.mark.threat("T112")
def test_a_stream_opens_only_in_its_place_and_account():
    for keys, context in ((KEYS, "another"), (OTHERS, "name")):
        with pytest.raises(SealBroken):
            keys.open_stream(io.BytesIO(SEALED), context).read(1)


@pytest.mark.parametrize("kept", [0, 1, 40, SEGMENT // 2, SEGMENT, SEGMENT + 1, 2 * SEGMENT, len(SEALED) - 1])
def test_a_stream_cut_short_breaks_instead_of_ending(kept):
    got = []
    with pytest.raises(SealBroken):
        read_all(SEALED[:kept], got)
    assert LONG.startswith(b"".join(got))


@pytest.mark.parametrize("place", [0, 39, 100, SEGMENT + 100, len(SEALED) - 1])
def test_a_changed_byte_breaks_the_stream_before_it_is_read(place):
    changed = bytearray(SEALED)
    changed[place] ^= 1
    got = []
    with pytest.raises(SealBroken):
        read_all(changed, got)
    assert LONG.startswith(b"".join(got))


def test_bytes_after_the_end_break_the_stream():
    with pytest.raises(SealBroken):
        KEYS.open_stream(io.BytesIO(SEALED + b"x"), "name").read()


def test_a_sealer_dropped_before_its_finish_gives_no_whole_stream():
    sealer = KEYS.sealer("name")
    pieces = sealer.update(LONG)
    del sealer
    gc.collect()
    with pytest.raises(SealBroken):
        KEYS.open_stream(io.BytesIO(b"".join(pieces)), "name").read()


class Failing(io.BytesIO):
    """A file whose reads fail after some bytes."""

    def __init__(self, data, good, error):
        super().__init__(data)
        self.good, self.error = good, error

    def read(self, size=-1):
        if self.tell() >= self.good:
            raise self.error
        return super().read(size)


@pytest.mark.parametrize("good", [0, 2 * SEGMENT])
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_an_error_of_the_source_comes_through_as_it_is(good, error):
    file = KEYS.open_stream(Failing(SEALED, good, error), "name")
    with pytest.raises(type(error)) as raised:
        file.read()
    assert raised.value is error


def test_closing_the_stream_closes_its_source():
    source = io.BytesIO(SEALED)
    with KEYS.open_stream(source, "name") as file:
        file.read(1)
    assert source.closed
