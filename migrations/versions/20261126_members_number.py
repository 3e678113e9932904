"""Members know their segment by a short number: less to read, to compare and to log, in rows and in their key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261126_members_number"
down_revision = "20261126_members_key"
branch_labels = None
depends_on = None

KEY = "ALTER TABLE segment_members ADD CONSTRAINT pk_segment_members PRIMARY KEY ({}) WITH (fillfactor = 75)"


def upgrade() -> None:
    op.add_column("segments", sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False))
    op.create_unique_constraint(op.f("uq_segments_number"), "segments", ["number"])
    op.rename_table("segment_members", "old_members")
    op.create_table(
        "segment_members",
        sa.Column("segment", sa.BigInteger(), nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True),
        sa.Column("hash", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("partition", sa.SmallInteger(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
    )
    op.execute("ALTER TABLE segment_members SET (fillfactor = 90)")
    op.execute("""
        INSERT INTO segment_members (segment, valid_from, valid_to, hash, kind, partition, value)
        SELECT s.number, m.valid_from, m.valid_to, m.hash, m.kind, m.partition, m.value
        FROM old_members m JOIN segments s ON s.id = m.segment_id ORDER BY s.number, m.hash, m.valid_from
    """)
    op.drop_table("old_members")
    op.execute(KEY.format("segment, hash, valid_from"))


def downgrade() -> None:
    op.rename_table("segment_members", "new_members")
    op.create_table(
        "segment_members",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("segment_id", sa.Uuid(), nullable=False),
        sa.Column("hash", sa.Uuid(), nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("partition", sa.SmallInteger(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
    )
    op.execute("ALTER TABLE segment_members SET (fillfactor = 90)")
    op.execute("""
        INSERT INTO segment_members (account_id, segment_id, hash, valid_from, valid_to, kind, partition, value)
        SELECT s.account_id, s.id, m.hash, m.valid_from, m.valid_to, m.kind, m.partition, m.value
        FROM new_members m JOIN segments s ON s.number = m.segment ORDER BY s.number, m.hash, m.valid_from
    """)
    op.drop_table("new_members")
    op.execute(KEY.format("account_id, segment_id, hash, valid_from"))
    op.drop_column("segments", "number")
