"""A filter segment knows when its members may not be those who fit: else a small file's own people are looked at alone.

At first that is not known of any.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261127_behind"
down_revision = "20261127_list_edit"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("segments", sa.Column("behind", sa.Uuid(), nullable=True))
    rows = sa.table("segments", *map(sa.column, ("behind", "id", "method")))
    op.execute(sa.update(rows).where(rows.c.method == "filter").values(behind=rows.c.id))


def downgrade() -> None:
    op.drop_column("segments", "behind")
