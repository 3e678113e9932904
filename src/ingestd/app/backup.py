"""Backup and restore of all that a service is: its database, its blobs and its keys, in one folder.

    folder/             0700, for one backup
    ├── database.dump   PostgreSQL's custom format, of one moment
    ├── blobs/          sealed as they are, at least those that the database names
    ├── master.key      0600; whoever has it can read everything else
    ├── sftp_host_key   0600, so that clients find the same server
    └── backup.json     written last: without it the backup is not whole

Blobs never change. So the database is written first and its blobs after it, while nobody removes any; the service goes
on meanwhile.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ingestd import __version__
from ingestd.app.ground import (
    MASTER_KEY,
    Base,
    blob_place,
    database_folder,
    make_data_folder,
    master_key_file,
)
from ingestd.blobs.store import BlobStore, open_store
from ingestd.domain.errors import Conflict, NotFound, Unavailable
from ingestd.keyring import private_file
from ingestd.settings import Settings
from ingestd.sftpd.host_key import HOST_KEY_FILE, host_key_file
from ingestd.store import dump, embedded
from ingestd.store.engine import utc_now

NOTE: Final = "backup.json"
DUMP: Final = "database.dump"


@dataclass(frozen=True)
class Backup:
    """What a backup is of."""

    version: str
    made_at: str
    blobs: int


def backup(ground: Base, folder: Path) -> Backup:
    """Write a backup into a new or empty folder; the service may run."""
    _demand_empty(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / DUMP).touch(mode=0o600)  # the folder may have been there, and be open to others
    except OSError as error:
        raise Unavailable(f"{folder} cannot be written ({error.strerror}).", code="backup_unwritable") from None
    made_at = utc_now().isoformat(timespec="seconds")
    with dump.keeping_blobs(ground.database_url):
        dump.write(ground.database_url, folder / DUMP)
        copied = ground.blobs.copy_to(open_store(folder / "blobs"))
    private_file.create(folder / MASTER_KEY, ground.master.encode())
    host_key = host_key_file(ground.settings.sftp, ground.settings.data_dir)
    if host_key.exists():
        private_file.create(folder / HOST_KEY_FILE, host_key.read_bytes())
    done = Backup(__version__, made_at, copied)
    (folder / NOTE).write_text(json.dumps(asdict(done)))
    return done


def restore(settings: Settings, folder: Path) -> Backup:
    """Bring a backup back to an empty place: a new data folder, an empty database and an empty blob store.

    The master key comes last: without it a start refuses what a restore that broke off has left.
    """
    if not (folder / NOTE).exists():
        raise NotFound(f"{folder} holds no whole backup: {NOTE} is missing.")
    try:
        done = Backup(**json.loads((folder / NOTE).read_text()))
    except (ValueError, TypeError):
        raise NotFound(f"{folder} holds no whole backup: {NOTE} cannot be read.") from None
    data = settings.data_dir.absolute()
    make_data_folder(settings)
    blobs = open_store(blob_place(settings))
    with ExitStack() as stack:
        url = _empty_database(settings, data, blobs, stack)
        open_store(folder / "blobs").copy_to(blobs)
        dump.load(url, folder / DUMP)
        for name, elsewhere in ((HOST_KEY_FILE, settings.sftp.host_key), (MASTER_KEY, settings.master_key)):
            if elsewhere is None and (folder / name).exists():
                private_file.create(data / name, (folder / name).read_bytes())
    return done


def _empty_database(settings: Settings, data: Path, blobs: BlobStore, stack: ExitStack) -> str:
    """The database to restore to, or Conflict where there is anything already."""
    if any(each.exists() for each in (master_key_file(settings), data / HOST_KEY_FILE, database_folder(settings))):
        raise Conflict(
            f"{data} holds a service already, or what is left of a restore that broke off. Restore to a new "
            "INGESTD_DATA_DIR.",
            code="not_empty",
        )
    if next(blobs.list(), None) is not None:
        raise Conflict("The blob store is not empty. Restore to an empty one.", code="not_empty")
    if settings.database_url is None:
        return stack.enter_context(embedded.start(database_folder(settings), settings=settings.database_settings)).url
    url = settings.database_url.get_secret_value()
    if not dump.is_empty(url):
        raise Conflict("The database is not empty. Restore to an empty one.", code="not_empty")
    return url


def _demand_empty(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"{folder} is not empty: every backup has a folder of its own.", code="not_empty")
