"""Connections: the FTP and SFTP servers of an account (S17, S18)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary, UniqueConstraint, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, Session, mapped_column

from ingestd.domain import ids
from ingestd.domain.connection import (
    MAX_CONNECTIONS,
    PLAIN_WARNING,
    Auth,
    ConnectionView,
    HostKey,
    Kind,
    parse_host_key,
    view_of_key,
)
from ingestd.domain.errors import Conflict
from ingestd.domain.ids import Prefix
from ingestd.store.base import Base, Key
from ingestd.store.owned import check_room, get_owned
from ingestd.store.page import Cut, Sorts


class Connection(Base):
    """A connection. `secret` is the password or private key, sealed; `host_keys` are the pinned ones, one line each.

    `changed_host_key` is one that the server showed in place of a pinned one: until others are pinned, nothing is
    fetched.
    """

    __tablename__ = "connections"
    __table_args__ = (UniqueConstraint("account_id", "name"),)

    id: Mapped[Key]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str]
    kind: Mapped[str]
    host: Mapped[str]
    port: Mapped[int]
    root: Mapped[str]
    username: Mapped[str]
    auth: Mapped[str]
    secret: Mapped[bytes] = mapped_column(LargeBinary)
    public_key: Mapped[str | None]
    host_keys: Mapped[list[Any]]
    changed_host_key: Mapped[str | None]
    host_key_changed_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    def pinned(self) -> tuple[HostKey, ...]:
        """The keys that the server is known by."""
        return tuple(parse_host_key(line, Kind(self.kind)) for line in self.host_keys)

    def pin(self, host_keys: Sequence[str]) -> None:
        """Know the server by these keys from now on, and forget that it showed another."""
        self.host_keys = list(host_keys)
        self.changed_host_key, self.host_key_changed_at = None, None


SORTS: Final[Sorts] = {"created_at": (Connection.id,), "name": (Connection.name, Connection.id)}


def secret_context(connection_id: UUID) -> str:
    """The place that a connection's secret is sealed for (T112)."""
    return f"connections/{connection_id.hex}/secret"


def view(connection: Connection) -> ConnectionView:
    """The connection as it is shown."""
    kind, changed = Kind(connection.kind), connection.changed_host_key
    return ConnectionView(
        id=ids.show(Prefix.CONNECTION, connection.id),
        name=connection.name,
        kind=kind,
        host=connection.host,
        port=connection.port,
        root=connection.root,
        username=connection.username,
        auth=Auth(connection.auth),
        public_key=connection.public_key,
        host_keys=[view_of_key(key) for key in connection.pinned()],
        changed_host_key=view_of_key(parse_host_key(changed, kind)) if changed else None,
        host_key_changed_at=connection.host_key_changed_at,
        warnings=[PLAIN_WARNING] if kind is Kind.FTP else [],
        created_at=connection.created_at,
        updated_at=connection.updated_at,
    )


async def add(session: AsyncSession, connection: Connection) -> None:
    """Keep a new connection, or raise Conflict where its name is taken or the account has all it may have (S18)."""
    await check_room(session, Connection, connection.account_id, MAX_CONNECTIONS, called="connections")
    session.add(connection)
    await session.run_sync(flush)


def flush(session: Session) -> None:
    """Write what has changed, or raise Conflict where the name is taken.

    An asynchronous session calls it by `run_sync`.
    """
    try:
        session.flush()
    except IntegrityError as error:
        if "uq_connections_account_id_name" not in str(error.orig):
            raise
        raise Conflict("The account has a connection of this name already.", code="connection_exists") from None


async def page(session: AsyncSession, account_id: UUID, cut: Cut) -> Sequence[Connection]:
    """Connections of the account."""
    found = await session.scalars(cut.of(select(Connection).where(Connection.account_id == account_id)))
    return found.all()


async def get(session: AsyncSession, account_id: UUID, connection_id: UUID, *, lock: bool = False) -> Connection:
    """A connection of the account, if wanted held by this transaction, or NotFound."""
    return await get_owned(session, Connection, account_id, connection_id, called="connection", lock=lock)
