"""Lists by time with a filter: the indexes that were missing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261125_filters"
down_revision = "20261125_data_sources"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_audit_account_id_action_id", "audit", ["account_id", "action", "id"])
    op.create_index("ix_audit_actor", "audit", ["account_id", sa.text("(actor ->> 'id')"), "id"])
    op.create_index("ix_deliveries_webhook_id_state_notice_id", "deliveries", ["webhook_id", "state", "notice_id"])
    op.create_index("ix_files_account_id_name_received_at_id", "files", ["account_id", "name", "received_at", "id"])
    op.drop_index("ix_files_account_id_name", "files")
    op.create_index(
        "ix_manifests_account_id_state_created_at_id", "manifests", ["account_id", "state", "created_at", "id"]
    )


def downgrade() -> None:
    op.drop_index("ix_manifests_account_id_state_created_at_id", "manifests")
    op.create_index("ix_files_account_id_name", "files", ["account_id", "name", "id"])
    op.drop_index("ix_files_account_id_name_received_at_id", "files")
    op.drop_index("ix_deliveries_webhook_id_state_notice_id", "deliveries")
    op.drop_index("ix_audit_actor", "audit")
    op.drop_index("ix_audit_account_id_action_id", "audit")
