"""What is due is found queue by queue; no index of all times, with which that was planned as a look through all."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261126_queues"
down_revision = "20261126_schedule_mode"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_deliveries_next", table_name="deliveries")
    op.drop_index("ix_messages_next", table_name="messages")
    op.create_index("ix_messages_sending", "messages", ["account_id"], postgresql_where=sa.text("state = 'sending'"))


def downgrade() -> None:
    op.drop_index("ix_messages_sending", table_name="messages")
    for table in ("messages", "deliveries"):
        op.create_index(
            f"ix_{table}_next", table, ["next_attempt_at"], postgresql_where=sa.text("next_attempt_at IS NOT NULL")
        )
