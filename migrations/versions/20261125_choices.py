"""Webhooks chosen for segments and for data sources."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261125_choices"
down_revision = "20261125_sealing"
branch_labels = None
depends_on = None

TABLES = ("segments", "data_sources")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("webhook_ids", sa.ARRAY(sa.Uuid()), server_default="{}", nullable=False))


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "webhook_ids")
