"""Our SFTP server: it listens, lets in who has an account's key, and does nothing but SFTP (S79, S83, T31 to T36)."""

from __future__ import annotations

import asyncio
import time
import weakref
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncssh

from ingestd.domain import ids
from ingestd.domain.errors import NotFound
from ingestd.domain.ids import Prefix
from ingestd.ingest.intake import Intake
from ingestd.settings import SftpSettings
from ingestd.sftpd.gate import Gate
from ingestd.sftpd.host_key import host_key, host_key_file
from ingestd.sftpd.inbox import Inbox
from ingestd.sftpd.session import Session
from ingestd.store import import_keys
from ingestd.store.engine import Sessions, transaction, utc_now
from ingestd.store.import_keys import ImportKey
from ingestd.telemetry import logger

STOP_SECONDS: Final = 10.0
"""How long `close` waits for a file that is just being made durable."""

SIGNATURES: Final = frozenset(
    {
        b"ssh-ed25519",
        b"ecdsa-sha2-nistp256",
        b"ecdsa-sha2-nistp384",
        b"ecdsa-sha2-nistp521",
        b"rsa-sha2-256",
        b"rsa-sha2-512",
    }
)

OPTIONS: Final[dict[str, Any]] = {
    "config": None,  # no file of the machine changes what is decided here
    "server_version": "ingestd",
    "encoding": None,
    "authorized_client_keys": None,
    "public_key_auth": True,
    "password_auth": False,
    "kbdint_auth": False,
    "host_based_auth": False,
    "gss_host": None,
    "gss_kex": False,
    "gss_auth": False,
    "allow_pty": False,
    "line_editor": False,
    "allow_scp": False,
    "agent_forwarding": False,
    "x11_forwarding": False,
    "compression_algs": None,
    # No SHA-1; what begins with an asterisk depends on the machine's OpenSSL.
    "kex_algs": "*25519-sha*,ecdh-sha2-nistp*,diffie-hellman-group-exchange-sha256,diffie-hellman-group1?-sha256,"
    "diffie-hellman-group1?-sha512",
    "encryption_algs": "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes???-ctr",
    "mac_algs": "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha2-256,hmac-sha2-512",
    "signature_algs": ",".join(sorted(name.decode() for name in SIGNATURES)),
}
"""What the SSH layer may do (T33, T35, T36)."""

_NOBODY: Final = UUID(int=0)

_log = logger(__name__)


class Server:
    """The listening server: its port, and the host keys (as in `known_hosts`) and their fingerprints."""

    def __init__(
        self, acceptor: asyncssh.SSHAcceptor, guests: set[Guest], key: asyncssh.SSHKey, watch: asyncio.Task[None]
    ) -> None:
        self.port = acceptor.get_port()
        self.host_keys = (key.export_public_key().decode().strip(),)
        self.fingerprints = (key.get_fingerprint(),)
        self._acceptor = acceptor
        self._guests = guests
        self._watch = watch

    def is_serving(self) -> bool:
        """Whether clients can connect."""
        return bool(self._acceptor.is_serving())

    def sessions(self) -> int:
        """How many connections are logged in."""
        return sum(guest.logged_in for guest in self._guests)

    async def close(self) -> None:
        """End all sessions: open uploads are forgotten, a file that is just being made durable is finished."""
        self._acceptor.close()
        self._watch.cancel()
        sessions = [session for guest in self._guests for session in guest.running]
        for guest in list(self._guests):
            guest.send_away("The server is stopping")
        if sessions:
            _, hanging = await asyncio.wait(sessions, timeout=STOP_SECONDS)
            for session in hanging:
                session.cancel()
        await self._acceptor.wait_closed()


async def listen(intake: Intake, settings: SftpSettings, *, folder: Path) -> Server:
    """Begin to listen; a host key in the data folder is made at the first start, one that the settings name must be."""
    key = host_key(host_key_file(settings, folder), make=settings.host_key is None)
    guests: set[Guest] = set()
    gate = Gate(settings)
    acceptor = await asyncssh.listen(
        settings.host,
        settings.port,
        server_factory=lambda: Guest(intake, settings, guests, gate),
        server_host_keys=[key],
        login_timeout=settings.login_timeout,
        keepalive_interval=settings.keepalive_interval,
        keepalive_count_max=settings.keepalive_count,
        **OPTIONS,
    )
    watch = asyncio.create_task(_watch(guests, intake.sessions, seconds=settings.revocation_seconds))
    return Server(acceptor, guests, key, watch)


async def _watch(guests: set[Guest], sessions: Sessions, *, seconds: float) -> None:
    """Send away, now and then, whose key is no longer admitted; what they ask for is refused even before (T39).

    Uploads that nobody goes on with are ended, too (T37).
    """
    while True:
        await asyncio.sleep(seconds)
        for guest in guests:
            guest.end_idle_uploads()
        present = {guest.key_id for guest in guests if guest.key_id is not None}
        if not present:
            continue
        try:
            async with sessions() as session:
                admitted = await import_keys.admitted(session, present)
        except Exception as error:  # noqa: BLE001 -- the database will be back
            _log.warning("SFTP keys not checked", exc_info=error)
            continue
        for guest in list(guests):
            if guest.key_id in present - admitted:  # not whoever has come since
                guest.send_away("The key is no longer accepted")


class Guest(asyncssh.SSHServer):
    """One client's connection, from the TCP handshake on. Only a public key opens it; all but SFTP is refused."""

    def __init__(self, intake: Intake, settings: SftpSettings, guests: set[Guest], gate: Gate) -> None:
        self.running: set[asyncio.Task[None]] = set()
        self._intake = intake
        self._settings = settings
        self._guests = guests
        self._gate = gate
        self._address: str | None = None
        self._inboxes: weakref.WeakSet[Inbox] = weakref.WeakSet()
        self._connection: asyncssh.SSHServerConnection
        self._channels: set[Session] = set()
        self._refused = 0
        self._key: ImportKey | None = None
        self.logged_in = False
        self._active_at = 0.0
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Remember the connection, so that it can be ended; hang up on those the gate refuses."""
        self._connection = conn
        address = str(conn.get_extra_info("peername")[0])
        refusal = self._gate.enter(address)
        if refusal is not None:
            _log.info("SFTP connection refused", reason=refusal)
            conn.abort()
            return
        self._address = address
        self._guests.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncssh's names
        """Forget the connection."""
        self._guests.discard(self)
        if self._address is not None:
            self._gate.leave(self._address, known=self.logged_in, failed=self._refused > 0)
        if self._idle is not None:
            self._idle.cancel()

    @property
    def key_id(self) -> UUID | None:
        """The key that opened the session, once it has."""
        return self._key.id if self._key is not None and self.logged_in else None

    def send_away(self, reason: str) -> None:
        """End the connection."""
        self._connection.disconnect(asyncssh.DISC_BY_APPLICATION, reason)

    def public_key_auth_supported(self) -> bool:
        """Offer public keys, and nothing else."""
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether a key opens the account that the user name is (S83, T31, T34); asked at the offer and once more.

        An unknown user costs the same question to the database. A client that offers too many keys is sent away.
        """
        key.all_sig_algorithms = key.all_sig_algorithms & SIGNATURES  # asyncssh would take SHA-1 from an RSA key
        try:
            account = ids.read(Prefix.ACCOUNT, username)
        except NotFound:
            account = _NOBODY
        async with self._intake.sessions() as session:
            found = await import_keys.find_admitted(session, account, key.get_fingerprint())
        self._key = found
        if found is None:
            self._refused += 1
            if self._refused >= self._settings.failed_keys:
                _log.info("SFTP login refused", keys=self._refused)
                self._connection.disconnect(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many keys were refused")
        return found is not None

    async def auth_completed(self) -> None:
        """Note the use of the key, unless it has too many connections (T29)."""
        assert self._key is not None
        assert self._address is not None
        if sum(guest.key_id == self._key.id for guest in self._guests) >= self._settings.connections_per_key:
            self.send_away("Too many connections with this key")
            return
        async with transaction(self._intake.sessions) as session:
            await import_keys.used(session, self._key.id, now=utc_now())
        self.logged_in = True
        self._gate.know(self._address)
        _log.info("SFTP login", account=self._key.account_id, import_key=self._key.id)
        self._touch()
        self._end_if_idle()

    def session_requested(self) -> Session:
        """Open a channel for SFTP, unless there are too many (T29)."""
        if len(self._channels) >= self._settings.sessions_per_connection:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "Too many sessions")
        return Session(self._open_inbox, running=self.running, channels=self._channels)

    def _open_inbox(self, chan: asyncssh.SSHServerChannel[bytes]) -> Inbox:
        assert self._key is not None
        inbox = Inbox(chan, self._intake, self._key, settings=self._settings, touch=self._touch)
        self._inboxes.add(inbox)
        return inbox

    def end_idle_uploads(self) -> None:
        """End the uploads that the client does not go on with."""
        for inbox in self._inboxes:
            inbox.end_idle_uploads()

    def _touch(self) -> None:
        self._active_at = time.monotonic()

    def _end_if_idle(self) -> None:
        """Send away a client that has asked for nothing for so long, or look again when that may be."""
        rest = self._active_at + self._settings.idle_session_timeout - time.monotonic()
        if rest <= 0:
            self.send_away("Nothing was asked for too long")
        else:
            self._idle = asyncio.get_running_loop().call_later(rest, self._end_if_idle)
