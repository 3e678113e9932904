"""What an ingestion changed in its data source has an index less, and its members are updated on their pages."""

from __future__ import annotations

from alembic import op

revision = "20261125_moves"
down_revision = "20261125_restricted_events"
branch_labels = None
depends_on = None

PRIMARY = "pk_data_source_changes"


def upgrade() -> None:
    op.drop_constraint(PRIMARY, "data_source_changes")
    op.create_primary_key(PRIMARY, "data_source_changes", ["ingestion_id", "profile_id"])
    op.drop_index("ix_data_source_changes_ingestion_id", "data_source_changes")
    op.execute("ALTER TABLE data_source_members SET (fillfactor = 45)")


def downgrade() -> None:
    op.execute("ALTER TABLE data_source_members RESET (fillfactor)")
    op.create_index("ix_data_source_changes_ingestion_id", "data_source_changes", ["ingestion_id"])
    op.drop_constraint(PRIMARY, "data_source_changes")
    op.create_primary_key(PRIMARY, "data_source_changes", ["account_id", "ingestion_id", "profile_id"])
