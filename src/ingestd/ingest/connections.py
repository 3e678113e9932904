"""Connections in use: the secret is opened for a visit, and a changed host key stops whatever fetches there (T130)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from ingestd import telemetry
from ingestd.domain.connection import Auth, HostKey, Kind, Login, parse_host_key
from ingestd.domain.notice import NoticeType
from ingestd.fetch.remote import HostKeyChanged, Remote, Server, Terms
from ingestd.fetch.visit import visit
from ingestd.ingest.intake import Intake
from ingestd.store import connections, messages, notices, schedules
from ingestd.store.connections import Connection, secret_context
from ingestd.store.engine import transaction, utc_now

log = telemetry.logger(__name__)


async def server_of(intake: Intake, account_id: UUID, connection_id: UUID) -> Server:
    """The server of an account's connection with its secret open, or NotFound."""
    connection = await _connection(intake, account_id, connection_id)
    return await _server(intake, connection)


@asynccontextmanager
async def visiting(intake: Intake, terms: Terms, account_id: UUID, connection_id: UUID) -> AsyncIterator[Remote]:
    """Visit the server of an account's connection.

    HostKeyChanged where it shows another key than the pinned ones, or showed one since they were pinned: that is kept
    and told, and the schedules that fetch there are paused. Else as `fetch.visit` has it; NotFound.
    """
    connection = await _connection(intake, account_id, connection_id)
    if (noted := _change_of(connection)) is not None:
        raise noted
    server = await _server(intake, connection)
    try:
        async with visit(server, terms) as remote:
            yield remote
    except HostKeyChanged as change:
        await note_change(intake, account_id, connection_id, server, change.seen)
        raise


async def noted_change(intake: Intake, account_id: UUID, connection_id: UUID) -> HostKeyChanged | None:
    """That a server has shown another key since its keys were pinned, because of which nothing is fetched from it."""
    return _change_of(await _connection(intake, account_id, connection_id))


async def note_change(intake: Intake, account_id: UUID, connection_id: UUID, server: Server, seen: HostKey) -> None:
    """Keep that a server showed another key, pause what fetches there, and tell; once, until keys are pinned anew."""
    now = utc_now()
    async with transaction(intake.sessions) as session:
        connection = await connections.get(session, account_id, connection_id, lock=True)
        if connection.changed_host_key is not None or connection.pinned() != server.host_keys:
            return
        connection.changed_host_key, connection.host_key_changed_at = seen.line, now
        await session.flush()
        paused = await schedules.pause_of_connection(session, connection_id, reason=HostKeyChanged.code, now=now)
        data = connections.view(connection).model_dump(mode="json")
        what = NoticeType.CONNECTION_HOST_KEY_CHANGED
        notice = notices.new(account_id, what, data, subject_id=connection_id, now=now)
        await session.execute(notices.adding(notice))
        await session.execute(messages.adding(notice, to=None))
    log.warning("host_key_changed", connection=str(connection_id), schedules_paused=paused)


def _change_of(connection: Connection) -> HostKeyChanged | None:
    seen = connection.changed_host_key
    return None if seen is None else HostKeyChanged(parse_host_key(seen, Kind(connection.kind)))


async def _connection(intake: Intake, account_id: UUID, connection_id: UUID) -> Connection:
    async with transaction(intake.sessions) as session:
        return await connections.get(session, account_id, connection_id)


async def _server(intake: Intake, connection: Connection) -> Server:
    keys = await intake.keys(connection.account_id)
    secret = keys.open_secret(secret_context(connection.id), connection.secret).decode()
    return Server(
        kind=Kind(connection.kind),
        host=connection.host,
        port=connection.port,
        username=connection.username,
        login=Login(Auth(connection.auth), secret, connection.public_key),
        root=connection.root,
        host_keys=connection.pinned(),
    )
