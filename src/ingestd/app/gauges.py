"""The metrics of this process, with what the database says at the moment of asking."""

from __future__ import annotations

import math

from sqlalchemy import Engine

from ingestd import telemetry
from ingestd.metrics import MEDIA_TYPE, Metrics
from ingestd.store.figures import Figures, figures

log = telemetry.logger(__name__)

_NAN = math.nan
_UNKNOWN = Figures(*[_NAN] * 9)


def exposition(metrics: Metrics, sql: Engine) -> tuple[bytes, str]:
    """The metrics as Prometheus reads them, and their media type."""
    try:
        with sql.connect() as connection:
            found = figures(connection)
    except Exception as fault:  # the counters are worth having all the more then
        log.warning("figures_unavailable", exc_info=fault)
        found = _UNKNOWN
    metrics.queue_depth.labels("scheduled").set(found.scheduled)
    metrics.queue_depth.labels("in_progress").set(found.in_progress)
    metrics.queue_depth.labels("deliveries").set(found.deliveries)
    metrics.queue_depth.labels("messages").set(found.messages)
    metrics.queue_depth.labels("fetches").set(found.fetches)
    metrics.oldest_scheduled_seconds.set(found.oldest_scheduled_seconds)
    metrics.delivery_lag_seconds.set(found.delivery_lag_seconds)
    metrics.schedule_lag_seconds.set(found.schedule_lag_seconds)
    metrics.stored_bytes.set(found.stored_bytes)
    return metrics.exposition(), MEDIA_TYPE
