"""Who is told that a file is picked up is told that one for a data source is scheduled, too."""

from __future__ import annotations

from alembic import op

revision = "20261127_scheduled_mails"
down_revision = "20261127_manifest_name"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("UPDATE recipients SET milestones = '[\"scheduled\"]' || milestones WHERE milestones ? 'picked_up'")


def downgrade() -> None:
    op.execute("UPDATE recipients SET milestones = milestones - 'scheduled'")
