"""What the API asks of profiles and events, of what files have loaded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import polars as pl
import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession
from tests.store.load.world import KEY, frame

from ingestd.store import engine, events, profiles
from ingestd.store.page import Cut
from ingestd.store.profiles import identifier_hash

EVENT = {"event_name": pl.String}


@pytest.fixture
async def session(database_url: str) -> AsyncIterator[AsyncSession]:
    made = engine.async_engine(database_url)
    async with engine.sessions(made)() as opened:
        yield opened
    await made.dispose()


@pytest.mark.rule("D54")
async def test_a_profile_is_found_by_its_founder_by_an_alias_and_through_a_redirect(account, session):
    for row in ({"k2": "u"}, {"k1": "A", "k3": "m"}, {"k1": "A", "k2": "u"}):
        account.push(frame([row]))
    asked = {kind: (kind, identifier_hash(KEY, kind, value)) for kind, value in ((1, "A"), (2, "u"), (3, "m"))}
    found = await profiles.find_many(session, account.id, [*asked.values(), (2, identifier_hash(KEY, 2, "nobody"))])
    assert found.keys() == set(asked.values())
    (profile,) = {each.profile_id: each for each in found.values()}.values()
    assert profile.identifiers == {"identity": ["A"], "fbId": ["m"], "objectId": ["u"]}
    merged = asked[2][1]
    assert await profiles.merged_into(session, account.id, [profile.profile_id]) == [merged]
    assert await profiles.get_many(session, account.id, [merged]) == {merged: profile}


async def test_another_account_finds_nobody(account, session):
    account.push(frame([{"k1": "A"}]))
    assert await profiles.find_many(session, uuid4(), [(1, identifier_hash(KEY, 1, "A"))]) == {}


async def test_events_come_by_time_in_pages_also_those_of_a_merged_profile(account, session):
    account.push(frame([{"k2": "u", "ts": ts, "event_name": f"at {ts}"} for ts in (30, 10)], **EVENT))
    account.push(frame([{"k1": "A", "ts": 20, "event_name": "at 20"}], **EVENT))
    account.push(frame([{"k1": "A", "k2": "u"}]))
    person = account.named(1, "A")
    cut = Cut(events.OF_PERSON["ts"], descending=False, after=None, limit=2)
    first = await events.of_person(session, account.id, person, cut)
    assert [event.name for event in first] == ["at 10", "at 20", "at 30"]
    after = replace(cut, after=tuple(cut.position(first[1])))
    assert [event.name for event in await events.of_person(session, account.id, person, after)] == ["at 30"]


def test_months_are_made_once_and_leave_what_the_default_partition_holds(account, database_url):
    late = datetime(2031, 12, 5, tzinfo=UTC)
    account.push(frame([{"k1": "A", "event_name": "late"}], **EVENT), received_at=late)
    made = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    with made.begin() as connection:
        for _ in range(2):
            events.add_months(connection, late, ahead=2)
        named = connection.execute(text("SELECT relname FROM pg_class WHERE relname ~ '^events_p_203._..$' ORDER BY 1"))
        assert list(named.scalars()) == ["events_p_2032_01", "events_p_2032_02"]
    made.dispose()
