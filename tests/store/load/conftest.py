"""A database with the tables of people, events and segments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, make_url
from tests.conftest import own_database
from tests.store.load.world import Account

from ingestd.store import events, profiles
from ingestd.store.schema import METADATA

ALONE = {
    "segments": ["account_id"],
    "partitions": ["account_id"],
    "segment_snapshots": ["account_id", "ingestion_id"],
}
"""Tables that are filled here without the rows that theirs belong to."""


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    with own_database() as url:
        engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
        with engine.begin() as connection:
            METADATA.create_all(connection)
            for table, names in ALONE.items():
                for name in names:
                    connection.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT fk_{table}_{name}")
            for statement in [*profiles.PARTITION_DDL, *events.PARTITION_DDL]:
                connection.exec_driver_sql(statement)
        engine.dispose()
        yield url


@pytest.fixture(scope="module")
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def account(connection: psycopg.Connection[Any]) -> Account:
    return Account(connection)
