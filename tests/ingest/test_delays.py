"""What takes longer than expected is told after two hours and then every two hours."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.ingest.delays import tell_delays
from ingestd.store.engine import transaction


@pytest.mark.rule("S130", "D29")
async def test_an_ingestion_is_told_of_once_for_every_two_hours_until_it_ends(tenant):
    ended = await tenant.push(b"identity\nann\n")
    ingestion = ids.read(Prefix.INGESTION, ended["id"])
    sessions = tenant.app.intake.sessions

    async def told_after(hours, status="in_progress", stage="applying"):
        """How often it has been told, when it is so old and several processes look at once."""
        async with transaction(sessions) as session:
            await session.execute(
                text(
                    "UPDATE ingestions SET status = :status, stage = :stage, finished_at = NULL,"
                    " started_at = now() - make_interval(secs => :seconds) WHERE id = :id"
                ),
                {"status": status, "stage": stage, "seconds": hours * 3600, "id": ingestion},
            )
        await asyncio.gather(*(tell_delays(sessions) for _ in range(3)))
        await tell_delays(sessions)
        page = await tenant.http.get("/v1/messages", params={"ingestion": ended["id"]})
        return [each["type"] for each in page.json()["data"]].count("ingestion.delayed")

    try:
        assert await told_after(1.99) == 0
        assert await told_after(2.01) == 1
        assert await told_after(3.9) == 1
        assert await told_after(4.01) == 2
        assert await told_after(1.0) == 2, "the clock was put back"
        assert await told_after(4.5) == 2
        assert await told_after(9.0, stage="held") == 2
        assert await told_after(9.0) == 3, "a look that comes late tells once"
        assert await told_after(11.0, status="completed", stage="done") == 3
    finally:
        await told_after(0, status="completed", stage="done")
