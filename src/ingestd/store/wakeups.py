"""Wake-ups: a transaction that queues work tells every replica when it commits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

import psycopg
from sqlalchemy import Connection, func, select

CHANNEL: Final = "ingestd_work"
LOOK_SECONDS: Final = 1.0
"""How often a listener looks whether it has to stop."""


def tell(connection: Connection, queue: str) -> None:
    """Wake who looks at a queue, in all replicas, when the caller's transaction commits."""
    connection.execute(select(func.pg_notify(CHANNEL, queue)))


def listen(url: str, stopped: threading.Event) -> Iterator[str | None]:
    """Yield None once at the start, and the queue at each wake-up, until `stopped` is set or the connection is lost."""
    with psycopg.connect(url, autocommit=True, keepalives_idle=30) as connection:
        connection.execute(f"LISTEN {CHANNEL}")
        yield None
        while not stopped.is_set():
            for notify in connection.notifies(timeout=LOOK_SECONDS, stop_after=1):
                yield notify.payload
