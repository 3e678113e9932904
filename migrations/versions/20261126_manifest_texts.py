"""The text of a manifest expires, as files do: it holds an address."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261126_manifest_texts"
down_revision = "20261126_members_number"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("manifests", "blob", nullable=True)
    op.create_index(
        "ix_manifests_created_at",
        "manifests",
        ["created_at"],
        postgresql_where=sa.text("blob IS NOT NULL AND state IN ('accepted', 'refused')"),
    )


def downgrade() -> None:
    op.drop_index("ix_manifests_created_at", "manifests")
    op.execute("UPDATE manifests SET blob = '' WHERE blob IS NULL")
    op.alter_column("manifests", "blob", nullable=False)
