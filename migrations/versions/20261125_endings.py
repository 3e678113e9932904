"""The end of an account, which its audit trail outlives, and of audit entries, which the database lets go when old."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261125_endings"
down_revision = "20261125_connections"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("accounts", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_constraint("fk_audit_account_id", "audit", type_="foreignkey")
    op.execute("DROP TRIGGER append_only ON audit")
    op.execute("CREATE TRIGGER append_only BEFORE UPDATE OR TRUNCATE ON audit EXECUTE FUNCTION audit_refuses()")
    op.execute(
        "CREATE TRIGGER kept BEFORE DELETE ON audit FOR EACH ROW "
        "WHEN (OLD.created_at > now() - interval '400 days') EXECUTE FUNCTION audit_refuses()"
    )
    op.create_index("ix_ingestions_retry_of", "ingestions", ["retry_of"])
    op.create_index("ix_ingestions_rows_of", "ingestions", ["rows_of"])
    op.create_index("ix_manifests_file_id", "manifests", ["file_id"])


def downgrade() -> None:
    op.drop_index("ix_manifests_file_id", "manifests")
    op.drop_index("ix_ingestions_rows_of", "ingestions")
    op.drop_index("ix_ingestions_retry_of", "ingestions")
    op.execute("DROP TRIGGER kept ON audit")
    op.execute("DROP TRIGGER append_only ON audit")
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit EXECUTE FUNCTION audit_refuses()"
    )
    op.create_foreign_key("fk_audit_account_id", "audit", "accounts", ["account_id"], ["id"])
    op.drop_column("accounts", "deleted_at")
