"""Profiles keep a digest of the rows that last changed them, so that the same rows are known again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261126_digest"
down_revision = "20261126_event_properties"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("profiles", sa.Column("digest", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("profiles", "digest")
