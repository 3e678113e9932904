"""Uploads for data sources: what a dry run found, and why an ingestion waits for a confirmation (D16)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261125_uploads"
down_revision = "20261125_references"
branch_labels = None
depends_on = None

JSONB = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())


def upgrade() -> None:
    op.add_column("ingestions", sa.Column("rehearsal", JSONB, nullable=True))
    op.add_column("ingestions", sa.Column("held", JSONB, nullable=True))


def downgrade() -> None:
    for column in ("held", "rehearsal"):
        op.drop_column("ingestions", column)
