"""Room in the key of members: a refresh adds people everywhere in it, and pages that are full are split in two."""

from __future__ import annotations

from alembic import op

revision = "20261126_members_key"
down_revision = "20261126_packed_changes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER INDEX pk_segment_members SET (fillfactor = 75)")


def downgrade() -> None:
    op.execute("ALTER INDEX pk_segment_members RESET (fillfactor)")
