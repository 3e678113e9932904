"""How events are stored."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

import polars as pl
from tests.store.load.world import NOW

from ingestd.store.load.events import event_ids
from ingestd.store.load.stage import Load


def test_ids_of_events_rise_with_people_and_rows_and_a_repeat_gives_the_same():
    load = Load(account_id=uuid4(), ingestion_id=uuid4(), seq=1, received_at=NOW, now=NOW)
    events = pl.DataFrame({"id": ["00" * 16, "0a" * 16, "0a" * 16, "f0" * 16], "row_no": [9, 2, 2**32 - 1, 1]})
    ids = [UUID(bytes=bytes(each)) for each in event_ids(load, events)]
    assert ids == sorted(set(ids))
    assert [UUID(bytes=bytes(each)) for each in event_ids(load, events[1:])] == ids[1:]
    another = event_ids(replace(load, ingestion_id=uuid4()), events)
    assert not {UUID(bytes=bytes(each)) for each in another} & set(ids)
