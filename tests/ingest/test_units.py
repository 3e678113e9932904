"""Units of work: a part in the ledger is applied, whatever else was tried for its readers."""

from __future__ import annotations

from types import SimpleNamespace

from sqlalchemy import create_engine

from ingestd.ingest import units


def test_a_vacuum_that_fails_ends_nothing(ground):
    sql = create_engine(ground.database_url.replace("postgresql://", "postgresql+psycopg://"))
    units._vacuum(SimpleNamespace(sql=sql), "no_such_table", [0])
    sql.dispose()
