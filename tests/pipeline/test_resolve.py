"""Which rows are one person: however many identifiers are tied, in memory that is bounded (D54)."""

import pytest
from tests.store.load.world import KEY, Memory, frame

from ingestd.domain.errors import FileRefused
from ingestd.pipeline import links
from ingestd.pipeline import resolve as subject
from ingestd.pipeline.parts import PartWriter
from ingestd.pipeline.resolve import resolve

TIED = [{"k1": f"user {n}", "k2": f"{n % 50}@example.org"} for n in range(100)]
ALONE = [{"k1": f"other {n}", "k2": f"other {n}@example.org"} for n in range(100)]


def resolved(rows):
    folder = Memory()
    writer = PartWriter(folder, folder, buckets=16, index_key=KEY)
    for start in range(0, len(rows), 20):
        writer.write(frame([{"row_no": start + n} | row for n, row in enumerate(rows[start : start + 20])]))
    return resolve(writer.close(), folder, None, KEY)


@pytest.mark.rule("D54")
@pytest.mark.threat("T84")
def test_very_many_links_are_looked_at_in_ranges_and_come_to_the_same(monkeypatch):
    whole = resolved(TIED + ALONE)
    monkeypatch.setattr(links, "MOST_CELLS", 0)
    assert resolved(TIED + ALONE).rejected == whole.rejected == tuple(range(50, 100))


@pytest.mark.rule("D54", "S120")
@pytest.mark.threat("T84")
def test_a_file_in_which_too_many_rows_are_contested_is_refused(monkeypatch):
    monkeypatch.setattr(subject, "MOST_CONTESTED", 100)
    assert len(resolved(TIED + ALONE).rejected) == 50
    monkeypatch.setattr(subject, "MOST_CONTESTED", 99)
    with pytest.raises(FileRefused, match="rows have an identifier that other rows") as refusal:
        resolved(TIED + ALONE)
    assert refusal.value.code == "file_unreadable"
    monkeypatch.setattr(subject, "MOST_CONTESTED", 199)
    with pytest.raises(FileRefused):
        resolved(TIED * 2)
