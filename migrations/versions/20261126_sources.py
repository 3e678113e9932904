"""People of a data source and what changed there are written with one index, and no lock for each of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261126_sources"
down_revision = "20261126_packed_members"
branch_labels = None
depends_on = None

CHANGES = "data_source_changes"
TABLES = ("data_source_members", CHANGES)


def upgrade() -> None:
    for table in TABLES:
        op.drop_index(f"ix_{table}_account_id_profile_id", table)
    op.drop_constraint("fk_data_source_changes_ingestion_id", CHANGES)
    op.drop_constraint("pk_data_source_changes", CHANGES)
    op.create_primary_key("pk_data_source_changes", CHANGES, ["account_id", "ingestion_id", "profile_id"])
    op.drop_column("data_source_members", "seq")
    op.execute("ALTER TABLE data_source_members RESET (fillfactor)")


def downgrade() -> None:
    op.execute("ALTER TABLE data_source_members SET (fillfactor = 45)")
    op.add_column("data_source_members", sa.Column("seq", sa.BigInteger(), nullable=False, server_default="0"))
    op.alter_column("data_source_members", "seq", server_default=None)
    op.drop_constraint("pk_data_source_changes", CHANGES)
    op.create_primary_key("pk_data_source_changes", CHANGES, ["ingestion_id", "profile_id"])
    op.create_foreign_key("fk_data_source_changes_ingestion_id", CHANGES, "ingestions", ["ingestion_id"], ["id"])
    for table in TABLES:
        op.create_index(f"ix_{table}_account_id_profile_id", table, ["account_id", "profile_id"])
