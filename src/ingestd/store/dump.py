"""The database as one file, by PostgreSQL's own programs, and the lock that keeps blobs while it is written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, text

from ingestd.domain.errors import Unavailable
from ingestd.store import embedded

_LOCK: Final = 0x1A6E57B
_VARIABLES: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
}
"""How the parts of a URL reach the programs: never as arguments, which everybody on the machine can read (T154)."""


def write(url: str, file: Path) -> None:
    """Write the whole database, as it is at one moment, to a file."""
    _run("pg_dump", url, "--format=custom", "--no-owner", "--no-acl", f"--file={file}")


def load(url: str, file: Path) -> None:
    """Fill an empty database from such a file, in one transaction."""
    _run("pg_restore", url, "--single-transaction", "--exit-on-error", "--no-owner", "--no-acl", "--dbname=", str(file))


def is_empty(url: str) -> bool:
    """Whether the database has no table of anybody."""
    tables = (
        "SELECT count(*) FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
    )
    with psycopg.connect(url) as connection:
        return connection.execute(tables).fetchone() == (0,)


@contextmanager
def keeping_blobs(url: str) -> Iterator[None]:
    """Let no blob be removed by anybody meanwhile: what the database names at any moment of it stays."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        try:
            yield
        finally:  # by a call, since the server notices a closed connection only later
            connection.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def may_remove_blobs(connection: Connection) -> bool:
    """Whether blobs may be removed now; if so, until the end of the caller's transaction."""
    found = connection.scalar(text("SELECT pg_try_advisory_xact_lock_shared(:lock)"), {"lock": _LOCK})
    return bool(found)


def _run(program: str, url: str, *arguments: str) -> None:
    given = {
        variable: str(value) for part, variable in _VARIABLES.items() if (value := conninfo_to_dict(url).get(part))
    }
    command = [embedded.program(program), "--no-password", *arguments]
    ended = subprocess.run(command, env=os.environ | given, capture_output=True, text=True, check=False)  # noqa: S603
    if ended.returncode != 0:
        raise Unavailable(f"{program} failed: {ended.stderr.strip()[-500:]}", code="dump_failed")
