"""Stored people who turned out to be one become one, after the parts of the ingestion that tied them (D54).

The survivor keeps its id. Per attribute the later change wins, lists included; of the preferences, those of the profile
that was changed later. Identifiers are joined. The other profile leaves a redirect, through which its identifiers and
events are found from then on.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import polars as pl
from psycopg import Connection

from ingestd.store.load.stage import Cursors, Load, cursor, lock_slices, slices

# An attribute that was deleted still stands in `origins`, so a later deletion wins too; on a tie the survivor's stays.
MERGE: Final = """
WITH pair AS (
    SELECT s.profile_id, l.preferences, l.identifiers, l.updated_at, taken.*
    FROM profiles s, profiles l, LATERAL (
        SELECT coalesce(jsonb_object_agg(key, l.attributes -> key) FILTER (WHERE l.attributes ? key), '{}') AS assigned,
            coalesce(array_agg(key) FILTER (WHERE NOT l.attributes ? key), '{}') AS deleted,
            coalesce(jsonb_object_agg(key, coalesce((l.origins -> key)::bigint, l.origin)), '{}') AS origins
        FROM jsonb_object_keys(l.attributes || coalesce(l.origins, '{}')) AS key
        WHERE NOT s.attributes || coalesce(s.origins, '{}') ? key
            OR coalesce((l.origins -> key)::bigint, l.origin) > coalesce((s.origins -> key)::bigint, s.origin)
    ) taken
    WHERE s.account_id = %(account)s AND s.profile_id = %(survivor)s
        AND l.account_id = %(account)s AND l.profile_id = %(loser)s
), merged AS (
    UPDATE profiles s SET
        attributes = (s.attributes || pair.assigned) - pair.deleted,
        origins = CASE WHEN pair.origins = '{}' THEN s.origins ELSE coalesce(s.origins, '{}') || pair.origins END,
        preferences = CASE WHEN pair.updated_at > s.updated_at
            THEN s.preferences || pair.preferences ELSE pair.preferences || s.preferences END,
        identifiers = s.identifiers || (
            SELECT coalesce(jsonb_object_agg(key, list_edit(s.identifiers -> key, NULL, value)), '{}')
            FROM jsonb_each(pair.identifiers)
        ),
        updated_at = %(now)s, digest = NULL
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

    A pair of which one was erased meanwhile is left alone.
    """
    if merges.is_empty():
        return 0
    with cursor(connection) as cur:
        lock_slices(cur, load.account_id, slices(pl.concat([merges["loser"], merges["survivor"]])))
        return sum(_merge(cur, UUID(int=loser), UUID(int=survivor), load) for loser, survivor in merges.iter_rows())


def _merge(cur: Cursors, loser: UUID, survivor: UUID, load: Load) -> int:
    pair = {"loser": loser, "survivor": survivor, "account": load.account_id, "seq": load.seq, "now": load.now}
    merged = cur.execute(MERGE, pair).rowcount
    if merged:
        cur.execute(SHORTEN, pair)
        cur.execute(REMEMBER, pair)
    return merged
