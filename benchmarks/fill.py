"""A database as an account has it after years, made by the database itself: for what only its size would slow down."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
from psycopg import sql

_PROFILES: Final = """
    INSERT INTO profiles (account_id, profile_id, attributes, preferences, identifiers, origin, last_ts,
                          created_at, updated_at)
    SELECT %(account)s, profile_id, jsonb_build_object('name', 'Name ' || n %% 5000, 'city', 'City ' || n %% 900),
           '{"email": true}', jsonb_build_object('identity', jsonb_build_array('person-' || n)),
           1 + n %% %(ingestions)s, 1700000000 + n, now(), now()
    FROM (SELECT n, (lpad(to_hex(n * (4294967296 / (1 + %(profiles)s))), 8, '0') || substr(md5(n::text), 9))::uuid
          FROM generate_series(1, %(profiles)s::bigint) AS n) AS people (n, profile_id)
"""
"""Ids in their order, evenly spread, so that no page of an index is split."""

# A UUIDv7 of the moment, so that the order of ids is that of time; minutes apart, the last one just now.
_TIMED: Final = """
    CREATE FUNCTION pg_temp.timed(at timestamptz, n bigint, kind int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
        SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(kind), 3, '0')
                || '8' || lpad(to_hex(n), 15, '0'))::uuid
    $$
"""
_MOMENTS: Final = """
    CREATE TEMP TABLE moments AS
    SELECT n, at, pg_temp.timed(at, n, 1) AS file, pg_temp.timed(at, n, 2) AS manifest,
           pg_temp.timed(at, n, 3) AS ingestion, pg_temp.timed(at, n, 4) AS notice, pg_temp.timed(at, n, 5) AS entry,
           CASE WHEN n %% 2 = 0 THEN 'profiles.csv' WHEN n %% 5 = 0 THEN 'events_' || n %% 1000 || '.csv'
                ELSE 'day_' || n || '.csv' END AS name,
           jsonb_build_object('type', 'import_key', 'id', 'ikey_' || lpad(CASE WHEN n %% 5000 = 0 THEN 'rare'
                ELSE (n %% 20)::text END, 26, '0'), 'name', 'warehouse') AS uploaded_by
    FROM (SELECT n, now() - (%(ingestions)s - n) * interval '1 minute'
          FROM generate_series(1, %(ingestions)s::bigint) AS n) AS series (n, at)
"""
_FILES: Final = """
    INSERT INTO files (id, account_id, name, size_bytes, sha256, blob, state, uploaded_by, received_at)
    SELECT file, %(account)s, name, 1000 + n, repeat(md5(n::text), 2), 'files/' || md5(n::text),
           CASE WHEN n %% 10000 = 0 THEN 'superseded' ELSE 'expired' END, uploaded_by, at FROM moments
"""
_MANIFESTS: Final = """
    INSERT INTO manifests (id, account_id, name, size_bytes, sha256, blob, state, problems, file_id, created_at)
    SELECT manifest, %(account)s, 'day_' || n || '.manifest', 700, repeat(md5(n::text), 2), 'files/m' || md5(n::text),
           CASE WHEN n %% 10000 = 0 THEN 'draft' WHEN n %% 100 = 0 THEN 'refused' ELSE 'accepted' END, '[]', file, at
    FROM moments WHERE n %% 5 > 0
"""
_INGESTIONS: Final = """
    INSERT INTO ingestions (id, account_id, seq, channel, target, mode, dry_run, plan, file_id, file_name, manifest_id,
        uploaded_by, recipients, status, stage, fence, attempts, progress, counts, checked, warnings, created_at,
        started_at, finished_at)
    SELECT ingestion, %(account)s, n,
           CASE WHEN n %% 2000 = 0 THEN 'schedule' WHEN n %% 5 = 0 THEN 'upload' ELSE 'sftp' END,
           CASE WHEN n %% 3000 = 0 THEN 'segment' WHEN n %% 3 = 0 THEN 'events' ELSE 'profiles' END, 'append',
           false, jsonb_build_object('columns', repeat('x', 400)), file, name, CASE WHEN n %% 5 > 0 THEN manifest END,
           uploaded_by, '[]',
           CASE WHEN n %% 7000 = 0 THEN 'cancelled' WHEN n %% 50 = 0 THEN 'failed' ELSE 'completed' END, 'done', 1, 0,
           '{"percent": 100, "bytes_read": 0, "rows_read": 0, "rows_per_second": 0, "eta_seconds": null}',
           '{"read": 9, "accepted": 9, "rejected": 0, "blank": 0, "erased": 0, "created": 9, "updated": 0,
             "unchanged": 0, "merged": 0}', '{}', '[]', at, at, at
    FROM moments
"""
_EVENTS: Final = """
    INSERT INTO events (account_id, received_at, event_id, profile_id, name, ts, properties, origin)
    SELECT %(account)s, at, md5(n::text)::uuid, CASE WHEN n %% 100 = 0 THEN %(person)s ELSE md5(n::text)::uuid END,
           'purchase', 1700000000 + n, '{"amount": 12.5}', n
    FROM moments
"""
_WEBHOOK: Final = """
    INSERT INTO webhooks (id, account_id, name, url, secret, enabled, disabled_reason, created_at, updated_at)
    VALUES (%(webhook)s, %(account)s, 'busy', 'https://example.org/hook', '', false, 'by_account', now(), now())
"""
_NOTICES: Final = """
    INSERT INTO notices (id, account_id, type, subject_id, data, created_at)
    SELECT notice, %(account)s, 'ingestion.completed', ingestion, '{"id": "ing_"}', at FROM moments
"""
_DELIVERIES: Final = """
    INSERT INTO deliveries (account_id, webhook_id, notice_id, state, failures, attempts, created_at)
    SELECT %(account)s, %(webhook)s, notice, CASE WHEN n %% 10000 = 0 THEN 'dead' ELSE 'delivered' END, 0, '[]', at
    FROM moments
"""
_AUDIT: Final = """
    INSERT INTO audit (id, account_id, actor, action, target, after, created_at)
    SELECT entry, %(account)s, uploaded_by || '{"type": "api_key"}',
           CASE WHEN n %% 10000 = 0 THEN 'webhook.changed' ELSE 'ingestion.created' END, 'ing_' || n, '{}', at
    FROM moments
"""

_TABLES: Final = (_TIMED, _MOMENTS, _FILES, _MANIFESTS, _INGESTIONS, _EVENTS, _WEBHOOK, _NOTICES, _DELIVERIES, _AUDIT)
_FILLED: Final = ("files", "manifests", "ingestions", "events", "notices", "deliveries", "audit", "profiles")


@dataclass(frozen=True, slots=True)
class Known:
    """What can be asked for: a webhook of every notice, a person of every hundredth event."""

    webhook: UUID
    person: UUID


def fill(url: str, account: UUID, *, ingestions: int, profiles: int) -> Known:
    """Give an account so many ingestions, each with a file, an event, a delivery and an audit entry, and profiles."""
    known = Known(UUID(int=7), UUID(int=9))
    values = {"account": account, "ingestions": ingestions, "profiles": profiles}
    values |= {"webhook": known.webhook, "person": known.person}
    with ThreadPoolExecutor() as side_by_side:
        list(side_by_side.map(lambda statements: _run(url, statements, values), ([_PROFILES], _TABLES)))
    _run(url, [sql.SQL("VACUUM ANALYZE {}").format(sql.Identifier(table)) for table in _FILLED], {})
    return known


def fill_profiles(url: str, account: UUID, count: int) -> None:
    """Give an account so many profiles and nothing else."""
    _run(url, [_PROFILES], {"account": account, "profiles": count, "ingestions": 1})
    _run(url, ["VACUUM ANALYZE profiles"], {})


def _run(url: str, statements: Sequence[LiteralString | sql.Composed], values: dict[str, Any]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement, values)


def sequential_reads(url: str) -> dict[str, int]:
    """How many rows of each filled table were read without an index until now."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT relname, sum(seq_tup_read)::bigint FROM pg_stat_user_tables"
            " WHERE relname ~ ('^(' || array_to_string(%s::text[], '|') || ')($|_p_)') GROUP BY 1",
            (list(_FILLED),),
        )
        return dict(found.fetchall())
