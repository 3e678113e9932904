"""Wake-ups: a transaction that queues work tells every replica when it commits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

import psycopg
from sqlalchemy import Connection, text

CHANNEL: Final = "ingestd_work"
LOOK_SECONDS: Final = 1.0
"""How often a listener looks whether it has to stop."""


def tell(connection: Connection) -> None:
    """Wake all replicas when the caller's transaction commits."""
    connection.execute(text(f"NOTIFY {CHANNEL}"))


def listen(url: str, stopped: threading.Event) -> Iterator[None]:
    """Yield once at the start and then at each wake-up, until `stopped` is set or the connection is lost."""
    with psycopg.connect(url, autocommit=True, keepalives_idle=30) as connection:
        connection.execute(f"LISTEN {CHANNEL}")
        yield
        while not stopped.is_set():
            for _ in connection.notifies(timeout=LOOK_SECONDS, stop_after=1):
                yield
