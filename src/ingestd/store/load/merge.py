"""Stored people who turned out to be one become one, before the rows that tied them are applied (D54).

The survivor keeps its id. Per attribute the later change wins, lists included; of the preferences, those of the profile
that was changed later. Identifiers are joined. The other profile leaves a redirect, through which its identifiers and
events are found from then on.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import polars as pl
from psycopg import Connection

from ingestd.domain.identity import SLICES
from ingestd.store.load.stage import Cursors, Load, cursor, lock_slices

# An attribute that was deleted still stands in `origins`, so a later deletion wins too; on a tie the survivor's stays.
MERGE: Final = """
WITH person AS (
    SELECT profile_id, attributes::jsonb, preferences::jsonb, identifiers::jsonb, origin, origins, updated_at
    FROM profiles WHERE account_id = %(account)s AND profile_id IN (%(survivor)s, %(loser)s)
), pair AS (
    SELECT s.profile_id, (s.attributes || taken.assigned) - taken.deleted AS attributes,
        CASE WHEN taken.origins = '{}' THEN s.origins ELSE coalesce(s.origins, '{}') || taken.origins END AS origins,
        CASE WHEN l.updated_at > s.updated_at
            THEN s.preferences || l.preferences ELSE l.preferences || s.preferences END AS preferences,
        s.identifiers || (
            SELECT coalesce(jsonb_object_agg(key, list_edit(s.identifiers -> key, NULL, value)), '{}')
            FROM jsonb_each(l.identifiers)
        ) AS identifiers
    FROM person s, person l, LATERAL (
        SELECT coalesce(jsonb_object_agg(key, l.attributes -> key) FILTER (WHERE l.attributes ? key), '{}') AS assigned,
            coalesce(array_agg(key) FILTER (WHERE NOT l.attributes ? key), '{}') AS deleted,
            coalesce(jsonb_object_agg(key, coalesce((l.origins -> key)::bigint, l.origin)), '{}') AS origins
        FROM jsonb_object_keys(l.attributes || coalesce(l.origins, '{}')) AS key
        WHERE NOT s.attributes || coalesce(s.origins, '{}') ? key
            OR coalesce((l.origins -> key)::bigint, l.origin) > coalesce((s.origins -> key)::bigint, s.origin)
    ) taken
    WHERE s.profile_id = %(survivor)s AND l.profile_id = %(loser)s
), merged AS (
    UPDATE profiles s SET
        attributes = pair.attributes::json, origins = pair.origins, preferences = pair.preferences::json,
        identifiers = pair.identifiers::json, updated_at = %(now)s, digest = NULL
    FROM pair WHERE s.account_id = %(account)s AND s.profile_id = pair.profile_id
    RETURNING s.profile_id
), gone AS (
    DELETE FROM profiles l USING merged WHERE l.account_id = %(account)s AND l.profile_id = %(loser)s
    RETURNING l.profile_id
)
INSERT INTO profile_redirects (account_id, profile_id, survivor_id, origin)
SELECT %(account)s, gone.profile_id, %(survivor)s, %(seq)s FROM gone
"""

# Redirects never chain: what led to the loser leads to the survivor.
SHORTEN: Final = """
UPDATE profile_redirects SET survivor_id = %(survivor)s WHERE account_id = %(account)s AND survivor_id = %(loser)s
"""

# Who was in a data source under the loser's id is in it under the survivor's.
REMEMBER: Final = """
WITH gone AS (
    DELETE FROM data_source_members m USING data_sources s
    WHERE s.account_id = %(account)s AND m.account_id = s.account_id AND m.data_source_id = s.id
        AND m.profile_id = %(loser)s
    RETURNING m.data_source_id
)
INSERT INTO data_source_members (account_id, data_source_id, profile_id)
SELECT %(account)s, data_source_id, %(survivor)s FROM gone
ON CONFLICT DO NOTHING
"""


def apply_merges(connection: Connection[Any], merges: pl.DataFrame, *, load: Load) -> int:
    """Merge "loser" into "survivor", pair by pair, in the caller's transaction; gives how many.

    A pair of which one was erased meanwhile is left alone. Who merges holds all slices, and may write people
    afterwards.
    """
    if merges.is_empty():
        return 0
    with cursor(connection) as cur:
        lock_slices(cur, load.account_id, range(SLICES))
        return sum(_merge(cur, UUID(int=loser), UUID(int=survivor), load) for loser, survivor in merges.iter_rows())


def _merge(cur: Cursors, loser: UUID, survivor: UUID, load: Load) -> int:
    pair = {"loser": loser, "survivor": survivor, "account": load.account_id, "seq": load.seq, "now": load.now}
    merged = cur.execute(MERGE, pair).rowcount
    if merged:
        cur.execute(SHORTEN, pair)
        cur.execute(REMEMBER, pair)
    return merged
