"""Data keys are rotated, whatever dies on the way (T111)."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from sqlalchemy import text
from tests.api.sources import source, tsv
from tests.api.test_filters import make, members
from tests.api.world import account_of

from ingestd.ingest.sealing import seal_account
from ingestd.ingest.work import Place
from ingestd.keyring import SealBroken, SealedKeys
from ingestd.store import engine as store

PEOPLE = [f"c-{number} +9198765432{number:02d} Ulm" for number in range(40)]


class Dies(Exception):
    """The process is gone."""


@dataclass
class Hands:
    """Runs what a data-plane process would, in this one, and dies `before` or `after` it."""

    dies: str = "never"

    def run(self, function, *args):
        if self.dies == "before":
            raise Dies
        changed = function(*args)
        if self.dies == "after":
            raise Dies
        return changed


def keys_of(ground, account):
    engine = store.engine(ground.database_url)
    with engine.begin() as connection:
        row = connection.execute(
            text("SELECT data_keys, index_key, rotation FROM accounts WHERE id = :id"), {"id": account}
        ).one()
    engine.dispose()
    return ground.keyring.open(account, SealedKeys(row.data_keys, row.index_key)), row.rotation


def seal(ground, account, dies="never"):
    """Do what the service does when it is the account's turn, as far as to where it dies."""
    engine = store.engine(ground.database_url)
    place = Place(ground.database_url, ground.blob_place, 1 << 20)
    try:
        seal_account(engine, Hands(dies), place, ground.keyring, account)
    finally:
        engine.dispose()


def run(ground, query, **values):
    engine = store.engine(ground.database_url)
    with engine.begin() as connection:
        found = connection.execute(text(query), values)
        rows = list(found) if found.returns_rows else []
    engine.dispose()
    return rows


def tokens_of(ground, account):
    query = """
    SELECT attributes -> 'city' ->> '$E' AS city, identifiers -> '101' -> 0 ->> '$E' AS hm FROM profiles
    WHERE account_id = :account
    """
    return [token for row in run(ground, query, account=account) for token in row]


@pytest.mark.rule("D13")
@pytest.mark.threat("T110", "T111")
async def test_a_rotation_that_is_broken_off_at_each_step_ends_whole(ground, tenant):
    hm = {"name": "hm", "format": "PHONE", "identifier": True, "pii": True}
    crm = await source(tenant, phone=hm, town={"name": "city", "pii": True}, crmid={"name": "crmid"})
    table = tsv("crmid phone town", *PEOPLE)
    await crm.ingest(table)
    account = account_of(tenant)
    old, _ = keys_of(ground, account)
    before = set(tokens_of(ground, account))
    # Asked for beside the queue, so that the service does not do it while we break it off.
    run(ground, "UPDATE accounts SET rotation = 'asked' WHERE id = :id", id=account)
    with pytest.raises(Dies):
        seal(ground, account, "before")
    both, rotation = keys_of(ground, account)
    assert rotation == "sealing"
    assert all(not both.is_newest(token) for token in before)
    run(ground, "CREATE FUNCTION halt() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'halt'; END $$")
    slices = "SELECT max(tableoid::regclass::text) AS last FROM profiles WHERE account_id = :account"
    last = run(ground, slices, account=account)[0].last
    run(ground, f"CREATE TRIGGER halt BEFORE UPDATE ON {last} FOR EACH ROW EXECUTE FUNCTION halt()")
    try:
        with pytest.raises(store.DatabaseError, match="halt"):
            seal(ground, account)
    finally:
        run(ground, "DROP FUNCTION halt CASCADE")
    half = tokens_of(ground, account)
    assert 0 < sum(both.is_newest(token) for token in half) < len(half)
    with pytest.raises(Dies):
        seal(ground, account, "after")
    seal(ground, account)
    new, rotation = keys_of(ground, account)
    assert rotation is None
    tokens = tokens_of(ground, account)
    assert len(tokens) == 2 * len(PEOPLE)
    assert all(new.is_newest(token) for token in tokens)
    assert json.loads(new.open_value("city", tokens[0])) == "Ulm"
    past = old.seal_value("city", '"Ulm"')
    assert past in before
    with pytest.raises(SealBroken):  # the older key is gone
        new.open_value("city", past)
    assert (await tenant.profile("+919876543205", "hm"))["attributes"]["city"] == "Ulm"
    assert (await crm.ingest(table))["counts"]["unchanged"] == len(PEOPLE)


@pytest.mark.threat("T111")
async def test_a_rotation_is_asked_for_through_the_api_and_runs_in_the_account_s_order(tenant):
    crm = await source(tenant, crmid={"name": "crmid", "identifier": True}, town={"name": "city", "pii": True})
    table = tsv("crmid town", "c-1 Ulm")
    await crm.ingest(table)
    asked = await tenant.http.post("/v1/account/rotate-keys")
    assert (asked.status_code, asked.json()["key_rotation"]) == (202, "asked")
    again = await crm.ingest(table)
    assert again["counts"]["unchanged"] == 1
    assert (await tenant.http.get("/v1/account")).json()["key_rotation"] is None
    assert (await tenant.profile("c-1", "crmid"))["attributes"] == {"city": "Ulm"}
    later = await crm.ingest(tsv("crmid town", "c-1 Bonn", "c-2 Ulm"))
    assert (later["counts"]["updated"], later["counts"]["created"]) == (1, 1)


@pytest.mark.rule("S67", "D13", "D16")
async def test_what_is_marked_but_not_sealed_yet_is_compared_as_what_it_is(ground, tenant):
    hm = {"name": "hm", "format": "PHONE", "identifier": True}
    crm = await source(
        tenant, crmid={"name": "crmid", "identifier": True}, phone=hm, town={"name": "city", "use_in_segments": True}
    )
    table = tsv("crmid phone town", *PEOPLE)
    await crm.ingest(table)
    await tenant.push(b"identity,city,city.operation\nu-1,Bonn,$add\nu-1,Ulm,$add\n")
    in_ulm = await make(tenant, {"attribute": "CITY", "op": "equals", "value": "Ulm"})
    everybody = await members(tenant, in_ulm)
    assert len(everybody) == len(PEOPLE) + 1
    account = account_of(tenant)
    # Marked beside the queue: as for an ingestion that was submitted before, the sealing comes afterwards.
    run(ground, "UPDATE attributes SET pii = true WHERE account_id = :id AND name IN ('hm', 'city')", id=account)
    again = await crm.ingest(tsv("crmid phone town", *PEOPLE[:20], "c-99 +919876543299 Ulm"))
    assert (again["counts"]["unchanged"], again["counts"]["updated"], again["counts"]["created"]) == (20, 0, 1)
    assert await members(tenant, in_ulm) == sorted([*everybody, "c-99"])
    edited = await tenant.push(b"identity,city,city.operation\nu-1,Bonn,$remove\nu-1,Ulm,$add\n")
    assert edited["counts"]["updated"] == 1
    assert await members(tenant, in_ulm) == sorted([*everybody, "c-99"])
    seal(ground, account)
    assert (await tenant.profile("u-1"))["attributes"] == {"city": ["Ulm"]}
    assert (await tenant.profile("c-1", "crmid"))["identifiers"] == {"crmid": ["c-1"], "hm": ["+919876543201"]}
    assert (await crm.ingest(table))["counts"]["unchanged"] == len(PEOPLE)
