"""Run the migrations on the database that `ingestd migrate` or INGESTD_DATABASE_URL names."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import Connection, engine_from_config, make_url, pool

from ingestd.store import schema

LOCK_TIMEOUT = "5s"
"""A migration that cannot have its lock soon gives up rather than queue everybody behind it."""


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=schema.METADATA,
        include_object=schema.is_declared,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    url = make_url(os.environ["INGESTD_DATABASE_URL"]).set(drivername="postgresql+psycopg")
    engine = engine_from_config({"sqlalchemy.url": url}, poolclass=pool.NullPool)
    with engine.connect() as connection:
        _run(connection)
