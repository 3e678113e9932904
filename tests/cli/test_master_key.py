"""The master key is rotated, whatever is broken off on the way (T111)."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from ingestd.cli import app as commands
from ingestd.domain import ids
from ingestd.domain.errors import Conflict
from ingestd.domain.ids import Prefix
from ingestd.keyring import Keyring, SealBroken, SealedKeys, master_from_file

BREAK = """
CREATE FUNCTION break_off() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'broken off'; END $$;
CREATE TRIGGER break_off BEFORE UPDATE ON accounts FOR EACH ROW WHEN (OLD.name = 'Second') EXECUTE FUNCTION break_off()
"""
TRAIL = "SELECT account_id, actor ->> 'type' FROM audit WHERE action = 'account.master_key_rotated' ORDER BY account_id"


class Place:
    """A database with accounts and no running service, and commands on it."""

    def __init__(self, environment):
        self.environment = environment

    def run(self, *arguments):
        return CliRunner().invoke(commands, list(arguments), env=self.environment)

    def rotate(self, step):
        return self.run("keys", "rotate-master", step)

    def account(self, name):
        made = self.run("accounts", "create", name)
        return ids.read(Prefix.ACCOUNT, re.search(r"acc_\w+", made.output)[0])

    def sql(self, statement):
        with psycopg.connect(self.environment["INGESTD_DATABASE_URL"], autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def opened(self, master):
        """The index key of each account that a master key opens, by its id."""
        found = {}
        for account, *sealed in self.sql("SELECT id, data_keys, index_key FROM accounts"):
            try:
                found[account] = Keyring.load(master).open(account, SealedKeys(*sealed)).index_key
            except SealBroken:
                continue
        return found


@pytest.fixture
def installed(place):
    made = Place(place)
    assert made.run("migrate").exit_code == 0
    return made


@pytest.mark.threat("T111")
def test_a_rotation_of_the_master_key_that_is_broken_off_goes_on_where_it_was(installed):
    old = installed.environment.pop("INGESTD_MASTER_KEY")
    file = Path(installed.environment["INGESTD_DATA_DIR"]) / "master.key"
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.write_text(old)
    file.chmod(0o600)
    first, second = installed.account("First"), installed.account("Second")
    before = installed.opened(old)
    assert before.keys() == {first, second}

    assert installed.rotate("add").exit_code == 0
    both = master_from_file(file)
    assert installed.opened(both) == installed.opened(old) == before
    installed.sql(BREAK)
    assert installed.rotate("seal").exit_code == 1
    assert installed.opened(both) == before  # whatever it was broken off at, everything opens
    assert installed.opened(old).keys() == {second}
    refused = installed.rotate("drop").exception
    assert isinstance(refused, Conflict)
    assert refused.code == "master_key_in_use"
    assert master_from_file(file) == both

    installed.sql("DROP TRIGGER break_off ON accounts")
    assert installed.rotate("seal").output.endswith(": 1\n")
    assert installed.rotate("seal").output.endswith(": 0\n")
    assert installed.rotate("drop").exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in file.parent.glob("*master*")] == ["master.key"]
    assert installed.opened(master_from_file(file)) == before
    assert installed.opened(old) == {}
    assert installed.sql(TRAIL) == [(first, "command"), (second, "command")]


@pytest.mark.threat("T111")
def test_a_master_key_of_the_environment_is_printed_for_it(installed):
    account = installed.account("Acme")
    old = installed.environment["INGESTD_MASTER_KEY"]
    installed.environment["INGESTD_MASTER_KEY"] = installed.rotate("add").stdout.strip()
    assert installed.rotate("seal").exit_code == 0
    newest = installed.rotate("drop").stdout.strip()
    assert installed.opened(newest).keys() == {account}
    assert installed.opened(old) == {}
