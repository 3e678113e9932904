"""Segments, their partitions, members and snapshots."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261125_segments"
down_revision = "20261125_filters"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "segments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("upload_type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("draft", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("members", sa.BigInteger(), nullable=False),
        sa.Column("refreshed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("data_as_of", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_segments_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_segments")),
    )
    there = sa.text("deleted_at IS NULL")
    op.create_index("uq_segments_name", "segments", ["account_id", "name"], unique=True, postgresql_where=there)
    op.create_index("ix_segments_account_id_id", "segments", ["account_id", "id"], postgresql_where=there)
    op.create_table(
        "partitions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("segment_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.SmallInteger(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("members", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_partitions_account_id")),
        sa.ForeignKeyConstraint(["segment_id"], ["segments.id"], name=op.f("fk_partitions_segment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_partitions")),
        sa.UniqueConstraint("segment_id", "number", name="uq_partitions_number"),
    )
    kept = sa.text("removed_at IS NULL")
    for name in ("value", "name"):
        op.create_index(f"uq_partitions_{name}", "partitions", ["segment_id", name], unique=True, postgresql_where=kept)
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
        sa.PrimaryKeyConstraint("account_id", "segment_id", "hash", "valid_from", name=op.f("pk_segment_members")),
    )
    op.add_column("ingestions", sa.Column("segment_id", sa.Uuid(), nullable=True))
    op.create_foreign_key("fk_ingestions_segment_id", "ingestions", "segments", ["segment_id"], ["id"])
    op.create_index(
        "ix_ingestions_account_id_segment_id_created_at_id",
        "ingestions",
        ["account_id", "segment_id", "created_at", "id"],
    )
    op.create_table(
        "segment_snapshots",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("segment_id", sa.Uuid(), nullable=False),
        sa.Column("ingestion_id", sa.Uuid(), nullable=True),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("members", sa.BigInteger(), nullable=False),
        sa.Column("entered", sa.BigInteger(), nullable=False),
        sa.Column("left", sa.BigInteger(), nullable=False),
        sa.Column("moved", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_segment_snapshots_account_id")),
        sa.ForeignKeyConstraint(["segment_id"], ["segments.id"], name=op.f("fk_segment_snapshots_segment_id")),
        sa.ForeignKeyConstraint(["ingestion_id"], ["ingestions.id"], name=op.f("fk_segment_snapshots_ingestion_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_segment_snapshots")),
    )
    op.create_index(
        "ix_segment_snapshots_segment_id_taken_at",
        "segment_snapshots",
        ["account_id", "segment_id", "taken_at", "id"],
    )


def downgrade() -> None:
    op.drop_table("segment_snapshots")
    op.drop_index("ix_ingestions_account_id_segment_id_created_at_id", table_name="ingestions")
    op.drop_constraint("fk_ingestions_segment_id", "ingestions", type_="foreignkey")
    op.drop_column("ingestions", "segment_id")
    op.drop_table("segment_members")
    op.drop_table("partitions")
    op.drop_table("segments")
