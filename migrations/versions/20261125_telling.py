"""Messages by e-mail; who is told of what a file becomes; headers of webhooks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261125_telling"
down_revision = "20261125_segments"
branch_labels = None
depends_on = None

OPEN = sa.text("next_attempt_at IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "messages",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("notice_id", sa.Uuid(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("blob", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("attempts", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(state IN ('pending', 'sending')) = (next_attempt_at IS NOT NULL)", name=op.f("ck_messages_open")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_messages_account_id")),
        sa.ForeignKeyConstraint(["notice_id"], ["notices.id"], name=op.f("fk_messages_notice_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
        sa.UniqueConstraint("notice_id", "address", name=op.f("uq_messages_notice_id_address")),
    )
    op.create_index("ix_messages_account_id_notice_id_id", "messages", ["account_id", "notice_id", "id"])
    op.create_index("ix_messages_due", "messages", ["account_id", "next_attempt_at"], postgresql_where=OPEN)
    op.create_index("ix_messages_next", "messages", ["next_attempt_at"], postgresql_where=OPEN)
    op.create_index("ix_messages_blob", "messages", ["created_at"], postgresql_where=sa.text("blob IS NOT NULL"))
    op.create_index("ix_notices_account_id_id", "notices", ["account_id", "id"])
    op.add_column("accounts", sa.Column("confirm_recipients", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("recipients", sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE recipients SET confirmed_at = created_at, milestones = milestones || '[\"attention\"]'")
    for table in ("import_keys", "ingestions"):
        op.add_column(table, sa.Column("webhook_ids", sa.ARRAY(sa.Uuid()), server_default="{}", nullable=False))
    op.add_column("ingestions", sa.Column("delays", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column(
        "webhooks",
        sa.Column(
            "headers",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
        ),
    )


def downgrade() -> None:
    op.drop_column("webhooks", "headers")
    op.drop_column("ingestions", "delays")
    for table in ("ingestions", "import_keys"):
        op.drop_column(table, "webhook_ids")
    op.execute("UPDATE recipients SET milestones = milestones - 'attention'")
    op.drop_column("recipients", "confirmed_at")
    op.drop_column("accounts", "confirm_recipients")
    op.drop_index("ix_notices_account_id_id", table_name="notices")
    op.drop_table("messages")
