"""Aliases: added beside those that are there, and not for whoever was erased meanwhile (D54)."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import polars as pl
import pytest
from tests.store.load.world import NOW

from ingestd.store.load import aliases
from ingestd.store.load.aliases import apply_aliases
from ingestd.store.load.stage import Load

KIND = 2


def number(digit: int, low: int) -> int:
    """A hash in the slice of a hexadecimal digit."""
    return (digit << 124) + low


def load(account, received_at=NOW):
    return Load(account_id=account.id, ingestion_id=uuid4(), seq=1, received_at=received_at, now=NOW)


def links(pairs):
    schema = {"hash": pl.UInt128, "id": pl.UInt128}
    return pl.DataFrame(pairs, schema=schema, orient="row").with_columns(pl.lit(KIND, pl.Int16).alias("kind"))


def stored(account):
    rows = account.rows("SELECT kind, hash, profile_id FROM profile_aliases WHERE account_id = %s")
    assert {kind for kind, *_ in rows} == {KIND}
    return {hash_.int: person.int for _, hash_, person in rows}


@pytest.mark.rule("D54")
@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("shared", [False, True])
def test_an_alias_that_came_meanwhile_stays_and_the_others_are_added(account, monkeypatch, few, shared):
    monkeypatch.setattr(aliases, "FEW", few)
    account.connection.execute(
        "INSERT INTO profiles (account_id, profile_id, attributes, preferences, identifiers, origin, created_at,"
        " updated_at) VALUES (%s, %s, '{}', '{}', '{}', 1, %s, %s)",
        (account.id, UUID(int=number(5, 1)), NOW, NOW),
    )
    first = {number(digit, low): number(5, 1) for digit in range(16) for low in (1, 3)}
    with account.connection.transaction():
        apply_aliases(account.connection, [links(list(first.items()))], load=load(account))
    more = {number(digit, low): number(6, low) for digit in (0, 7, 15) for low in (1, 2)}
    with account.connection.transaction():
        frames = [links([pair]) for pair in sorted(more.items())]
        apply_aliases(account.connection, frames, load=load(account), shared=shared)
    assert stored(account) == more | first


@pytest.mark.threat("T115")
def test_who_was_erased_after_the_file_came_gets_no_alias(account):
    gone = UUID(int=number(3, 1))
    account.connection.execute("INSERT INTO tombstones VALUES (%s, %s, %s, %s)", (account.id, KIND, gone, NOW))
    pairs = [(number(3, 1), number(1, 1)), (number(4, 1), number(3, 1)), (number(4, 2), number(1, 2))]
    for received_at, kept in ((NOW - timedelta(seconds=1), pairs[2:]), (NOW, pairs)):
        with account.connection.transaction():
            apply_aliases(account.connection, [links(pairs)], load=load(account, received_at))
        assert stored(account) == dict(kept)
