"""The whole schema: every table declared, and the way to bring a database to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, text

from ingestd.domain.errors import Unavailable
from ingestd.store import (  # noqa: F401 -- importing a table declares it
    accounts,
    api_keys,
    attributes,
    audit,
    connections,
    data_sources,
    deliveries,
    events,
    files,
    idempotency_keys,
    import_keys,
    ingestions,
    ledger,
    manifests,
    messages,
    notices,
    partitions,
    profiles,
    recipients,
    replicas,
    runs,
    schedules,
    segments,
    source_changes,
    usage,
    webhooks,
)
from ingestd.store.base import Base

METADATA: Final[MetaData] = Base.metadata
_LOCK: Final = 0x1A6E57D
ASK_SECONDS: Final = 0.2
_PACKAGE: Final = Path(__file__).parents[1]


def is_declared(item: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:  # noqa: FBT001
    """Whether comparing the database with the declarations is about this item: partitions and DBOS's tables are not."""
    return kind != "table" or name in METADATA.tables or (item.schema is None and "_p_" not in str(name))


@contextmanager
def one_at_a_time(engine: Engine) -> Iterator[None]:
    """Let one process change the schema; the others wait, and find it done.

    They ask again and again: a statement that waited for the lock would hold a snapshot, for whose end the job engine's
    CREATE INDEX CONCURRENTLY waits in turn, for ever.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK}):
            time.sleep(ASK_SECONDS)
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})


def migrate(engine: Engine) -> None:
    """Bring the database to the newest revision; Unavailable "schema_ahead" where a newer release has been there."""
    with engine.begin() as connection:
        _refuse_newer(_revision(connection))
        command.upgrade(configuration(connection), "head")


def check(engine: Engine) -> None:
    """Raise Unavailable unless the database is at the newest revision that this release knows."""
    with engine.connect() as connection:
        have = _revision(connection)
    want = _scripts().get_current_head()
    if have == want:
        return
    _refuse_newer(have)
    raise Unavailable(f"The database is at revision {have}, not {want}. Run: ingestd migrate", code="schema_behind")


def _refuse_newer(have: str | None) -> None:
    if have is not None and have not in _known():
        detail = f"The database is at revision {have}, which this release does not know: a newer one made it. Run that."
        raise Unavailable(detail, code="schema_ahead")


def is_behind(connection: Connection) -> bool:
    """Whether migrations are missing. One of a newer release is fine: it may come while this one still runs."""
    have = _revision(connection)
    return have != _scripts().get_current_head() and (have is None or have in _known())


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(configuration())


@cache
def _known() -> frozenset[str]:
    return frozenset(script.revision for script in _scripts().walk_revisions())


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's configuration: where the migrations are, and the connection to run them on."""
    config = Config()
    packaged = _PACKAGE / "migrations"
    folder = packaged if packaged.is_dir() else _PACKAGE.parents[1] / "migrations"
    config.set_main_option("script_location", str(folder))
    config.attributes["connection"] = connection
    return config
