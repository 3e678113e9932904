"""People and aliases are sampled by 3,000 rows of a slice, not 30,000: their plans look things up by a key.

Autovacuum takes the sample each time that a tenth of a slice has come, once a minute at most, and each row of it may
lie on a page of its own.
"""

from __future__ import annotations

from alembic import op

from ingestd.domain.identity import SLICES

revision = "20261126_small_samples"
down_revision = "20261126_refreshed_as"
branch_labels = None
depends_on = None

COLUMNS = {
    "profiles": ("account_id", "profile_id", "origin", "last_ts", "created_at", "updated_at", "digest"),
    "profile_aliases": ("account_id", "kind", "hash", "profile_id"),
}


def upgrade() -> None:
    _set_statistics("10")


def downgrade() -> None:
    _set_statistics("DEFAULT")


def _set_statistics(target: str) -> None:
    for table, columns in COLUMNS.items():
        changes = ", ".join(f"ALTER {column} SET STATISTICS {target}" for column in columns)
        for number in range(SLICES):
            op.execute(f"ALTER TABLE {table}_p_{number:02d} {changes}")
