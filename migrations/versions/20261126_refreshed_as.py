"""A segment knows by which upload type it was refreshed last: after another is set it waits for a refresh (S44)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261126_refreshed_as"
down_revision = "20261126_manifest_texts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("segments", sa.Column("refreshed_as", sa.Text(), nullable=True))
    rows = sa.table("segments", *map(sa.column, ("refreshed_as", "upload_type", "refreshed_at", "status")))
    known = rows.c.refreshed_at.is_not(None) & (rows.c.status != "in_progress")
    op.execute(sa.update(rows).where(known).values(refreshed_as=rows.c.upload_type))


def downgrade() -> None:
    op.drop_column("segments", "refreshed_as")
