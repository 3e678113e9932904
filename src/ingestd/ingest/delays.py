"""Delays: an ingestion that takes longer than expected is told of every two hours (S130, D29)."""

from __future__ import annotations

from ingestd.domain.notice import NoticeType
from ingestd.ingest.tell import tell
from ingestd.store import ingestions
from ingestd.store.engine import Sessions, transaction, utc_now


async def tell_delays(sessions: Sessions) -> int:
    """Tell of each ingestion that has passed another two hours since the last look; how many those are.

    How often it was told is in its row, and changed with the notice: so neither a restart nor a second process tells
    it twice, and a look that comes late tells once.
    """
    async with transaction(sessions) as session:
        late = await ingestions.delayed(session)
        for ingestion_id in late:
            await tell(session, NoticeType.INGESTION_DELAYED, ingestion_id, now=utc_now())
    return len(late)
