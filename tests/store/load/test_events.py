"""How events are stored."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

import polars as pl
import pytest
from tests.store.load.world import NOW, frame

from ingestd.store.load import profiles
from ingestd.store.load.events import event_ids
from ingestd.store.load.stage import Load


def test_ids_of_events_rise_with_people_and_rows_and_a_repeat_gives_the_same():
    load = Load(account_id=uuid4(), ingestion_id=uuid4(), seq=1, received_at=NOW, now=NOW)
    rows = [(0, 9), (0x0A << 120, 2), (0x0A << 120, 2**32 - 1), (0xF0 << 120, 1)]
    events = pl.DataFrame(rows, schema={"id": pl.UInt128, "row_no": pl.Int64}, orient="row")
    ids = [UUID(bytes=bytes(each)) for each in event_ids(load, events)]
    assert ids == sorted(set(ids))
    assert [UUID(bytes=bytes(each)) for each in event_ids(load, events[1:])] == ids[1:]
    another = event_ids(replace(load, ingestion_id=uuid4()), events)
    assert not {UUID(bytes=bytes(each)) for each in another} & set(ids)


@pytest.mark.rule("D54")
def test_people_who_come_with_the_identifiers_they_are_known_by_are_not_compared(account, monkeypatch):
    rows = [{"k1": "A", "k2": "u", "event_name": "Seen"}, {"k1": "A", "event_name": "Bought"}, {"k1": "B"}]
    account.push(happened(rows))
    with monkeypatch.context() as patch:
        patch.setattr(profiles, "_update", lambda *_: pytest.fail("They are known."))
        assert account.push(happened([rows[1] | {"k2": "u"}, rows[2]]))["created"] == 2
    account.push(happened([{"k1": "A", "k2": "v", "event_name": "Sold"}]))
    assert account.named(2, "v") == account.named(2, "u") == account.named(1, "A")
    assert account.rows("SELECT count(*) FROM events WHERE account_id = %s") == [(6,)]


def happened(rows):
    return frame([{"event_name": "Seen"} | row for row in rows], event_name=pl.String)
