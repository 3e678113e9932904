"""Figures of the whole service, for its metrics."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Figures:
    """How much waits, how long, and how much is kept; seconds and bytes. Not a number where nobody knows."""

    scheduled: float
    in_progress: float
    oldest_scheduled_seconds: float
    deliveries: float
    messages: float
    delivery_lag_seconds: float
    fetches: float
    schedule_lag_seconds: float
    stored_bytes: float


_ASK = text("""
    SELECT i.*, d.*, r.*, s.*, u.*
    FROM (
        SELECT count(*) FILTER (WHERE status = 'scheduled') AS scheduled,
               count(*) FILTER (WHERE status = 'in_progress') AS in_progress,
               coalesce(extract(epoch FROM now() - min(created_at) FILTER (WHERE status = 'scheduled')), 0)::float
                   AS oldest_scheduled_seconds
        FROM ingestions WHERE status IN ('scheduled', 'in_progress')
    ) i, (
        SELECT count(*) FILTER (WHERE NOT mailed) AS deliveries,
               count(*) FILTER (WHERE mailed) AS messages,
               coalesce(greatest(extract(epoch FROM now() - min(next_attempt_at)), 0), 0)::float AS delivery_lag_seconds
        FROM (
            SELECT next_attempt_at, false AS mailed FROM deliveries WHERE next_attempt_at IS NOT NULL
            UNION ALL
            SELECT next_attempt_at, true FROM messages WHERE next_attempt_at IS NOT NULL
        ) o
    ) d, (
        SELECT count(*) AS fetches FROM runs WHERE state <> 'ended' AND state <> 'ingesting'
    ) r, (
        SELECT coalesce(greatest(extract(epoch FROM now() - min(next_due_at)), 0), 0)::float AS schedule_lag_seconds
        FROM schedules JOIN accounts a ON a.id = account_id AND a.deleted_at IS NULL
        WHERE next_due_at IS NOT NULL
    ) s, (
        SELECT coalesce(sum(stored_bytes), 0)::bigint AS stored_bytes FROM usage
    ) u
""")


def figures(connection: Connection) -> Figures:
    """The figures as they are now."""
    return Figures(**connection.execute(_ASK).one()._mapping)  # noqa: SLF001 -- SQLAlchemy's public name for it
