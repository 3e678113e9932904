"""A dump of the database and of the blob store holds no value of a personal column (S61, D13, T110, T113)."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from tests.api.sources import source, tsv

from ingestd.store.engine import transaction

CITY, PHONE, LATER = "Canaryburg", "4915123456789", "Canarylater"


@pytest.mark.rule("S61", "D13")
@pytest.mark.threat("T110", "T113")
async def test_a_dump_after_ingestions_holds_no_personal_value(ground, tenant):
    hm = {"name": "hm", "format": "PHONE", "identifier": True, "pii": True}
    age = {"name": "age", "format": "INTEGER"}
    city = {"name": "city", "pii": True, "use_in_segments": True}
    crm = await source(tenant, crmid={"name": "crmid"}, phone=hm, town=city, age=age)
    rows = (f"c-1 {PHONE} {CITY} 1", f"c-2 {PHONE} {CITY} wrong")
    done = await crm.ingest(tsv("crmid phone town age", *rows), notify=["ann@example.org"])
    assert (done["counts"]["accepted"], done["counts"]["rejected"]) == (1, 1)
    condition = {"attribute": "city", "op": "equals", "value": CITY}
    body = {"name": "canaries", "description": "x", "type": "SCD", "condition": condition}
    made = (await tenant.http.post("/v1/filters", json=body)).raise_for_status().json()
    (await tenant.http.post(f"/v1/segments/{made['id']}/activate")).raise_for_status()
    await tenant.push(f"identity,city,city.operation\nu-1,{CITY},$add\n".encode())
    await tenant.push(f"identity,shade\nu-1,{LATER}\n".encode())
    assert await found_in_tables(tenant, LATER) == {"profiles"}
    await tenant.http.post("/v1/attributes", json={"name": "shade", "pii": True})
    await tenant.push(b"identity,other\nu-1,x\n")  # what was stored is sealed before its turn comes
    for value in (CITY, PHONE, LATER):
        assert await found_in_tables(tenant, value) == set(), value
    blobs = files_below(ground.blob_place)
    assert blobs
    assert not any(value.encode() in blob for value in (CITY, PHONE, LATER) for blob in blobs)


def files_below(folder):
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


async def found_in_tables(tenant, value):
    """The tables that hold a text anywhere, partitions by the name of the whole."""
    async with transaction(tenant.app.intake.sessions) as session:
        query = "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition AND "
        tables = list(await session.scalars(text(f"{query} relnamespace = 'public'::regnamespace")))
        holds = 'SELECT EXISTS (SELECT FROM "{}" t WHERE strpos(t::text, :value) + strpos(t::text, :hex) > 0)'
        return {
            name
            for name in tables
            if await session.scalar(text(holds.format(name)), {"value": value, "hex": value.encode().hex()})
        }
