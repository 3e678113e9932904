"""Manifests that wait for their data file (D17)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261125_grace"
down_revision = "20261125_conditions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("manifests", sa.Column("waits_for", sa.Text(), nullable=True))
    jsonb = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
    op.add_column("manifests", sa.Column("brought_by", jsonb, nullable=True))
    waiting = sa.text("state = 'waiting'")
    op.create_index("ix_manifests_waiting", "manifests", ["created_at"], postgresql_where=waiting)


def downgrade() -> None:
    op.drop_index("ix_manifests_waiting", table_name="manifests")
    op.drop_column("manifests", "brought_by")
    op.drop_column("manifests", "waits_for")
