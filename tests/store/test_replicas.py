"""Replicas: who is taken for dead, and by whom."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, text

from ingestd.store import engine, replicas

AFTER = 20.0


@pytest.fixture
def connection(ground) -> Iterator[Connection]:
    """A transaction that is taken back, beside the service of the run."""
    sql = engine.engine(ground.database_url)
    with sql.connect() as connection:
        yield connection
        connection.rollback()
    sql.dispose()


def silence(connection: Connection, replica: str) -> None:
    """Let a replica have been silent for long enough."""
    ago = text("UPDATE replicas SET seen_at = now() - make_interval(secs => :after) WHERE id = :id")
    connection.execute(ago, {"after": AFTER, "id": replica})


def test_one_that_is_heard_of_again_is_not_buried(connection):
    replicas.beat(connection, "one")
    silence(connection, "one")
    assert "one" in replicas.silent(connection, "two", after=AFTER)
    replicas.beat(connection, "one")
    assert not replicas.bury(connection, "one", after=AFTER)
    silence(connection, "one")
    assert replicas.bury(connection, "one", after=AFTER)
    assert not replicas.bury(connection, "one", after=AFTER)


def test_one_that_has_work_in_hand_and_is_not_known_is_silent_from_now(connection):
    replicas.beat(connection, "known")
    silence(connection, "known")
    replicas.expect(connection, ["known", "unknown"])
    assert "unknown" not in replicas.silent(connection, "two", after=AFTER)
    silence(connection, "unknown")
    assert {"known", "unknown"} <= set(replicas.silent(connection, "two", after=AFTER))
