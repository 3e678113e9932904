"""Lists are edited by the service alone: the function that merges of people had is not needed any more."""

from __future__ import annotations

from alembic import op

revision = "20261127_list_edit"
down_revision = "20261127_documents"
branch_labels = None
depends_on = None

LIST_EDIT = """
CREATE FUNCTION list_edit(stored jsonb, removes jsonb, adds jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
-- The stored value, taken as a list, without `removes` and then with those of `adds` that are not in it, at the end.
-- A scalar is a list of one; a value that ends where it began comes back as it was, null included.
DECLARE
    list jsonb := CASE coalesce(jsonb_typeof(stored), 'null')
        WHEN 'array' THEN stored
        WHEN 'null' THEN '[]'
        ELSE jsonb_build_array(stored)
    END;
    edited jsonb;
BEGIN
    IF removes IS NULL AND (adds IS NULL OR list @> adds) THEN
        RETURN stored;
    ELSIF removes IS NULL AND jsonb_array_length(adds) = 1 THEN
        RETURN list || adds;
    ELSIF adds IS NULL AND jsonb_array_length(removes) = 1 AND NOT list @> removes THEN
        RETURN stored;
    END IF;
    SELECT coalesce(jsonb_agg(value ORDER BY added, place), '[]') INTO edited FROM (
        SELECT false AS added, value, place FROM jsonb_array_elements(list) WITH ORDINALITY AS l (value, place)
        WHERE NOT coalesce(removes, '[]') @> jsonb_build_array(value)
        UNION ALL
        SELECT true, value, place FROM jsonb_array_elements(coalesce(adds, '[]')) WITH ORDINALITY AS a (value, place)
        WHERE coalesce(removes, '[]') @> jsonb_build_array(value) OR NOT list @> jsonb_build_array(value)
    ) AS parts;
    RETURN CASE WHEN edited = list THEN stored ELSE edited END;
END $$
"""


def upgrade() -> None:
    op.execute("DROP FUNCTION IF EXISTS list_edit(jsonb, jsonb, jsonb)")


def downgrade() -> None:
    op.execute(LIST_EDIT)
