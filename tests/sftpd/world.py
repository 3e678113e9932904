"""The door as a test sees it: the server, what stands behind it, and clients that knock."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncssh
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from ingestd.blobs.store import open_store
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.domain.plan import Limits
from ingestd.ingest.accounts import new_account
from ingestd.ingest.engine import JobEngine
from ingestd.ingest.intake import Intake
from ingestd.keyring import Keyring, new_master
from ingestd.settings import QuotaSettings, SftpSettings
from ingestd.sftpd.server import Server, listen
from ingestd.store import engine, import_keys
from ingestd.store.engine import Sessions, new_id, transaction
from ingestd.store.files import File
from ingestd.store.import_keys import ImportKey
from ingestd.store.ingestions import Ingestion
from ingestd.store.manifests import Manifest

LIMIT = 300 * 1024  # above that of a manifest
NOW = datetime(2026, 3, 1, tzinfo=UTC)
OPENSSH = shutil.which("sftp")


@dataclass
class Client:
    """An account, and the key with which it comes."""

    account_id: UUID
    key: asyncssh.SSHKey
    key_id: UUID
    key_file: Path
    port: int

    @property
    def username(self) -> str:
        return ids.show(Prefix.ACCOUNT, self.account_id)

    @asynccontextmanager
    async def connect(self, **options: Any) -> AsyncIterator[asyncssh.SSHClientConnection]:
        wanted = {"username": self.username, "client_keys": [self.key]} | options
        connection = await asyncssh.connect(
            "127.0.0.1", self.port, known_hosts=None, config=None, agent_path=None, **wanted
        )
        async with connection:
            yield connection

    @asynccontextmanager
    async def sftp(self, **options: Any) -> AsyncIterator[asyncssh.SFTPClient]:
        async with self.connect(**options) as connection, connection.start_sftp_client() as sftp:
            yield sftp


@dataclass
class World:
    """The door, and what stands behind it."""

    server: Server
    intake: Intake
    sessions: Sessions = field(repr=False)
    blobs: Path
    folder: Path

    async def client(self, *, sftp: bool = True, key: asyncssh.SSHKey | None = None) -> Client:
        """A new account with a key."""
        account = new_account(
            self.intake.keyring,
            name="Acme",
            time_zone="UTC",
            sync_time=time(3),
            features={"sftp": sftp},
            email_domains=["example.org"],
            now=NOW,
        )
        async with transaction(self.sessions) as session:
            session.add(account)
        return await self.key_of(account.id, key=key)

    async def key_of(self, account_id: UUID, *, key: asyncssh.SSHKey | None = None) -> Client:
        """A new key of an account."""
        key = key or asyncssh.generate_private_key("ssh-ed25519")
        path = self.folder / f"{new_id().hex}"
        path.write_bytes(key.export_private_key())
        path.chmod(0o600)
        row = ImportKey(
            id=new_id(),
            account_id=account_id,
            name=path.name,
            public_key=key.export_public_key().decode(),
            fingerprint=key.get_fingerprint(),
            created_at=NOW,
        )
        async with transaction(self.sessions) as session:
            session.add(row)
        return Client(account_id, key, row.id, path, self.server.port)

    async def revoke(self, client: Client) -> None:
        async with transaction(self.sessions) as session:
            (await import_keys.get(session, client.account_id, client.key_id)).revoked_at = NOW

    async def rows(self, table: type[Any], client: Client | None = None) -> list[Any]:
        """The rows of a table, in the order in which they were made."""
        found = select(table).order_by(table.id)
        if client is not None:
            found = found.where(table.account_id == client.account_id)
        async with self.sessions() as session:
            return list(await session.scalars(found))

    async def files(self, client: Client | None = None) -> list[tuple[str, int, str]]:
        """Name, size and state of each file."""
        return [(file.name, file.size_bytes, file.state) for file in await self.rows(File, client)]

    async def ingestions(self, client: Client | None = None) -> list[tuple[str, str | None, int | None]]:
        """Status, error and sequence number of each ingestion."""
        found = await self.rows(Ingestion, client)
        return [(row.status, row.error and row.error["message"], row.seq) for row in found]

    async def content(self, file: File | Manifest) -> bytes:
        keys = await self.intake.keys(file.account_id)
        with self.intake.blobs.open(file.blob, keys) as blob:
            return b"".join(iter(lambda: blob.read(LIMIT), b""))

    def stored(self) -> list[str]:
        """What stands in the folder of blobs, parts included."""
        return sorted(path.name for path in self.blobs.iterdir())


@asynccontextmanager
async def opened(
    doors: AsyncEngine,
    job_engine: JobEngine,
    folder: Path,
    *,
    quota: QuotaSettings = QuotaSettings(),  # noqa: B008 -- frozen
    file_bytes: int = LIMIT,
    **settings: Any,
) -> AsyncIterator[World]:
    async with doors.begin() as connection:
        await connection.execute(text("TRUNCATE accounts CASCADE"))
    sessions = engine.sessions(doors)
    blobs = folder / "blobs"
    keyring = Keyring.load(new_master())
    door = SftpSettings(port=0, **settings)
    intake = Intake(
        *(sessions, job_engine, open_store(blobs), keyring, Limits(file_bytes=file_bytes), quota),
        manifest_grace=timedelta(seconds=door.manifest_grace),
    )
    server = await listen(intake, door, folder=folder)
    yield World(server, intake, sessions, blobs, folder)
    await server.close()
    await intake.close()
    assert not [name for name in blobs.iterdir() if name.name.startswith(".")], "a part was left behind"


def manifest(file_name: str = "x.csv", **changes: Any) -> bytes:
    """A manifest that holds together."""
    return json.dumps(
        {"type": "profile", "fileName": file_name, "clientEmail": "a@example.org", "columns": {}} | changes
    ).encode()


async def put(sftp: asyncssh.SFTPClient, name: str, data: bytes) -> None:
    async with sftp.open(name, "wb") as file:
        await file.write(data)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so; the test's time limit ends a wait in vain."""
    while not await condition():  # noqa: ASYNC110 -- what happens here happens in a database or a client
        await asyncio.sleep(0.005)
