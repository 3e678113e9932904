"""The properties of events are kept as the text they came as, which takes less time and room than JSONB."""

from __future__ import annotations

from alembic import op

revision = "20261126_event_properties"
down_revision = "20261126_queues"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE events ALTER properties TYPE json")


def downgrade() -> None:
    op.execute("ALTER TABLE events ALTER properties TYPE jsonb")
