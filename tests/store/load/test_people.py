"""Whom identifiers are stored for: read by ranges, or looked up one by one."""

from __future__ import annotations

import polars as pl
import pytest
from tests.store.load.world import KEY, frame

from ingestd.store.load import people
from ingestd.store.load.people import KnownPeople
from ingestd.store.profiles import identifier_hash


def digits(kind: int, value: str) -> str:
    return identifier_hash(KEY, kind, value).hex


@pytest.mark.rule("D54")
@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("crowd", [1, 2, 100])
@pytest.mark.parametrize("at_once", [7, 1000])
def test_identifiers_are_asked_by_range_or_one_by_one(account, monkeypatch, few, crowd, at_once):
    for name, value in {"FEW": few, "CROWD": crowd, "AT_ONCE": at_once}.items():
        monkeypatch.setattr(people, name, value)
    account.push(frame([{"k1": f"p{n}", "k2": f"x{n}", "k3": f"y{n}" if n % 2 else None} for n in range(40)]))
    asked = [
        (kind, digits(kind, f"{word}{n}"), digits(1, f"p{n // 2 * 2}"))
        for kind, word in ((2, "x"), (3, "y"))
        for n in range(5, 50)
    ]
    schema = {"kind": pl.Int16, "hash": pl.String, "id": pl.String}
    found = KnownPeople([account.connection], account.id).moved(pl.DataFrame(asked, schema=schema, orient="row"))
    others = [
        (digits(kind, f"{word}{n}"), digits(1, f"p{n}")) for kind, word in ((2, "x"), (3, "y")) for n in range(40)
    ]
    wanted = {hash_: person for hash_, person in others if hash_ in {hash_ for _, hash_, _ in asked}}
    stored = {digits(kind, f"{word}{n}") for kind, word in ((2, "x"), (3, "y")) for n in range(5, 40, 2)}
    assert dict(found.iter_rows()) == {hash_: person for hash_, person in wanted.items() if hash_ in stored}
