"""The conditions of filter segments (D41), sealed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261125_conditions"
down_revision = "20261125_choices"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("segments", sa.Column("condition", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    op.drop_column("segments", "condition")
