"""People are reached by their ids, whatever the server believes of an account that it has not looked at yet.

It guesses that such an account has next to nobody. Then it would take all its people first, and go through those of the
file for each of them: minutes for some ten thousand, hours for more.
"""

from __future__ import annotations

from uuid import uuid4

import polars as pl
import psycopg
import pytest
from psycopg import sql
from tests.store.load.world import KEY, NOW, Account, frame

from ingestd.domain.plan import Mode
from ingestd.pipeline.identifiers import hashed
from ingestd.store.load import stored
from ingestd.store.load.sources import Source, enter, leave, touched
from ingestd.store.load.stage import Load

PEOPLE = 3000
BY_ID = ("profile_id", "hash", "survivor_id", "ctid")


def gone_through(plan, *, inner=False):
    """Whether what a part of the statement found is gone through for each row of something else in a plan."""
    if inner and plan["Node Type"] == "CTE Scan":
        return True
    nested = plan["Node Type"] == "Nested Loop"
    return any(gone_through(part, inner=nested and number == 1) for number, part in enumerate(plan.get("Plans", ())))


def scans(plan, tables):
    """The scans of some tables and of their slices in a plan."""
    if plan["Node Type"].endswith("Scan") and plan.get("Relation Name", "").startswith(tables):
        yield plan
    for part in plan.get("Plans", ()):
        yield from scans(part, tables)


class Explaining(psycopg.Cursor):
    """Notes what a statement is going to do that reads all people of the account."""

    found: list[str]

    def execute(self, query, parameters=None, **options):
        text = query if isinstance(query, str) else query.as_string(self)
        if "JOIN" in text or "USING" in text or "UPDATE" in text:
            ((plans,),) = super().execute(sql.SQL("EXPLAIN (FORMAT JSON) " + text), parameters).fetchall()
            if gone_through(plans[0]["Plan"]):
                self.found.append((text, "gone through"))
            for scan in scans(plans[0]["Plan"], ("profiles", "profile_aliases")):
                reached = [scan.get(condition, "") for condition in ("Index Cond", "Recheck Cond", "TID Cond")]
                if not any(each in "".join(reached) for each in BY_ID):
                    self.found.append((text, scan))
        return super().execute(query, parameters, **options)


@pytest.fixture
def explained(monkeypatch):
    monkeypatch.setattr(Explaining, "found", [], raising=False)
    return Explaining.found


@pytest.fixture
def account(database_url, connection, explained):
    """A new account beside one that the server has looked at."""
    Account(connection).push(people(k1="a", k2="b", value="1"))
    connection.execute("ANALYZE profiles, profile_aliases, profile_redirects, data_source_members")
    with psycopg.connect(database_url, autocommit=True, cursor_factory=Explaining) as opened:
        yield Account(opened)


def people(value, **kinds):
    """A row for each of many people, with identifiers that begin with what is given."""
    number = pl.int_range(PEOPLE, eager=True).cast(pl.String)
    named = {kind: pl.Series([prefix + each for each in number]) for kind, prefix in kinds.items()}
    return frame([{}] * PEOPLE, **{"a:Name": pl.String}).with_columns(**named, **{"a:Name": pl.lit(f'"{value}"')})


@pytest.mark.rule("D54")
@pytest.mark.parametrize("few", [0, PEOPLE])
def test_a_file_reaches_the_people_of_a_new_account_by_their_ids(account, explained, monkeypatch, few):
    monkeypatch.setattr(stored, "FEW", few)
    account.push(people(k1="u", value="1"))
    account.push(people(k3="f", value="2"))
    assert account.push(people(k1="u", k2="x", value="3"))["updated"] == PEOPLE
    assert account.push(people(k1="u", k3="f", value="4"))["merged"] == PEOPLE
    assert account.push(people(k3="f", value="5"), buckets=16)["updated"] == PEOPLE
    assert [scan for _, scan in explained] == []


@pytest.mark.rule("S55")
def test_an_upload_reaches_the_people_of_a_new_account_by_their_ids(account, explained):
    rows = people(k1="u", value="1")
    account.push(rows)
    ids = rows.select(id=hashed(1, KEY))["id"].sort()
    source = Source(uuid4(), "crm", Mode.REPLACE)
    load = Load(account_id=account.id, ingestion_id=uuid4(), seq=2, received_at=NOW, now=NOW)
    with account.connection.transaction():
        enter(account.connection, ids, ids.clear(), pl.DataFrame, kept=(), source=source, load=load)
    with account.connection.transaction():
        assert leave(account.connection, [ids.head(PEOPLE // 2)], source=source, load=load) == PEOPLE // 2
        assert touched(account.connection, ids, load=load).height == PEOPLE
    assert [scan for _, scan in explained] == []
