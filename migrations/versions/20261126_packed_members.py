"""Who is in a segment, packed; room on the pages of members, so that one who leaves is closed in place."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261126_packed_members"
down_revision = "20261125_moves"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "packed_members",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("segment_id", sa.Uuid(), nullable=False),
        sa.Column("first", sa.Uuid(), nullable=False),
        sa.Column("last", sa.Uuid(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "segment_id", "first", name=op.f("pk_packed_members")),
    )
    op.execute("ALTER TABLE packed_members ALTER content SET STORAGE EXTERNAL")  # hashes cannot be compressed
    op.execute("ALTER TABLE segment_members SET (fillfactor = 90)")


def downgrade() -> None:
    op.execute("ALTER TABLE segment_members RESET (fillfactor)")
    op.drop_table("packed_members")
