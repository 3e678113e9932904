"""The migrated schema is the declared one, and every migration can be taken back."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from tests.conftest import own_database

from ingestd.domain.errors import Unavailable
from ingestd.store import engine as store
from ingestd.store import schema


@pytest.fixture(scope="module")
def engine():
    with own_database() as url:
        engine = store.engine(url)
        yield engine
        engine.dispose()


def differences(engine):
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": schema.is_declared})
        return compare_metadata(context, schema.METADATA)


def take_back(engine):
    with engine.begin() as connection:
        command.downgrade(schema.configuration(connection), "base")


def tables(engine):
    with engine.connect() as connection:
        return set(connection.scalars(text("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")))


def test_up_down_and_up_again_gives_the_declared_schema(engine):
    schema.migrate(engine)
    assert differences(engine) == []
    first = tables(engine)
    take_back(engine)
    assert tables(engine) - {"alembic_version", "alembic_version_pkc"} == set()
    schema.migrate(engine)
    assert tables(engine) == first
    assert differences(engine) == []
    schema.check(engine)


ACCOUNT = """
    INSERT INTO accounts
        (id, name, time_zone, sync_time, features, email_domains, next_seq, data_keys, index_key, created_at)
    VALUES (:account, 'a', 'UTC', '12:00', '{}', '[]', 1, '', '', now())
"""
SEGMENT = """
    INSERT INTO segments (id, account_id, name, description, type, method, upload_type, status, members, created_at)
    VALUES (:segment, :account, 'a', '', 'SCD', 'upload', 'manual', 'active', 0, now())
"""
MEMBER = """
    INSERT INTO segment_members VALUES (:account, :segment, :hash, :valid_from, :valid_to, 1, :partition, 'ann')
"""


def to(engine, step, revision):
    with engine.begin() as connection:
        step(schema.configuration(connection), revision)


def test_members_of_segments_are_kept_when_their_key_is_changed_and_changed_back(engine):
    """Their segment's number stands for account and segment."""
    account, segment = uuid4(), uuid4()
    first, second = (datetime(2026, 3, day, tzinfo=UTC) for day in (3, 4))
    stayed, moved = {"hash": UUID(int=2)}, {"hash": UUID(int=1)}
    rows = [
        stayed | {"valid_from": first, "valid_to": None, "partition": 1},
        moved | {"valid_from": first, "valid_to": second, "partition": 1},
        moved | {"valid_from": second, "valid_to": None, "partition": 2},
    ]
    members = "SELECT hash, valid_from, valid_to, kind, partition, value FROM segment_members ORDER BY hash, valid_from"
    schema.migrate(engine)
    to(engine, command.downgrade, "20261126_members_key")
    with engine.begin() as connection:
        owner = {"account": account, "segment": segment}
        connection.execute(text(ACCOUNT), owner)
        connection.execute(text(SEGMENT), owner)
        connection.execute(text(MEMBER), [owner | row for row in rows])
        before = connection.execute(text(members)).all()
        assert len(before) == len(rows)
    schema.migrate(engine)
    with engine.connect() as connection:
        assert connection.execute(text(members)).all() == before
        of = "SELECT DISTINCT s.id FROM segment_members m JOIN segments s ON s.number = m.segment"
        assert connection.scalars(text(of)).all() == [segment]
    to(engine, command.downgrade, "20261126_members_key")
    with engine.connect() as connection:
        assert connection.execute(text(members)).all() == before
        of = "SELECT DISTINCT account_id, segment_id FROM segment_members"
        assert connection.execute(text(of)).all() == [(account, segment)]


def test_what_people_have_is_kept_when_it_is_stored_as_text_and_changed_back(engine):
    documents = '{"Zip": "z, \\\\\\"", "Age": 1.50, "L": ["a", {"$D": 5}]}', '{"sms": true}', '{"identity": ["ann"]}'
    names = "attributes, preferences, identifiers"
    person = "SELECT attributes::jsonb, preferences::jsonb, identifiers::jsonb FROM profiles"
    counted = "SELECT DISTINCT attstattarget FROM pg_attribute JOIN pg_class c ON c.oid = attrelid"
    counted += " WHERE relname LIKE 'profiles_p___' AND attname = ANY (string_to_array(:names, ', '))"
    before = "20261126_small_samples"
    schema.migrate(engine)
    to(engine, command.downgrade, before)
    with engine.begin() as connection:
        insert = f"INSERT INTO profiles (account_id, profile_id, origin, created_at, updated_at, {names})"
        values = ", ".join(f"CAST(:{number} AS jsonb)" for number in range(len(documents)))
        stored = {str(number): text_ for number, text_ in enumerate(documents)}
        connection.execute(text(f"{insert} VALUES (:id, :id, 1, now(), now(), {values})"), stored | {"id": uuid4()})
        old = connection.execute(text(person)).all()
    for step, revision in (command.upgrade, "head"), (command.downgrade, before):
        to(engine, step, revision)
        with engine.connect() as connection:
            assert connection.execute(text(person)).all() == old
            assert connection.scalars(text(counted), {"names": names}).all() == [0]
    schema.migrate(engine)


def test_a_schema_behind_is_named_with_its_remedy(engine):
    take_back(engine)
    with pytest.raises(Unavailable, match="Run: ingestd migrate"):
        schema.check(engine)
    schema.migrate(engine)


def test_a_declared_column_that_no_migration_makes_is_noticed(engine):
    schema.migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE files DROP COLUMN sha256"))
    try:
        assert [change[0] for change in differences(engine)] == ["add_column"]
    finally:
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE files ADD COLUMN sha256 text NOT NULL"))


def test_every_reference_has_an_index_so_that_a_row_can_go_without_a_look_at_the_whole_table(engine):
    """But those to accounts, which go one at a time."""
    schema.migrate(engine)
    query = """
        SELECT c.conrelid::regclass || '.' || a.attname FROM pg_constraint c
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        WHERE c.contype = 'f' AND c.connamespace = 'public'::regnamespace AND c.confrelid <> 'accounts'::regclass
        AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.conrelid AND i.indkey[0] = c.conkey[1])
    """
    with engine.connect() as connection:
        assert set(connection.scalars(text(query))) == set()
