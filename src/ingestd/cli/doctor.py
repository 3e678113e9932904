"""`ingestd doctor`: the settings in force, secrets masked, and each thing the service depends on, with a remedy."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import httpx
from pydantic import BaseModel
from rich.console import Console

from ingestd import egress
from ingestd.app.ground import (
    blob_place,
    database_folder,
    database_version,
    demand_fitting,
    find_master_key,
    master_key_file,
)
from ingestd.app.serving import not_free
from ingestd.blobs import open_store
from ingestd.domain.errors import IngestdError, Unavailable
from ingestd.keyring import Keyring
from ingestd.notify.smtp import MailCode, mail_server
from ingestd.settings import Settings
from ingestd.sftpd.host_key import host_key, host_key_file
from ingestd.store import embedded, schema
from ingestd.store import engine as store
from ingestd.telemetry import SECRET_SHAPE

ROOM_BYTES: Final = 5 * 1024**3
ANSWER_SECONDS: Final = 2.0

PREFIX: Final = "INGESTD_"
OF_COMMANDS: Final = ("INGESTD_PUSH_", "INGESTD_ROLES", "INGESTD_SECRETS_DIR")
"""How variables begin that are no settings: options of commands, and where the secrets are."""

console = Console(highlight=False, soft_wrap=True)

Check = Callable[[Settings], str]
"""Gives what was found; raises an error of ours whose words are the remedy."""


def run() -> None:
    """Show the settings in force and check everything the service depends on; Unavailable if something is not well."""
    settings = Settings()
    for name, value in _settings(settings):
        console.print(f"{name}={value}", markup=False)
    failed = [name for name, check in CHECKS.items() if not _passes(name, check, settings)]
    if failed:
        raise Unavailable(f"{len(failed)} of {len(CHECKS)} checks failed: {', '.join(failed)}", code="doctor_failed")


def _passes(name: str, check: Check, settings: Settings) -> bool:
    try:
        console.print(f"ok    {name}: {check(settings)}", markup=False)
    except IngestdError as error:
        console.print(f"FAIL  {name}: {error.detail}", style="red", markup=False)
        return False
    return True


def _settings(model: BaseModel, prefix: str = PREFIX) -> Iterator[tuple[str, str]]:
    """Every setting as a variable, secrets masked."""
    for name in type(model).model_fields:
        value, variable = getattr(model, name), f"{prefix}{name.upper()}"
        if isinstance(value, BaseModel):
            yield from _settings(value, f"{variable}__")
        else:
            yield variable, SECRET_SHAPE.sub("***", _as_given(value))


def _as_given(value: Any) -> str:
    """A setting as its variable has it: nothing where none is set, lists and further settings as JSON."""
    if value is None:
        return ""
    return json.dumps(value, default=str) if isinstance(value, tuple | dict) else str(value)


def _variables(_: Settings) -> str:
    """Whether each variable of ours sets something; one that is mistyped further down is refused by the settings."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    ours = (name for name in map(str.upper, os.environ) if name.startswith(PREFIX))
    settings = (name for name in ours if not name.startswith(OF_COMMANDS))
    if unknown := sorted(name for name in settings if name.partition("__")[0] not in known):
        raise Unavailable(
            f"Nothing is set by {', '.join(unknown)}. Mend the name or take it away; Kubernetes adds such names of its "
            "own unless the pod has enableServiceLinks: false."
        )
    return "each sets something"


def _data_dir(settings: Settings) -> str:
    folder = settings.data_dir.absolute()
    if not folder.exists():
        return f"{folder} is made at the first start"
    if folder.stat().st_mode & 0o077:
        raise Unavailable(f"Others can enter {folder}. Run: chmod 700 '{folder}'")
    free = shutil.disk_usage(folder).free
    if free < ROOM_BYTES:
        raise Unavailable(f"{free / 1024**3:.1f} GiB are free at {folder}: less than one file may have. Make room.")
    return f"{folder}, {free / 1024**3:.0f} GiB free"


def _database_url(settings: Settings) -> str | None:
    """Where the database is, or None where it is the embedded one and does not run."""
    if settings.database_url is None:
        return embedded.find(database_folder(settings))
    return settings.database_url.get_secret_value()


def _database(settings: Settings) -> str:
    url = _database_url(settings)
    if url is None:
        return f"embedded, not running; its programs are at {Path(embedded.program('postgres')).parent}"
    version = database_version(url)
    engine = store.engine(url)
    try:
        schema.check(engine)
    finally:
        engine.dispose()
    return f"PostgreSQL {version}, at the newest schema"


def _blobs(settings: Settings) -> str:
    place = blob_place(settings)
    if isinstance(place, Path) and not place.exists():
        return f"{place} is made at the first start"
    try:
        open_store(place).check()
    except Unavailable as error:
        raise Unavailable(f"{error.detail} See INGESTD_BLOB_URL, its credentials, and the room at {place}.") from None
    return str(place)


def _master_key(settings: Settings) -> str:
    master, file = find_master_key(settings), master_key_file(settings)
    if master is None:
        return f"{file} is made at the first start"
    keyring, url = Keyring.load(master), _database_url(settings)
    if url is not None:
        with suppress(store.PoolError):  # what is wrong with the database its own check tells
            demand_fitting(keyring, url)
    return "from INGESTD_MASTER_KEY" if settings.master_key else f"{file}; keep a copy apart from the backups"


def _host_key(settings: Settings) -> str:
    file = host_key_file(settings.sftp, settings.data_dir)
    if settings.sftp.host_key is None and not file.exists():
        return f"{file} is made at the first start"
    return f"{file}, {host_key(file).get_fingerprint()}"


def _ports(settings: Settings) -> str:
    """Whether the ports are free, or the service has them already."""
    if _is_running(settings):
        return "in use by the service, which is running"
    for name, part in (("HTTP", settings.http), ("SFTP", settings.sftp), ("METRICS", settings.metrics)):
        try:
            socket.create_server((part.host, part.port)).close()
        except OSError as error:
            raise not_free(name, part.host, part.port, error) from None
    return "free"


def _is_running(settings: Settings) -> bool:
    """Whether the service has its embedded database open, or with another one answers at the operator's port."""
    if settings.database_url is None:
        return embedded.find(database_folder(settings)) is not None
    url = f"http://{settings.metrics.host}:{settings.metrics.port}/version"
    try:
        return "version" in httpx.get(url, timeout=ANSWER_SECONDS, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return False


def _mail(settings: Settings) -> str:
    """Whether the mail server may be connected to, and lets us in."""
    server = mail_server(settings.mail, egress.parse_allow(settings.egress_allow))
    if server is None:
        return "no mail server is set: mails are kept, and `ingestd messages` shows them"
    result = asyncio.run(server.greet())
    if result.code is not MailCode.DELIVERED:
        raise Unavailable(
            f"The mail server does not let us in ({result.code}). See INGESTD_MAIL__HOST, its port, security and "
            "login, and INGESTD_EGRESS_ALLOW where it is not public."
        )
    return f"{settings.mail.host}:{settings.mail.port}"


def _egress(settings: Settings) -> str:
    return f"{len(egress.parse_allow(settings.egress_allow))} private places may be connected to"


CHECKS: Final[dict[str, Check]] = {
    "variables": _variables,
    "data folder": _data_dir,
    "database": _database,
    "blob store": _blobs,
    "master key": _master_key,
    "SFTP host key": _host_key,
    "ports": _ports,
    "egress": _egress,
    "mail": _mail,
}
