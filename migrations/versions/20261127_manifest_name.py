"""An ingestion of a manifest whose name had been used before knows that name."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261127_manifest_name"
down_revision = "20261127_behind"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ingestions", sa.Column("manifest_name", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("ingestions", "manifest_name")
