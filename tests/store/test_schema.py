"""The migrated schema is the declared one, and every migration can be taken back."""

import shutil

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from ingestd.domain.errors import Unavailable
from ingestd.store import embedded, schema
from ingestd.store import engine as store


@pytest.fixture(scope="module")
def engine(temporary_folder):
    folder = temporary_folder()
    with embedded.start(folder / "postgres", settings={"fsync": "off", "shared_buffers": "64MB"}) as server:
        engine = store.engine(server.url)
        yield engine
        engine.dispose()
    embedded.remove(folder / "postgres")
    shutil.rmtree(folder)


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
