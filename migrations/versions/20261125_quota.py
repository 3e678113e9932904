"""What each account keeps, what its open uploads have reserved, and a quick count of its open ingestions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261125_quota"
down_revision = "20261122_main_job"
branch_labels = None
depends_on = None

OPEN = sa.text("status IN ('scheduled', 'in_progress')")


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_usage_account_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_usage")),
    )
    op.create_table(
        "reservations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("reserved_bytes", sa.BigInteger(), nullable=False),
        sa.Column("renewed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_reservations_account_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reservations")),
    )
    op.execute(
        "INSERT INTO usage SELECT account_id, sum(size_bytes) FROM files "
        "WHERE state NOT IN ('removed', 'expired') GROUP BY account_id"
    )
    op.drop_index("ix_ingestions_open", table_name="ingestions")
    op.create_index("ix_ingestions_open", "ingestions", ["account_id"], postgresql_where=OPEN)


def downgrade() -> None:
    op.drop_index("ix_ingestions_open", table_name="ingestions")
    op.create_index("ix_ingestions_open", "ingestions", ["status"], postgresql_where=OPEN)
    op.drop_table("reservations")
    op.drop_table("usage")
