"""Parts: every row once, under the hash of its best identifier, in the range of that hash; links beside them."""

from __future__ import annotations

from threading import Event

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store.load.world import KEY, Memory, frame

from ingestd.domain.identity import SLICES
from ingestd.pipeline import parts as subject
from ingestd.pipeline.identifiers import hashed, identifiers
from ingestd.pipeline.parts import PartWriter, bucket_count, read, rewrite
from ingestd.store.profiles import identifier_hash

MIB = 1024 * 1024


def write(rows, *, buckets=16, looked_up=()):
    folder = Memory()
    writer = PartWriter(folder, folder, buckets=buckets, index_key=KEY, looked_up=looked_up)
    writer.write(rows)
    return folder, writer.close()


@pytest.mark.rule("D54")
@given(st.text(min_size=1), st.integers(1, 200))
def test_the_hash_of_a_column_is_that_of_plain_python(value, kind):
    column = pl.DataFrame({f"k{kind}": [value]}).select(hashed(kind, KEY))
    assert column.to_series().to_list() == [identifier_hash(KEY, kind, value).int]


@pytest.mark.parametrize(
    ("size", "count"),
    [(0, 1), (16 * MIB - 1, 1), (16 * MIB, 16), (1025 * MIB, 32), (5120 * MIB, 80), (99 * 1024 * MIB, 256)],
)
def test_a_file_is_cut_into_one_part_or_a_multiple_of_the_slices(size, count):
    assert bucket_count(size, 64 * MIB) == count
    assert bucket_count(size, 64 * MIB, 32) == min(count, 32)
    assert count == 1 or count % SLICES == 0


def test_every_row_stands_once_in_the_part_of_its_range():
    rows = frame([{"k1": f"user {number}" if number % 3 else None, "k2": f"x{number}"} for number in range(200)])
    folder, parts = write(rows)
    assert sum(parts.rows.values()) == 200
    stored = []
    for name, height in parts.rows.items():
        part = read(folder, name)
        assert part.height == height
        assert {id_ >> 124 for id_ in part["id"]} == {int(name.removeprefix("part-"))}
        assert identifiers(part, KEY, moved=False).equals(identifiers(part, KEY))
        stored.append(part)
    assert pl.concat(stored).sort("row_no").drop("id").equals(rows.drop("line_no"))


def test_a_file_with_one_identifier_column_has_no_links():
    rows = frame([{"k1": "A"}, {"k1": "B"}]).drop("k2", "k3")
    assert write(rows)[1].links == ()
    assert write(rows, looked_up={1})[1].links != ()


def test_rewritten_parts_hold_each_row_under_its_person_and_not_the_rejected():
    folder, parts = write(frame([{"k1": "A"}, {"k2": "u"}, {"k1": "B"}]))
    ann, u = (identifier_hash(KEY, kind, value).int for kind, value in ((1, "A"), (2, "u")))
    moved = pl.DataFrame({"hash": [u], "id": [ann]}, schema={"hash": pl.UInt128, "id": pl.UInt128})
    parts = rewrite(parts, folder, moved=moved, rejected=[3])
    rows = pl.concat([read(folder, name) for name in parts.rows]).sort("row_no")
    assert rows.select("row_no", "id").rows() == [(1, ann), (2, ann)]


class Slow(Memory):
    """Parts are there once they may be, or not at all if they `fail`; the links at once."""

    def __init__(self, *, fail: bool = False) -> None:
        super().__init__()
        self.may, self.fail = Event(), fail

    def create(self, name):
        stream = super().create(name)
        if name.startswith("part"):
            close = stream.close

            def wait():
                self.may.wait()
                stream.close = close
                if self.fail:
                    raise OSError("No space left.")
                close()

            stream.close = wait
        return stream


def test_links_are_read_while_the_parts_wait_for_the_disk():
    folder = Slow()
    writer = PartWriter(folder, folder, buckets=16, index_key=KEY)
    writer.write(frame([{"k1": f"user {number}", "k2": f"x{number}"} for number in range(50)]))
    with writer.closing() as parts:
        assert sum(read(folder, name).height for name in parts.links) == 50
        assert folder.streams.keys() == set(parts.links)
        folder.may.set()
        assert sum(read(folder, name).height for name in parts.rows) == 50


def test_parts_that_cannot_be_written_are_not_passed_over():
    folder = Slow(fail=True)
    folder.may.set()
    writer = PartWriter(folder, folder, buckets=16, index_key=KEY)
    writer.write(frame([{"k1": "ann", "k2": "x"}]))
    with pytest.raises(OSError, match="No space"), writer.closing() as parts:
        assert parts.links


@pytest.mark.threat("T84")
@pytest.mark.parametrize(("few", "pieces"), [(2**30, 1), (0, 5)])
def test_small_pieces_wait_for_more_unless_they_are_large(monkeypatch, few, pieces):
    monkeypatch.setattr(subject, "_FEW_BYTES", few)
    folder = Memory()
    writer = PartWriter(folder, folder, buckets=1, index_key=KEY)
    for number in range(5):
        writer.write(frame([{"row_no": number, "k1": f"user {number}"}]))
    (name,) = writer.close().rows
    assert read(folder, name)["row_no"].to_list() == [0, 1, 2, 3, 4]
    with folder.open(name) as file:
        assert len([*pa.ipc.open_stream(file)]) == pieces


@pytest.mark.rule("D6")
def test_very_many_rows_keep_the_order_of_the_file_in_their_parts():
    """Where a person stands in many rows the last one wins, and a sort that is not stable may still keep a few."""
    folder, parts = write(frame([{"k1": f"user {number % 50}"} for number in range(5000)]))
    for name in parts.rows:
        assert read(folder, name)["row_no"].is_sorted()
