"""What a refresh changes is noted beside the packed members, which need not be packed anew."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261126_packed_changes"
down_revision = "20261126_source_changes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("packed_members", sa.Column("changes", sa.LargeBinary(), nullable=False, server_default=""))
    op.alter_column("packed_members", "changes", server_default=None)
    op.execute("ALTER TABLE packed_members ALTER changes SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.execute("DELETE FROM packed_members WHERE changes <> ''")  # they are read row by row then
    op.drop_column("packed_members", "changes")
