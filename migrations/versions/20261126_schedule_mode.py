"""A schedule says whether its files are added or replace; until now only those of segments replaced."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261126_schedule_mode"
down_revision = "20261126_sources"
branch_labels = None
depends_on = None

TABLES = ("schedules", "runs")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("mode", sa.Text(), nullable=False, server_default="append"))
        rows = sa.table(table, sa.column("mode"), sa.column("owner_kind"))
        op.execute(sa.update(rows).where(rows.c.owner_kind == "segment").values(mode="replace"))
        op.alter_column(table, "mode", server_default=None)


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "mode")
