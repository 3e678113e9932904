"""An index for each reference that has none: without it, a row that goes makes the database read the whole table."""

from __future__ import annotations

from alembic import op

revision = "20261125_references"
down_revision = "20261125_file_name"
branch_labels = None
depends_on = None

REFERENCES = (
    ("data_source_changes", "ingestion_id"),
    ("ingestions", "segment_id"),
    ("segment_snapshots", "ingestion_id"),
    ("segment_snapshots", "segment_id"),
)


def upgrade() -> None:
    for table, column in REFERENCES:
        op.create_index(f"ix_{table}_{column}", table, [column])


def downgrade() -> None:
    for table, column in reversed(REFERENCES):
        op.drop_index(f"ix_{table}_{column}", table)
