"""Indexes for what expires, and for finding the row that names a blob."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261125_retention"
down_revision = "20261125_conventions"
branch_labels = None
depends_on = None

LIVE = sa.text("state IN ('available', 'consumed', 'superseded')")


def upgrade() -> None:
    op.create_index("ix_files_blob", "files", ["blob"], postgresql_where=LIVE)
    op.create_index("ix_files_received_at", "files", ["received_at"], postgresql_where=LIVE)
    op.create_index("ix_manifests_blob", "manifests", ["blob"])
    op.create_index(
        "ix_ingestions_error_files", "ingestions", ["finished_at"], postgresql_where=sa.text("error_blob IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_index("ix_ingestions_error_files", table_name="ingestions")
    op.drop_index("ix_manifests_blob", table_name="manifests")
    op.drop_index("ix_files_received_at", table_name="files")
    op.drop_index("ix_files_blob", table_name="files")
