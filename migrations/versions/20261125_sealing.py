"""When the values of a personal attribute were all sealed, and how far a rotation of an account's data keys is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261125_sealing"
down_revision = "20261125_uploads"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attributes", sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("accounts", sa.Column("rotation", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("accounts", "rotation")
    op.drop_column("attributes", "sealed_at")
