"""What is counted and measured, in Prometheus's form; docs/operations.md has the table.

Labels take few values: never an account, a name or an id (P9). Counters are a process's own; what the last five gauges
show is asked of the database when Prometheus asks, so every replica tells the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

MEDIA_TYPE: Final = CONTENT_TYPE_LATEST


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of one process."""

    registry: CollectorRegistry
    ingestions: Counter
    rows: Counter
    rejections: Counter
    given_up: Counter
    stage_seconds: Histogram
    deliveries: Counter
    messages: Counter
    fetches: Counter
    sftp_sessions: Gauge
    queue_depth: Gauge
    oldest_scheduled_seconds: Gauge
    delivery_lag_seconds: Gauge
    schedule_lag_seconds: Gauge
    stored_bytes: Gauge

    def exposition(self) -> bytes:
        """Give all metrics in Prometheus's text format."""
        return generate_latest(self.registry)


def new_metrics() -> Metrics:
    """Make the metrics, all at zero, in a registry of their own."""
    registry = CollectorRegistry()
    return Metrics(
        registry=registry,
        ingestions=Counter("ingestd_ingestions", "Ingestions that ended", ["target", "status"], registry=registry),
        rows=Counter("ingestd_rows", "Rows of files by what became of them", ["outcome"], registry=registry),
        rejections=Counter("ingestd_rejections", "Reasons for which rows were rejected", ["code"], registry=registry),
        given_up=Counter(
            "ingestd_given_up", "What failed again and again and is not tried any more", ["what"], registry=registry
        ),
        stage_seconds=Histogram(
            "ingestd_stage_seconds",
            "Time a stage of an ingestion took",
            ["stage"],
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000),
            registry=registry,
        ),
        deliveries=Counter("ingestd_deliveries", "Attempts to deliver a webhook", ["result"], registry=registry),
        messages=Counter("ingestd_messages", "Attempts to hand a mail over", ["result"], registry=registry),
        fetches=Counter("ingestd_fetches", "Attempts of runs to fetch a file", ["result"], registry=registry),
        sftp_sessions=Gauge("ingestd_sftp_sessions", "SFTP connections that are logged in", registry=registry),
        queue_depth=Gauge("ingestd_queue_depth", "What waits or runs, of all replicas", ["queue"], registry=registry),
        oldest_scheduled_seconds=Gauge(
            "ingestd_oldest_scheduled_seconds", "Age of the oldest ingestion that waits", registry=registry
        ),
        delivery_lag_seconds=Gauge(
            "ingestd_delivery_lag_seconds",
            "How long the oldest due delivery or mail has waited",
            registry=registry,
        ),
        schedule_lag_seconds=Gauge(
            "ingestd_schedule_lag_seconds", "How long the schedule that is due longest has been due", registry=registry
        ),
        stored_bytes=Gauge("ingestd_stored_bytes", "Bytes of files that are kept, of all accounts", registry=registry),
    )
