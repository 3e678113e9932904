"""Retries: which ingestion is tried again, and whose rejected rows are read; questions the activity log is asked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261125_retries"
down_revision = "20261125_quota"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ingestions", sa.Column("retry_of", sa.Uuid(), nullable=True))
    op.add_column("ingestions", sa.Column("rows_of", sa.Uuid(), nullable=True))
    for column in ("retry_of", "rows_of"):
        op.create_foreign_key(op.f(f"fk_ingestions_{column}"), "ingestions", "ingestions", [column], ["id"])
    op.drop_index("ix_ingestions_account_id_id", "ingestions")
    op.create_index("ix_ingestions_account_id_created_at_id", "ingestions", ["account_id", "created_at", "id"])
    op.create_index(
        "ix_ingestions_account_id_status_created_at_id", "ingestions", ["account_id", "status", "created_at", "id"]
    )
    op.create_index("ix_ingestions_file_id", "ingestions", ["file_id"])
    op.create_index("ix_ingestions_manifest_id", "ingestions", ["manifest_id"])


def downgrade() -> None:
    for name in ("manifest_id", "file_id", "account_id_status_created_at_id", "account_id_created_at_id"):
        op.drop_index(f"ix_ingestions_{name}", "ingestions")
    op.create_index("ix_ingestions_account_id_id", "ingestions", ["account_id", "id"])
    for column in ("rows_of", "retry_of"):
        op.drop_constraint(op.f(f"fk_ingestions_{column}"), "ingestions")
        op.drop_column("ingestions", column)
