"""How what is old goes: the statements that forget it, a batch of `at_most` in the caller's transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Protocol

from sqlalchemy import Connection, TextClause, text


class Expire(Protocol):
    """Forgets what is older than a time, a batch in the caller's transaction; gives the blobs that can go then."""

    def __call__(self, connection: Connection, before: datetime, *, at_most: int) -> list[str]:
        """Expire at most so many."""


_BLOBS: Final = """
WITH old AS MATERIALIZED (
    SELECT id, blob FROM {table} WHERE blob IS NOT NULL AND {expired}
    LIMIT :at_most FOR UPDATE SKIP LOCKED
), forgotten AS (
    UPDATE {table} SET blob = NULL FROM old WHERE {table}.id = old.id
)
SELECT blob FROM old
"""

_ROWS: Final = """
DELETE FROM {table} WHERE ctid = ANY (ARRAY(
    SELECT old.ctid FROM accounts a CROSS JOIN LATERAL (
        SELECT ctid FROM {table} WHERE account_id = a.id AND {age} < :before
        ORDER BY {age} LIMIT :at_most
    ) old
    LIMIT :at_most
))
"""


def of_blobs(table: str, expired: str) -> TextClause:
    """The statement that gives the blobs of a table's expired rows, which stay without them."""
    return text(_BLOBS.format(table=table, expired=expired))


def of_rows(table: str, age: str) -> TextClause:
    """The statement that deletes the rows of each account whose column `age` lies before a time, or an id."""
    return text(_ROWS.format(table=table, age=age))
