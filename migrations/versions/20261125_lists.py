"""Lists of files, manifests and ingestions by time, each filter with an index of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261125_lists"
down_revision = "20261125_retention"
branch_labels = None
depends_on = None

_UPLOADER = sa.text("(uploaded_by ->> 'id')")


def upgrade() -> None:
    op.create_index("ix_files_account_id_received_at_id", "files", ["account_id", "received_at", "id"])
    op.create_index("ix_files_account_id_state_received_at_id", "files", ["account_id", "state", "received_at", "id"])
    op.create_index("ix_manifests_account_id_created_at_id", "manifests", ["account_id", "created_at", "id"])
    for column in ("channel", "target"):
        name = f"ix_ingestions_account_id_{column}_created_at_id"
        op.create_index(name, "ingestions", ["account_id", column, "created_at", "id"])
    op.create_index("ix_ingestions_uploader", "ingestions", ["account_id", _UPLOADER, "created_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_ingestions_uploader", "ingestions")
    for column in ("target", "channel"):
        op.drop_index(f"ix_ingestions_account_id_{column}_created_at_id", "ingestions")
    op.drop_index("ix_manifests_account_id_created_at_id", "manifests")
    op.drop_index("ix_files_account_id_state_received_at_id", "files")
    op.drop_index("ix_files_account_id_received_at_id", "files")
