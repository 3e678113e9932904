"""The name of an ingestion's file beside it: the log is filtered by it, and every file may have the same."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261125_file_name"
down_revision = "20261125_endings"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ingestions", sa.Column("file_name", sa.Text(), nullable=True))
    op.execute("UPDATE ingestions SET file_name = files.name FROM files WHERE files.id = ingestions.file_id")
    op.create_index(
        "ix_ingestions_account_id_file_name_created_at_id",
        "ingestions",
        ["account_id", "file_name", "created_at", "id"],
    )


def downgrade() -> None:
    op.drop_index("ix_ingestions_account_id_file_name_created_at_id", "ingestions")
    op.drop_column("ingestions", "file_name")
