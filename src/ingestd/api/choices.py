"""Webhooks chosen for a segment or a data source, whatever door its files come through (S136)."""

from __future__ import annotations

from ingestd.api import audit, data_sources, segments
from ingestd.api.choice import Chosen, chosen
from ingestd.api.context import Caller, Scope, Tx, needs
from ingestd.api.data_sources import DataSourceOut
from ingestd.api.etags import IfMatch
from ingestd.api.ids import DataSourceId, SegmentId
from ingestd.api.model import In
from ingestd.api.routes import Router
from ingestd.api.segments import SegmentOut
from ingestd.store import data_sources as stored_sources
from ingestd.store import segments as stored_segments

router = Router(prefix="/v1")


class ChosenIn(In):
    """The webhooks that are told, all of them."""

    webhooks: Chosen


@router.put(
    "/segments/{segment_id}/webhooks",
    operation_id="segments_choose_webhooks",
    summary="Choose webhooks for a segment",
    tags=["Segments"],
    dependencies=[needs(Scope.SEGMENTS_WRITE)],
)
async def of_segment(segment_id: SegmentId, body: ChosenIn, tx: Tx, caller: Caller, match: IfMatch) -> SegmentOut:
    """Have these webhooks told of every file for the segment, whatever else they want; in use or not."""
    webhook_ids = await chosen(tx, caller, body.webhooks)
    segment = await stored_segments.get(tx, caller.account_id, segment_id, lock=True)
    before = segments.shown(segment)
    match.check(before)
    segment.webhook_ids = webhook_ids
    return audit.changed(tx, caller, "segment.webhooks_chosen", before, segments.shown(segment))


@router.put(
    "/data-sources/{data_source_id}/webhooks",
    operation_id="data_sources_choose_webhooks",
    summary="Choose webhooks for a data source",
    tags=["Data sources"],
    dependencies=[needs(Scope.DATA_SOURCES_WRITE)],
)
async def of_data_source(
    data_source_id: DataSourceId, body: ChosenIn, tx: Tx, caller: Caller, match: IfMatch
) -> DataSourceOut:
    """Have these webhooks told of every upload for the data source, whatever else they want."""
    webhook_ids = await chosen(tx, caller, body.webhooks)
    source = await stored_sources.get(tx, caller.account_id, data_source_id, lock=True)
    before = data_sources.shown(source)
    match.check(before)
    source.webhook_ids = webhook_ids
    return audit.changed(tx, caller, "data_source.webhooks_chosen", before, data_sources.shown(source))
