"""A database of its own for a test of commands."""

from __future__ import annotations

import os

import psycopg
import pytest
from psycopg import sql

from ingestd.keyring import new_master


@pytest.fixture
def place(ground, tmp_path):
    """An empty database, as an operator would bring it, and all that a process needs to know."""
    name = f"own_{os.getpid()}"
    with psycopg.connect(ground.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield {
        "INGESTD_DATABASE_URL": ground.database_url.replace("/ingestd?", f"/{name}?"),
        "INGESTD_DATA_DIR": str(tmp_path / "data"),
        "INGESTD_MASTER_KEY": new_master(),
        "INGESTD_HTTP__PORT": "0",
        "INGESTD_SFTP__PORT": "0",
        "INGESTD_METRICS__PORT": "0",
    }
    drop = sql.SQL("DROP DATABASE {}").format(sql.Identifier(name))
    with psycopg.connect(ground.database_url, autocommit=True) as connection:
        try:
            connection.execute(drop + sql.SQL(" WITH (FORCE)"))
        except psycopg.errors.InsufficientPrivilege:  # autovacuum is there, which only the plain one may send away
            connection.execute(drop)
