"""Names of events that an account's files may not write (D36)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261125_restricted_events"
down_revision = "20261125_grace"
branch_labels = None
depends_on = None


def upgrade() -> None:
    jsonb = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
    op.add_column("accounts", sa.Column("restricted_events", jsonb, server_default="[]", nullable=False))


def downgrade() -> None:
    op.drop_column("accounts", "restricted_events")
