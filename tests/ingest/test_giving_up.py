"""An ingestion that is given up ends what hangs on it, and is counted, though nothing can be told (P6)."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
from sqlalchemy import text
from tests.scheduler.world import ended, new_connection, scheduled

from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.ingest import flow, giving_up
from ingestd.ingest.flow import walk
from ingestd.ingest.giving_up import give_up
from ingestd.ingest.units import apply_part
from ingestd.metrics import new_metrics
from ingestd.store import engine as store
from ingestd.store import fencing

REOPEN = (
    "UPDATE ingestions SET status = 'in_progress', channel = 'schedule' WHERE id = :ingestion",
    """
    UPDATE runs SET state = 'ingesting', ingestion_id = :ingestion, result = NULL, outcome = NULL, error = NULL
    WHERE id = :run
    """,
)


def fail(*_, **__):
    raise RuntimeError


async def test_an_ingestion_goes_on_where_it_cannot_be_told_that_it_was_picked_up(monkeypatch, tenant):
    monkeypatch.setattr(flow, "tell_ingestion", fail)
    assert (await tenant.push(b"identity,Age\nann,1\n"))["status"] == "completed"


async def test_the_run_of_an_ingestion_that_is_given_up_ends_where_nothing_can_be_told(monkeypatch, ground, tenant):
    monkeypatch.setattr(giving_up, "tell_ingestion", fail)
    pushed = await tenant.push(b"identity,Age\nann,1\n")
    sql, metrics = store.engine(ground.database_url), new_metrics()
    async with scheduled(tenant, await new_connection(tenant)) as segment:
        path = f"/v1/segments/{segment['id']}/runs"
        run = await ended(tenant, (await tenant.http.post(path)).raise_for_status().json())
        ingestion = ids.read(Prefix.INGESTION, pushed["id"])
        with sql.begin() as connection:
            for statement in REOPEN:
                connection.execute(text(statement), {"ingestion": ingestion, "run": ids.read(Prefix.RUN, run["id"])})
            row = fencing.peek(connection, ingestion)
        assert (await tenant.http.post(path)).json()["code"] == "run_open"
        give_up(SimpleNamespace(sql=sql, metrics=metrics), row)
        run = await ended(tenant, run)
        assert (run["result"], run["outcome"]) == ("ingested", "succeeded")
        again = (await tenant.http.post(path)).raise_for_status().json()
        await ended(tenant, again)
    sql.dispose()
    labels = {"target": "profiles", "status": "completed"}
    assert metrics.registry.get_sample_value("ingestd_ingestions_total", labels) == 1


@pytest.mark.threat("T114")
@pytest.mark.parametrize("work", [walk, partial(apply_part, part="part-0000")], ids=["ingestion", "part"])
def test_what_is_left_of_an_account_that_was_deleted_is_tried_no_more(ground, work):
    def tries():
        yield
        pytest.fail("it is tried again")

    sql = store.engine(ground.database_url)
    work(SimpleNamespace(sql=sql, tries=tries), store.new_id())
    sql.dispose()
