"""Manifests that came before their data file: paired when it comes, refused when their time is over (D17)."""

from __future__ import annotations

from datetime import datetime

from ingestd import telemetry
from ingestd.ingest.intake import Intake
from ingestd.ingest.manifests import text_of
from ingestd.ingest.pairing import settle
from ingestd.store import manifests
from ingestd.store.engine import transaction

log = telemetry.logger(__name__)


async def settle_waiting(intake: Intake, now: datetime) -> int:
    """Settle what waits no longer; how many that were. One that fails does not keep the others."""
    async with transaction(intake.sessions) as session:
        waiting = await manifests.to_settle(session, now - intake.manifest_grace)
    settled = 0
    for manifest in waiting:
        try:
            assert manifest.blob is not None  # the texts of those that wait do not expire
            text = await text_of(intake, manifest.account_id, manifest.blob)
            async with transaction(intake.sessions) as session:
                settled += await settle(session, intake, manifest, text, now=now)
        except Exception as fault:
            log.warning("manifest_not_settled", manifest=str(manifest.id), exc_info=fault)
    return settled
