"""A part's job is done only when the part is in a ledger that stands on the disk (P1, P3)."""

from uuid import UUID

import psycopg
from sqlalchemy import create_engine, make_url

from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.store import ledger


async def test_a_part_that_the_database_lost_is_not_settled(tenant, ground):
    pushed = UUID(str(ids.read(Prefix.INGESTION, (await tenant.push(b"identity\nann\n"))["id"])))
    engine = create_engine(make_url(ground.database_url).set(drivername="postgresql+psycopg"))
    with psycopg.connect(ground.database_url) as sql:
        [(part,)] = sql.execute("SELECT part FROM ledger WHERE ingestion_id = %s", [pushed]).fetchall()
    with engine.begin() as connection:
        assert ledger.settle_part(connection, pushed, part)
    with psycopg.connect(ground.database_url) as sql:
        sql.execute("DELETE FROM ledger WHERE ingestion_id = %s", [pushed])
    with engine.begin() as connection:
        assert not ledger.settle_part(connection, pushed, part)
    engine.dispose()
