"""What an ingestion changed in its data source is told of a hundred people in one row."""

from __future__ import annotations

from alembic import op

revision = "20261126_source_changes"
down_revision = "20261126_digest"
branch_labels = None
depends_on = None

PACK = """
INSERT INTO data_source_changes (account_id, ingestion_id, move, last, people)
SELECT account_id, ingestion_id, move, people[cardinality(people)], people FROM (
    SELECT account_id, ingestion_id, move, array_agg(profile_id ORDER BY profile_id) AS people FROM (
        SELECT *, (row_number() OVER (PARTITION BY account_id, ingestion_id, move ORDER BY profile_id) - 1) / 100 AS n
        FROM before
    ) AS numbered
    GROUP BY account_id, ingestion_id, move, n
) AS packed
"""

UNPACK = """
INSERT INTO data_source_changes (account_id, ingestion_id, move, profile_id)
SELECT account_id, ingestion_id, move, unnest(people) FROM before
"""


def upgrade() -> None:
    _replace("move text NOT NULL, last uuid NOT NULL, people uuid[] NOT NULL", "move, last", PACK)


def downgrade() -> None:
    _replace("profile_id uuid NOT NULL, move text NOT NULL", "profile_id", UNPACK)


def _replace(columns: str, key: str, fill: str) -> None:
    op.execute("CREATE TEMP TABLE before ON COMMIT DROP AS SELECT * FROM data_source_changes")
    op.drop_table("data_source_changes")
    op.execute(f"""
        CREATE TABLE data_source_changes (
            account_id uuid NOT NULL, ingestion_id uuid NOT NULL, {columns},
            CONSTRAINT pk_data_source_changes PRIMARY KEY (account_id, ingestion_id, {key})
        )
    """)
    op.execute(fill)
