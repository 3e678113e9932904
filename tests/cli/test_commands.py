"""The command line as a whole: examples, exit codes, the doctor, and keys."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from importlib.metadata import entry_points

import asyncssh
import psycopg
import pytest
import typer
from typer.testing import CliRunner

from ingestd import __version__
from ingestd.cli import app as commands
from ingestd.cli import serve
from ingestd.cli.doctor import PREFIX
from ingestd.domain import ids
from ingestd.domain.errors import Invalid, NotFound, Unavailable
from ingestd.domain.ids import Prefix
from ingestd.keyring import Keyring, new_master
from ingestd.store.engine import new_id

GROUP = typer.main.get_command(commands)
SECRET = "isk_and_more"


def all_commands(group=GROUP, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from all_commands(command, (*path, name))
        else:
            yield (*path, name), command


def run(*arguments, **environment):
    return CliRunner().invoke(commands, list(arguments), env=environment)


@pytest.mark.parametrize(("path", "command"), list(all_commands()), ids=str)
def test_every_command_says_what_it_does_with_an_example_of_itself(path, command):
    assert command.help
    takes_arguments = any(isinstance(each, typer.core.TyperArgument) for each in command.params)
    assert not takes_arguments or re.search(rf"Example: (\w+=\S+ )?ingestd {' '.join(path)} ", command.help)


def test_the_version_is_told():
    told = run("--version")
    assert (told.exit_code, told.stdout) == (0, f"ingestd {__version__}\n")


def test_a_failure_is_one_line_and_exit_code_1_and_a_wrong_call_is_2(tmp_path):
    def ends(*arguments):
        environment = {"INGESTD_DATA_DIR": str(tmp_path / "data"), "INGESTD_HTTP__PORT": SECRET, "PATH": "/usr/bin"}
        command = [sys.executable, "-m", "ingestd", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    failed = ends("doctor")
    assert failed.returncode == 1
    assert failed.stderr.startswith("ingestd: Settings do not fit.\n  INGESTD_HTTP__PORT: Input should be a valid")
    assert SECRET not in failed.stdout + failed.stderr
    assert ends("serve", "--roles", "cook").returncode == 2


def test_what_a_spawned_process_imports_of_the_script_is_not_the_commands():
    [script] = entry_points(group="console_scripts", name="ingestd")
    code = f"import {script.module}, sys; print('ingestd.cli' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


def test_a_command_imports_only_what_it_needs(tmp_path):
    code = """
import sys
from ingestd.cli import app
from typer.testing import CliRunner

def took(*arguments, **environment):
    done = CliRunner().invoke(app, list(arguments), env=environment)
    print(done.exit_code, *sorted({"polars", "fastapi", "dbos", "sqlalchemy"} & set(sys.modules)))

took("--help")
took("keys", "master")
took("serve", INGESTD_HTTP__PORT="none")
took("check", *sys.argv[1:])
nowhere = {"INGESTD_DATA_DIR": sys.argv[1] + ".data", "INGESTD_DATABASE_URL": "postgresql://127.0.0.1:9/none"}
for command in (("accounts", "list"), ("keys", "list", "acc_1"), ("messages", "list", "acc_1"), ("doctor",)):
    took(*command, **nowhere)
"""
    (tmp_path / "x.csv").write_bytes(b"identity\nann\n")
    (tmp_path / "x.manifest").write_text(
        '{"type": "profile", "fileName": "x.csv", "clientEmail": "a@example.org", "columns": {}}'
    )
    command = [sys.executable, "-c", code, tmp_path / "x.csv", tmp_path / "x.manifest"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.splitlines() == ["0", "0", "1", "0 polars", *["1 polars sqlalchemy"] * 4]


@pytest.mark.threat("T154")
def test_doctor_shows_the_settings_without_secrets_and_passes_a_sound_place(tmp_path):
    free = {"INGESTD_HTTP__PORT": "0", "INGESTD_SFTP__PORT": "0", "INGESTD_METRICS__PORT": "0"}
    master = run("keys", "master").output.strip()
    Keyring.load(master)
    found = run("doctor", INGESTD_DATA_DIR=str(tmp_path / "data"), INGESTD_MASTER_KEY=master, **free)
    assert found.exit_code == 0, found.output
    assert "INGESTD_MASTER_KEY=**********" in found.output
    assert master not in found.output
    assert "FAIL  " not in found.output
    assert not (tmp_path / "data").exists()


def test_doctor_shows_each_setting_as_its_variable_has_it(tmp_path, monkeypatch):
    given = {
        "INGESTD_DATA_DIR": str(tmp_path / "data"),
        "INGESTD_EGRESS_ALLOW": '["127.0.0.1/32:22", "127.0.0.1/32:443"]',
        "INGESTD_SFTP__EXEMPT": '["10.0.0.0/8"]',
        "INGESTD_DATABASE_SETTINGS": '{"shared_buffers": "1GB"}',
        "INGESTD_MAIL__HOST": "",
    }
    shown = dict(line.split("=", 1) for line in run("doctor", **given).output.splitlines() if line.startswith(PREFIX))
    assert {name: shown[name] for name in given} == given
    for name, value in shown.items():
        monkeypatch.setenv(name, value)
    again = dict(line.split("=", 1) for line in run("doctor").output.splitlines() if line.startswith(PREFIX))
    assert {name: value.removesuffix(".0") for name, value in again.items()} == shown


def test_doctor_says_what_is_wrong_and_what_to_do(tmp_path, ground, app):
    (tmp_path / "data").mkdir(mode=0o755)
    found = run(
        "doctor",
        INGESTD_DATA_DIR=str(tmp_path / "data"),
        INGESTD_DATABASE_URL="postgresql://ingestd:hidden@127.0.0.1:9/ingestd",
        INGESTD_HTTP__PORT=str(app.http_port),
        INGESTD_BLOB_URL="ftp://nowhere",
        INGESTD_EGRESS_ALLOW='["everything"]',
        INGESTD_MAIL__HOST="10.0.0.1",
        INGESTD_HTP__PORT="80",
        INGESTD_MASTERKEY="mistyped",
        INGESTD_PUSH_PORT="2222",
    )
    assert isinstance(found.exception, Unavailable)
    told = {
        line.split(":")[0].removeprefix("FAIL  "): line
        for line in found.output.splitlines()
        if line.startswith("FAIL  ")
    }
    assert told.pop("variables").startswith("FAIL  variables: Nothing is set by INGESTD_HTP__PORT, INGESTD_MASTERKEY. ")
    assert told.keys() == {"data folder", "database", "blob store", "master key", "ports", "egress", "mail"}
    assert "chmod 700" in told["data folder"]
    assert "INGESTD_DATABASE_URL" in told["database"]
    assert "ingestd keys master" in told["master key"]
    assert "INGESTD_HTTP__PORT" in told["ports"]
    assert "hidden" not in found.output


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"INGESTD_DATABASE_URL": "postgresql://ingestd:hidden@127.0.0.1:9/ingestd"}, "See INGESTD_DATABASE_URL"),
        ({"INGESTD_DATABASE_URL": "mysql://ingestd:hidden@127.0.0.1/ingestd"}, "See INGESTD_DATABASE_URL"),
        ({"INGESTD_DATA_DIR": "/dev/null/data"}, "INGESTD_DATA_DIR"),
        ({"INGESTD_DATA_DIR": "/dev/null"}, "INGESTD_DATA_DIR"),
    ],
)
def test_a_place_that_cannot_be_used_is_named_with_what_to_do(tmp_path, changes, remedy):
    place = {"INGESTD_DATA_DIR": str(tmp_path / "data"), "INGESTD_MASTER_KEY": new_master()}
    refused = run("accounts", "list", **place | changes).exception
    assert isinstance(refused, Unavailable)
    assert remedy in refused.detail
    assert "hidden" not in refused.detail


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ("ALTER DATABASE {} SET default_transaction_read_only = on", "default_transaction_read_only"),
        ("ALTER DATABASE {} SET datestyle = 'German'", "DateStyle"),
        ("DROP DATABASE {}; CREATE DATABASE {} TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'", "UTF8"),
    ],
)
def test_a_database_that_cannot_hold_all_that_is_stored_is_refused_before_anything_is(ground, place, change, remedy):
    name = re.search(r"/(own_\w+)\?", place["INGESTD_DATABASE_URL"])[1]
    with psycopg.connect(ground.database_url, autocommit=True) as connection:
        for statement in change.replace("{}", name).split(";"):
            connection.execute(statement)
    for command in (("migrate",), ("accounts", "list")):
        refused = run(*command, **place).exception
        assert isinstance(refused, Unavailable)
        assert (refused.code, remedy in refused.detail) == ("database_unfit", True), refused.detail
    assert remedy in re.search("FAIL  database: .*", run("doctor", **place).output)[0]


@pytest.mark.threat("T154")
def test_the_password_of_the_database_may_stand_apart_from_its_url(place):
    url = place["INGESTD_DATABASE_URL"]
    password = re.search(r"//ingestd:([^@]+)@", url)[1]
    apart = place | {"INGESTD_DATABASE_URL": url.replace(f":{password}@", "@"), "PGPASSWORD": password}
    assert run("migrate", **apart).exit_code == 0
    assert run("accounts", "create", "Acme", **apart).exit_code == 0


@pytest.mark.threat("T110")
def test_a_master_key_that_opens_no_account_is_refused(place):
    assert run("migrate", **place).exit_code == 0
    assert run("accounts", "create", "Acme", **place).exit_code == 0
    wrong = place | {"INGESTD_MASTER_KEY": new_master()}
    refused = run("accounts", "list", **wrong).exception
    assert isinstance(refused, Unavailable)
    assert refused.code == "master_key_wrong"
    assert "FAIL  master key: " in run("doctor", **wrong).output
    assert "ok    master key: " in run("doctor", **place).output


def test_a_role_that_may_not_migrate_is_told_so_and_the_database_stays_behind(place):
    with psycopg.connect(place["INGESTD_DATABASE_URL"], autocommit=True) as database:
        name = psycopg.sql.Identifier(database.info.dbname)
        database.execute(psycopg.sql.SQL("REVOKE CREATE ON DATABASE {} FROM CURRENT_USER").format(name))
    refused = run("migrate", **place).exception
    assert isinstance(refused, Unavailable)
    assert refused.code == "database_forbidden"
    assert "Run: ingestd migrate" in run("doctor", **place).output


async def test_doctor_knows_the_service_with_its_own_database_by_its_answer(app, place):
    ports = {"INGESTD_HTTP__PORT": str(app.http_port), "INGESTD_METRICS__PORT": str(app.operations_port)}
    told = await asyncio.to_thread(run, "doctor", **place | ports)
    assert "ok    ports: in use by the service" in told.output
    told = await asyncio.to_thread(run, "doctor", **place | ports | {"INGESTD_METRICS__PORT": "0"})
    assert re.search(r"FAIL  ports: .*cannot be listened on", told.output)


def test_a_database_of_a_newer_release_is_not_migrated(place):
    assert run("migrate", **place).exit_code == 0
    with psycopg.connect(place["INGESTD_DATABASE_URL"], autocommit=True) as database:
        database.execute("UPDATE alembic_version SET version_num = '20991231_later'")
    refused = run("migrate", **place).exception
    assert isinstance(refused, Unavailable)
    assert refused.code == "schema_ahead"


def test_a_file_that_is_no_public_key_is_refused(place, tmp_path):
    assert run("migrate", **place).exit_code == 0
    account = re.search(r"acc_\w+", run("accounts", "create", "Acme", **place).output)[0]
    (tmp_path / "key.pub").write_bytes(b"\xff\xfe")
    refused = run("keys", "add", account, str(tmp_path / "key.pub"), **place).exception
    assert isinstance(refused, Invalid)
    assert refused.code == "public_key_invalid"


def test_doctor_tells_that_the_master_key_is_lost(tmp_path):
    (tmp_path / "data" / "postgres").mkdir(parents=True)
    told = re.search(".* master key: .*", run("doctor", INGESTD_DATA_DIR=str(tmp_path / "data")).output)[0]
    assert told.startswith("FAIL")
    assert "master.key is missing" in told


def test_a_backup_that_cannot_be_written_is_said_so(place):
    assert run("migrate", **place).exit_code == 0
    refused = run("backup", "/proc/backup", **place).exception
    assert isinstance(refused, Unavailable)
    assert "/proc/backup cannot be written" in refused.detail


async def test_the_first_start_says_how_to_be_named_in_a_manifest(app, tenant):
    wanted = re.search(r"-d '(.*)'", serve.welcome(app, tenant.id, tenant.key))[1]
    made = await tenant.http.post("/v1/recipients", json=json.loads(wanted))
    assert (made.status_code, made.json()["address"]) == (201, "you@example.com")


def test_import_keys_are_registered_listed_and_revoked(tmp_path, ground, app):
    here = {"INGESTD_DATA_DIR": str(ground.settings.data_dir)}
    account = re.search(r"acc_\w+", run("accounts", "create", "Acme", **here).output)[0]
    pair = asyncssh.generate_private_key("ssh-ed25519")
    pair.write_public_key(tmp_path / "id.pub")
    assert pair.get_fingerprint() in run("keys", "add", account, str(tmp_path / "id.pub"), **here).output
    assert run("keys", "list", account, **here).output == f"id  {pair.get_fingerprint()}  never used\n"
    assert run("keys", "revoke", account, pair.get_fingerprint(), **here).exit_code == 0
    assert "revoked 20" in run("keys", "list", account, **here).output
    assert isinstance(run("keys", "revoke", account, pair.get_fingerprint(), **here).exception, NotFound)
    trail = "SELECT action, actor ->> 'type' FROM audit WHERE account_id = %s ORDER BY id"
    with psycopg.connect(ground.database_url) as connection:
        noted = connection.execute(trail, (ids.read(Prefix.ACCOUNT, account),)).fetchall()
    actions = ("account.created", "api_key.created", "import_key.created", "import_key.revoked")
    assert noted == [(action, "command") for action in actions]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Acme", "--time-zone", "Mars"], "--time-zone: Is not a time zone"),
        (["Acme", "--email-domain", "not a domain"], "--email-domain"),
        ([""], "NAME"),
    ],
)
def test_an_account_that_the_api_would_refuse_is_not_made(ground, app, arguments, said):
    here = {"INGESTD_DATA_DIR": str(ground.settings.data_dir)}
    before = run("accounts", "list", **here).output
    refused = run("accounts", "create", *arguments, **here)
    assert refused.exit_code == 2
    assert said.lower() in " ".join(refused.output.replace("│", " ").split()).lower()
    assert run("accounts", "list", **here).output == before


def test_an_account_that_is_not_there_is_said_so(ground, app):
    here = {"INGESTD_DATA_DIR": str(ground.settings.data_dir)}
    nobody = ids.show(Prefix.ACCOUNT, new_id())
    for group in ("keys", "messages"):
        assert isinstance(run(group, "list", nobody, **here).exception, NotFound)


def test_an_account_is_deleted_after_a_question_which_holds_nothing(ground, app, monkeypatch):
    here = {"INGESTD_DATA_DIR": str(ground.settings.data_dir)}
    account = re.search(r"acc_\w+", run("accounts", "create", "Acme", **here).output)[0]

    def ask(text, **_):
        assert f"Delete Acme ({account})" in text
        with psycopg.connect(ground.database_url) as connection:
            row = (ids.read(Prefix.ACCOUNT, account),)
            connection.execute("SELECT FROM accounts WHERE id = %s FOR UPDATE NOWAIT", row)
        raise typer.Abort

    with monkeypatch.context() as patched:
        patched.setattr(typer, "confirm", ask)
        assert isinstance(run("accounts", "delete", account, **here).exception, SystemExit)
    assert run("accounts", "delete", account, **here).exit_code == 1
    assert account in run("accounts", "list", **here).output
    assert run("accounts", "delete", account, "--yes", **here).output == f"deleted {account}\n"
    assert account not in run("accounts", "list", **here).output
    assert isinstance(run("accounts", "delete", account, "--yes", **here).exception, NotFound)
