"""Stored people who turned out to be one become one, before the rows that tied them are applied (D54).

The survivor keeps its id. Per attribute the later change wins, lists included; of the preferences, those of the profile
that was changed later. Identifiers are joined. The other profiles leave redirects, through which their identifiers and
events are found from then on.
"""

from __future__ import annotations

from typing import Any, Final

import polars as pl
from psycopg import Connection

from ingestd.domain.identity import SLICES
from ingestd.store.load.stage import Load, cursor, lock_slices, probe_only, uuids

AT_ONCE: Final = 2000
"""So many people are gone with one statement, and a few more: those who become one do so together."""

# An attribute that was deleted still stands in `origins`, so a later deletion wins too; on a tie the survivor's stays.
# Redirects never chain: what led to somebody who is gone leads to the survivor. Who was in a data source under an id
# that is gone is in it under the survivor's. Each who is gone is asked for by the key, source by source (OFFSET 0): the
# planner takes them for a few, and would go through all of them for each redirect and each member.
MERGE: Final = """
WITH one AS MATERIALIZED (
    SELECT account_id, survivor_id, array_agg(p) AS people,
        min(origin) FILTER (WHERE profile_id = survivor_id) AS origin
    FROM (
        SELECT %(account)s::uuid AS account_id, unnest(%(people)s::uuid[]) AS profile_id,
            unnest(%(survivors)s::uuid[]) AS survivor_id
    ) asked JOIN profiles p USING (account_id, profile_id)
    GROUP BY account_id, survivor_id
    HAVING count(*) > 1 AND bool_or(profile_id = survivor_id)
), merged AS (
    UPDATE profiles s SET
        attributes = newest.attributes::json, origins = newest.origins,
        preferences = (
            SELECT coalesce(
                jsonb_object_agg(key, value ORDER BY updated_at, profile_id = one.survivor_id, profile_id), '{}'
            )
            FROM unnest(one.people) p, json_each(p.preferences)
        )::json,
        identifiers = (
            SELECT jsonb_object_agg(kind, list) FROM (
                SELECT kind, jsonb_agg(value ORDER BY profile_id <> one.survivor_id, profile_id, place) AS list
                FROM (
                    SELECT DISTINCT ON (kind, value) kind, value, profile_id, place
                    FROM unnest(one.people) p, json_each(p.identifiers) AS held (kind, list),
                        jsonb_array_elements(list::jsonb) WITH ORDINALITY AS each (value, place)
                    ORDER BY kind, value, profile_id <> one.survivor_id, profile_id, place
                ) different GROUP BY kind
            ) kinds
        )::json,
        updated_at = %(now)s, digest = NULL
    FROM one, LATERAL (
        SELECT coalesce(jsonb_object_agg(name, value) FILTER (WHERE value IS NOT NULL), '{}') AS attributes,
            jsonb_object_agg(name, changed) FILTER (WHERE value IS NULL OR changed <> one.origin) AS origins
        FROM (
            SELECT DISTINCT ON (name) name, value, changed
            FROM unnest(one.people) p, LATERAL (
                SELECT key AS name, a.value, coalesce(o.value::bigint, p.origin) AS changed
                FROM json_each(p.attributes) a FULL JOIN jsonb_each(p.origins) o USING (key)
            ) each
            ORDER BY name, changed DESC, profile_id <> one.survivor_id, profile_id
        ) latest
    ) newest
    WHERE s.account_id = one.account_id AND s.profile_id = one.survivor_id
), gone AS (
    DELETE FROM profiles l USING one, unnest(one.people) p
    WHERE p.profile_id <> one.survivor_id AND l.account_id = p.account_id AND l.profile_id = p.profile_id
    RETURNING l.account_id, l.profile_id, one.survivor_id
), shortened AS (
    UPDATE profile_redirects r SET survivor_id = led.survivor_id
    FROM (
        SELECT place, gone.survivor_id FROM gone, LATERAL (
            SELECT ctid AS place FROM profile_redirects
            WHERE account_id = gone.account_id AND survivor_id = gone.profile_id OFFSET 0
        ) found OFFSET 0
    ) led
    WHERE r.ctid = led.place
), was_in AS (
    DELETE FROM data_source_members m
    USING (
        SELECT place, gone.survivor_id FROM gone, data_sources s, LATERAL (
            SELECT ctid AS place FROM data_source_members
            WHERE account_id = gone.account_id AND data_source_id = s.id AND profile_id = gone.profile_id OFFSET 0
        ) found
        WHERE s.account_id = %(account)s OFFSET 0
    ) g
    WHERE m.ctid = g.place
    RETURNING m.account_id, m.data_source_id, g.survivor_id
), is_in AS (
    INSERT INTO data_source_members (account_id, data_source_id, profile_id) SELECT * FROM was_in ON CONFLICT DO NOTHING
)
INSERT INTO profile_redirects (account_id, profile_id, survivor_id, origin)
SELECT account_id, profile_id, survivor_id, %(seq)s FROM gone
"""


def apply_merges(connection: Connection[Any], merges: pl.DataFrame, *, load: Load) -> int:
    """Merge each "loser" into its "survivor" in the caller's transaction; gives how many are gone.

    Who was erased meanwhile is left out, and where it was the survivor, all of them are left alone. Who merges holds
    all slices, and may write people afterwards.
    """
    if merges.is_empty():
        return 0
    survivors = merges.select("survivor", loser="survivor").unique()
    people = pl.concat([merges.select("survivor", "loser"), survivors]).sort("survivor")
    together = pl.row_index().first().over("survivor") // AT_ONCE
    merged = 0
    with cursor(connection) as cur:
        lock_slices(cur, load.account_id, range(SLICES))
        probe_only(cur)
        for some in people.with_columns(together.alias("at_once")).partition_by("at_once", maintain_order=True):
            asked = {"people": uuids(some["loser"]), "survivors": uuids(some["survivor"])}
            parameters = {"account": load.account_id, "seq": load.seq, "now": load.now}
            merged += cur.execute(MERGE, parameters | asked).rowcount
    return merged
