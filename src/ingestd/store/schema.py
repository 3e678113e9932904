"""The whole schema: every table declared, and the way to bring a database to it."""

from __future__ import annotations

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
    audit,
    deliveries,
    events,
    files,
    idempotency_keys,
    import_keys,
    ingestions,
    manifests,
    notices,
    profiles,
    recipients,
    replicas,
    usage,
    webhooks,
)
from ingestd.store.base import Base

METADATA: Final[MetaData] = Base.metadata
_LOCK: Final = 0x1A6E57D
_PACKAGE: Final = Path(__file__).parents[1]


def is_declared(item: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:  # noqa: FBT001
    """Whether comparing the database with the declarations is about this item: partitions and DBOS's tables are not."""
    return kind != "table" or name in METADATA.tables or (item.schema is None and "_p_" not in str(name))


def migrate(engine: Engine) -> None:
    """Bring the database to the newest revision; one process at a time, the others wait and find it done."""
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config = configuration(connection)
        command.upgrade(config, "head")


def check(engine: Engine) -> None:
    """Raise Unavailable unless the database is at the newest revision."""
    with engine.connect() as connection:
        have = MigrationContext.configure(connection).get_current_revision()
    want = ScriptDirectory.from_config(configuration()).get_current_head()
    if have != want:
        raise Unavailable(f"The database is at revision {have}, not {want}. Run: ingestd migrate", code="schema_behind")


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's configuration: where the migrations are, and the connection to run them on."""
    config = Config()
    packaged = _PACKAGE / "migrations"
    folder = packaged if packaged.is_dir() else _PACKAGE.parents[1] / "migrations"
    config.set_main_option("script_location", str(folder))
    config.attributes["connection"] = connection
    return config
