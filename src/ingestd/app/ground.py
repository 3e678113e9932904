"""What every part and every command stands on: the database, the blob store and the keyring."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ingestd.blobs.store import BlobStore, open_store
from ingestd.domain.errors import Unavailable
from ingestd.keyring import Keyring, SealedKeys, master_from_file
from ingestd.settings import Settings
from ingestd.store import accounts, embedded, events, schema
from ingestd.store import engine as store

OLDEST_POSTGRES: Final = 17
MASTER_KEY: Final = "master.key"


@dataclass(frozen=True)
class Base:
    """What every part and every command stands on: the database, migrated, the blob store and the keyring."""

    settings: Settings
    database_url: str = field(repr=False)
    alone: bool
    """Whether no other process can be using the database."""
    blobs: BlobStore
    blob_place: str | Path
    master: str = field(repr=False)
    keyring: Keyring


@contextmanager
def base(settings: Settings, *, serving: bool = False, migrating: bool = False) -> Iterator[Base]:
    """Open what everything stands on.

    The embedded database is started here and migrated, and ends with it; a command uses that of the running service.
    For `serving` it must be ours, or Conflict: two services on one data folder are one too many. Another database is
    migrated only if we are told to, and must be at the newest schema.
    """
    make_data_folder(settings)
    place = blob_place(settings)
    master = find_master_key(settings) or master_from_file(master_key_file(settings))
    keyring = Keyring.load(master)
    with _database(settings, serving=serving, migrating=migrating) as (url, alone):
        demand_fitting(keyring, url)
        yield Base(
            settings=settings,
            database_url=url,
            alone=alone,
            blobs=open_store(place),
            blob_place=place,
            master=master,
            keyring=keyring,
        )


def make_data_folder(settings: Settings) -> None:
    """Make the data folder where it is missing; Unavailable where it cannot be used."""
    folder = settings.data_dir.absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
    else:
        if os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            return
        reason = "it belongs to somebody else"
    raise Unavailable(
        f"The data folder {folder} cannot be used ({reason}). Let our user own it, or set INGESTD_DATA_DIR to another.",
        code="data_folder_unusable",
    )


def find_master_key(settings: Settings) -> str | None:
    """The master key that is set or in the data folder; None where the first start has yet to make one.

    Unavailable where it is missing: it is made at the embedded database's first start and never again (T153).
    """
    if settings.master_key is not None:
        return settings.master_key.get_secret_value()
    file = master_key_file(settings)
    if file.exists():
        return master_from_file(file)
    if settings.database_url is not None:
        raise Unavailable(
            "Set INGESTD_MASTER_KEY: with a database of your own no key is made for you. "
            "Make one with: ingestd keys master",
            code="master_key_missing",
        )
    if database_folder(settings).exists():
        raise Unavailable(
            f"{file} is missing, and what is stored was sealed with it. Put it back, or set INGESTD_MASTER_KEY.",
            code="master_key_missing",
        )
    return None


def demand_fitting(keyring: Keyring, url: str) -> None:
    """Raise Unavailable where there are accounts and the master key opens the keys of none.

    With a wrong one every request would fail, and what waits be given up. One account whose keys were damaged does not
    keep the others from being served.
    """
    with store.committing(url) as session:
        found = [(account.id, SealedKeys(account.data_keys, account.index_key)) for account in accounts.all_of(session)]
    if found and not any(keyring.opens(account_id, sealed) for account_id, sealed in found):
        raise Unavailable(
            "The master key is not the one that the accounts' keys are sealed with. Bring that one back: see "
            "INGESTD_MASTER_KEY, or master.key in the data folder.",
            code="master_key_wrong",
        )


def master_key_file(settings: Settings) -> Path:
    """Where the master key is, unless it is set."""
    return settings.data_dir.absolute() / MASTER_KEY


def database_folder(settings: Settings) -> Path:
    """Where the embedded database is."""
    return settings.data_dir.absolute() / "postgres"


def blob_place(settings: Settings) -> str | Path:
    """Where the blobs are: the URL that is set, or a folder in the data folder."""
    return settings.blob_url or settings.data_dir.absolute() / "blobs"


@contextmanager
def _database(settings: Settings, *, serving: bool, migrating: bool) -> Iterator[tuple[str, bool]]:
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        database_version(url)
        if migrating:
            migrate(url)
        engine = store.engine(url)
        schema.check(engine)
        engine.dispose()
        yield url, False
        return
    place = database_folder(settings)
    running_url = None if serving else embedded.find(place)
    if running_url is not None:
        yield running_url, False
        return
    with embedded.start(place, settings=settings.database_settings) as server:
        migrate(server.url)
        yield server.url, True


def database_version(url: str) -> int:
    """The major version of a database's PostgreSQL; Unavailable where it does not answer, is too old or unfit."""
    try:
        with store.autocommitting(url) as connection:
            version = connection.info.server_version // 10000
            unfit = _unfit(connection.info)
    except store.DatabaseError as error:  # what the driver says may quote the password
        raise Unavailable(
            f"The database does not answer ({type(error).__name__}). See INGESTD_DATABASE_URL: host, port, role, "
            "password and firewall.",
            code="database_unavailable",
        ) from None
    if version < OLDEST_POSTGRES:
        detail = f"PostgreSQL {version} is too old. Upgrade it to {OLDEST_POSTGRES} or later."
        raise Unavailable(detail, code="database_too_old")
    if unfit is not None:
        raise Unavailable(unfit, code="database_unfit")
    return version


def _unfit(info: store.ConnectionInfo) -> str | None:
    """Why a database cannot hold what we store, or not be read by the driver, as it tells at each login; or None."""
    encoding, dates = info.parameter_status("server_encoding"), info.parameter_status("DateStyle") or ""
    if encoding != "UTF8":
        return f"The database's encoding is {encoding}. Make one with the encoding UTF8."
    if not dates.startswith("ISO"):
        return f"The database's DateStyle is {dates}. Set it to ISO, for the database or for our role."
    if "on" in {info.parameter_status(name) for name in ("in_hot_standby", "default_transaction_read_only")}:
        return "The database cannot be written to: it is a standby, or default_transaction_read_only is on."
    return None


def migrate(url: str) -> None:
    """Bring a database to the newest schema, the job engine's tables included.

    These come first: where our role may not make their schema, the database stays behind, and every start says so.
    """
    from ingestd.ingest import engine as jobs  # noqa: PLC0415 -- most commands migrate nothing, and do not wait for it

    engine = store.engine(url)
    try:
        with schema.one_at_a_time(engine):
            jobs.migrate(url)
            schema.migrate(engine)
            with engine.begin() as connection:
                events.add_months(connection, store.utc_now())
    except store.PoolError as error:
        if not store.is_forbidden(error):
            raise
        detail = "Our role may not change the schema: let it own the database, or have CREATE on it and on public."
        raise Unavailable(detail, code="database_forbidden") from error
    finally:
        engine.dispose()
