"""What people have is kept as it is written, as `json`: a load need not wait until PostgreSQL has taken it apart.

Each table of people is written anew, and nobody can read it meanwhile: about a minute for ten million people.
"""

from __future__ import annotations

from alembic import op

revision = "20261127_documents"
down_revision = "20261126_small_samples"
branch_labels = None
depends_on = None

COLUMNS = ("attributes", "preferences", "identifiers")


def upgrade() -> None:
    _change("json")


def downgrade() -> None:
    _change("jsonb")


def _change(type_: str) -> None:
    op.execute(
        "ALTER TABLE profiles " + ", ".join(f"ALTER {name} TYPE {type_} USING {name}::{type_}" for name in COLUMNS)
    )
