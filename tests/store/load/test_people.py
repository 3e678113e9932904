"""Whom identifiers are stored for: read by ranges, or looked up one by one."""

from __future__ import annotations

import polars as pl
import pytest
from tests.store.load.world import KEY, frame

from ingestd.store.load import people
from ingestd.store.load.people import KnownPeople
from ingestd.store.profiles import identifier_hash


def number(kind: int, value: str) -> int:
    return identifier_hash(KEY, kind, value).int


@pytest.mark.rule("D54")
@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("crowd", [1, 2, 100])
@pytest.mark.parametrize("at_once", [7, 1000])
def test_identifiers_are_asked_by_range_or_one_by_one(account, monkeypatch, few, crowd, at_once):
    for name, value in {"FEW": few, "CROWD": crowd, "AT_ONCE": at_once}.items():
        monkeypatch.setattr(people, name, value)
    account.push(frame([{"k1": f"p{n}", "k2": f"x{n}", "k3": f"y{n}" if n % 2 else None} for n in range(40)]))
    asked = [(kind, number(kind, f"{word}{n}")) for kind, word in ((2, "x"), (3, "y")) for n in range(5, 50)]
    schema = {"kind": pl.Int16, "hash": pl.UInt128}
    found = KnownPeople([account.connection], account.id).moved(pl.DataFrame(asked, schema=schema, orient="row"))
    people_of = {
        number(kind, f"{word}{n}"): number(1, f"p{n}") for kind, word in ((2, "x"), (3, "y")) for n in range(40)
    }
    absent = {number(3, f"y{n}") for n in range(0, 40, 2)}
    stored = {hash_: people_of[hash_] for _, hash_ in asked if hash_ in people_of.keys() - absent}
    assert dict(found.iter_rows()) == stored


@pytest.mark.rule("D54")
@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("crowd", [1, 100])
@pytest.mark.parametrize("at_once", [7, 1000])
def test_identifiers_of_those_who_were_merged_are_the_survivors_by_range_or_one_by_one(
    account, monkeypatch, few, crowd, at_once
):
    for name, value in {"FEW": few, "CROWD": crowd, "AT_ONCE": at_once}.items():
        monkeypatch.setattr(people, name, value)
    account.push(frame([{"k1": f"p{n}"} for n in range(30)]))
    account.push(frame([{"k2": f"x{n}", "k3": f"y{n}"} for n in range(30)]))
    account.push(frame([{"k1": f"p{n}", "k3": f"y{n}"} for n in range(20)]))
    asked = [(kind, number(kind, f"{word}{n}")) for kind, word in ((1, "p"), (2, "x"), (3, "y")) for n in range(35)]
    schema = {"kind": pl.Int16, "hash": pl.UInt128}
    found = KnownPeople([account.connection], account.id).moved(pl.DataFrame(asked, schema=schema, orient="row"))
    of_survivors = {
        number(kind, f"{word}{n}"): number(1, f"p{n}") for kind, word in ((2, "x"), (3, "y")) for n in range(20)
    }
    of_others = {number(3, f"y{n}"): number(2, f"x{n}") for n in range(20, 30)}
    assert dict(found.iter_rows()) == of_survivors | of_others
