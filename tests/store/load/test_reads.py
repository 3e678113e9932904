"""What is asked of many people goes through them a few times, whatever the server believes of a segment or an account.

It guesses that one that it has not looked at yet has next to nobody. Then it would go through all of them for each.
"""

from __future__ import annotations

from types import SimpleNamespace

import polars as pl
import pytest
import pytest_asyncio
from sqlalchemy import false, select, text, true
from sqlalchemy.ext.asyncio import AsyncSession
from tests.store.load.test_segments import Group
from tests.store.load.world import KEY, NOW, Account, frame

from ingestd.store import engine as store
from ingestd.store import erasure, events, filters, members, profiles
from ingestd.store.events import Event
from ingestd.store.page import Cut
from ingestd.store.profiles import Profile
from ingestd.store.segments import Segment

PEOPLE = 2000
FAR_FEWER = PEOPLE**2 // 10
"""Than each with each other; a table of all accounts may be read as a whole."""
ROWS_READ = text(
    "SELECT CAST(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) AS bigint) FROM pg_stat_xact_all_tables"
    " WHERE schemaname = 'public' OR schemaname LIKE 'pg_temp%'"
)
"""In this session, until it tells the server: within a transaction it grows."""


def people(prefix, **columns):
    """A row for each of many people."""
    number = pl.int_range(PEOPLE, eager=True).cast(pl.String)
    types = {f"a:{name}": pl.String for name in columns}
    values = {f"a:{name}": pl.lit(f'"{value}"') for name, value in columns.items()}
    return frame([{}] * PEOPLE, **types).with_columns(k1=prefix + number, **values)


@pytest.fixture
def account(connection):
    """A new account with people, beside one that the server has looked at."""
    before = Account(connection)
    before.push(people("z", City="Rome"))
    happened(before)
    other = Group(connection, connection, "SCD")
    connection.execute(
        "INSERT INTO segment_members (segment, valid_from, hash, kind, partition, value)"
        " SELECT number, now(), md5(n::text)::uuid, 1, 1, n FROM segments, generate_series(1, %s) n WHERE id = %s",
        (PEOPLE, other.id),
    )
    connection.execute("ANALYZE profiles, profile_aliases, profile_redirects, segment_members, events")
    made = Account(connection)
    made.push(people("a", City="Ulm"))
    return made


def happened(account):
    """Give each of the account's people an event, and somebody who has become one with them."""
    account.connection.execute(
        "INSERT INTO events (account_id, received_at, event_id, profile_id, name, ts, properties, origin)"
        " SELECT account_id, now(), gen_random_uuid(), profile_id, 'seen', 1, '{}', 1 FROM profiles"
        " WHERE account_id = %s",
        (account.id,),
    )
    account.connection.execute(
        "INSERT INTO profile_redirects (account_id, profile_id, survivor_id, origin)"
        " SELECT account_id, gen_random_uuid(), profile_id, 1 FROM profiles WHERE account_id = %s",
        (account.id,),
    )


@pytest.fixture
def segment(account, connection):
    """A new filter segment of the account."""
    of_it = Group(connection, connection, "SCD", account=account.id)
    connection.execute("UPDATE segments SET method = 'filter' WHERE id = %s", (of_it.id,))
    return of_it


@pytest.fixture
def sql(database_url):
    opened = store.engine(database_url)
    yield opened
    opened.dispose()


def refilter(sql, segment, expression, people=None):
    """Find a segment's members; gives how many there are, and whether somebody came or left."""
    with sql.begin() as connection:
        (row,) = filters.in_use(connection, segment.account, segment.id)
        before = connection.scalar(ROWS_READ)
        changed = filters.refilter(
            connection, row, expression, account_id=segment.account, kinds={}, ingestion_id=None, people=people
        )
        assert connection.scalar(ROWS_READ) - before < FAR_FEWER
        return connection.scalar(select(Segment.members).where(Segment.id == segment.id)), changed


@pytest.mark.rule("D41")
def test_members_of_a_filter_enter_and_leave(account, segment, sql):
    everybody = account.rows("SELECT profile_id FROM profiles WHERE account_id = %s")
    some = [profile_id for (profile_id,) in everybody[: PEOPLE // 2]]
    assert refilter(sql, segment, true()) == (PEOPLE, True)
    assert refilter(sql, segment, true()) == (PEOPLE, False)
    assert refilter(sql, segment, false(), some) == (PEOPLE // 2, True)
    assert refilter(sql, segment, true(), some) == (PEOPLE, True)
    assert refilter(sql, segment, Profile.profile_id.in_(some)) == (PEOPLE // 2, True)
    assert refilter(sql, segment, false()) == (0, True)


@pytest_asyncio.fixture
async def session(database_url):
    """A transaction of a door; at its end it has not gone through all of the people for each of them."""
    opened = store.async_engine(database_url)
    async with AsyncSession(opened) as began, began.begin():
        before = await began.scalar(ROWS_READ)
        yield began
        assert await began.scalar(ROWS_READ) - before < FAR_FEWER
    await opened.dispose()


@pytest.mark.rule("S6")
async def test_who_came_and_left_between_two_moments(segment, sql, session):
    refilter(sql, segment, true())
    moment = segment.now()
    refilter(sql, segment, false())
    of_it = await session.get_one(Segment, segment.id)
    cut = Cut(members.CHANGES["id"], descending=False, after=None, limit=PEOPLE)
    found = await members.changes(session, of_it, [1], cut, since=moment, until=segment.now())
    assert len(found) == PEOPLE


@pytest.mark.rule("D54")
async def test_a_person_and_what_they_did_are_found_by_their_id(account, session):
    happened(account)
    redirects = account.rows("SELECT survivor_id, profile_id FROM profile_redirects WHERE account_id = %s")
    person, gone = redirects[0]
    newest = Cut(events.OF_ACCOUNT["received_at"], descending=True, after=None, limit=20)
    of_person = Cut(events.OF_PERSON["ts"], descending=True, after=None, limit=20)
    before = await session.scalar(ROWS_READ)
    assert (await profiles.get_many(session, account.id, [gone]))[gone].profile_id == person
    assert len(await events.of_person(session, account.id, person, of_person)) == 1
    assert len(await events.page(session, account.id, newest, events.Received())) == 21
    assert await session.scalar(ROWS_READ) - before < 50


@pytest.mark.threat("T114")
async def test_people_are_erased(account, segment, sql, session):
    refilter(sql, segment, true())
    keys = SimpleNamespace(index_key=KEY)
    happened(account)
    found = account.rows("SELECT profile_id FROM profiles WHERE account_id = %s")
    wanted = {(1, profile_id) for (profile_id,) in found}
    erased = await erasure.erase_identifiers(session, account.id, wanted, keys=keys, now=NOW)
    assert (len(erased.profiles), erased.memberships) == (PEOPLE, PEOPLE)
    for table in (Profile, Event):
        assert await session.scalar(select(table).where(table.account_id == account.id).limit(1)) is None
