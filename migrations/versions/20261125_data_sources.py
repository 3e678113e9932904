"""Data sources: attributes, mappings in versions, members, and what each ingestion changed there (S56 to S67)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261125_data_sources"
down_revision = "20261125_schedules"
branch_labels = None
depends_on = None

JSONB = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "attributes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=True),
        sa.Column("pii", sa.Boolean(), nullable=False),
        sa.Column("use_in_segments", sa.Boolean(), nullable=False),
        sa.Column("use_as_macro", sa.Boolean(), nullable=False),
        sa.Column("segment_name", sa.Text(), nullable=True),
        sa.Column("macro_name", sa.Text(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_attributes_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attributes")),
        *(
            sa.UniqueConstraint("account_id", name, name=op.f(f"uq_attributes_account_id_{name}"))
            for name in ("name", "segment_name", "macro_name", "kind")
        ),
    )
    op.create_table(
        "data_sources",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("mapping_version", sa.BigInteger(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_data_sources_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_data_sources")),
        sa.UniqueConstraint("account_id", "name", name=op.f("uq_data_sources_account_id_name")),
    )
    op.create_table(
        "mappings",
        sa.Column("data_source_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("columns", JSONB, nullable=False),
        sa.Column("created_by", JSONB, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["data_source_id"], ["data_sources.id"], name=op.f("fk_mappings_data_source_id")),
        sa.PrimaryKeyConstraint("data_source_id", "version", name=op.f("pk_mappings")),
    )
    op.add_column("ingestions", sa.Column("data_source_id", sa.Uuid(), nullable=True))
    op.add_column("ingestions", sa.Column("dry_run", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.alter_column("ingestions", "dry_run", server_default=None)
    op.create_foreign_key(
        op.f("fk_ingestions_data_source_id"), "ingestions", "data_sources", ["data_source_id"], ["id"]
    )
    op.create_index("ix_ingestions_data_source_id_created_at_id", "ingestions", ["data_source_id", "created_at", "id"])
    op.create_table(
        "data_source_members",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("data_source_id", sa.Uuid(), nullable=False),
        sa.Column("profile_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "data_source_id", "profile_id", name=op.f("pk_data_source_members")),
    )
    op.create_table(
        "data_source_changes",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("ingestion_id", sa.Uuid(), nullable=False),
        sa.Column("profile_id", sa.Uuid(), nullable=False),
        sa.Column("move", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["ingestion_id"], ["ingestions.id"], name=op.f("fk_data_source_changes_ingestion_id")),
        sa.PrimaryKeyConstraint("account_id", "ingestion_id", "profile_id", name=op.f("pk_data_source_changes")),
    )
    for table in ("data_source_members", "data_source_changes"):
        op.create_index(f"ix_{table}_account_id_profile_id", table, ["account_id", "profile_id"])


def downgrade() -> None:
    op.drop_table("data_source_changes")
    op.drop_table("data_source_members")
    op.drop_index("ix_ingestions_data_source_id_created_at_id", "ingestions")
    op.drop_constraint(op.f("fk_ingestions_data_source_id"), "ingestions")
    op.drop_column("ingestions", "dry_run")
    op.drop_column("ingestions", "data_source_id")
    op.drop_table("mappings")
    op.drop_table("data_sources")
    op.drop_table("attributes")
