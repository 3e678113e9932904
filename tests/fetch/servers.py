"""Other people's servers, for real on loopback: FTP and FTPS by pyftpdlib, SFTP by asyncssh.

    async with FtpServer(folder) as server: …        # also tls="explicit" | "implicit"
    async with SftpServer(folder) as server: …

Each has `port`, and `connection()`: the body for POST /v1/connections. `USERNAME` and `PASSWORD` let in. What was said
to an FTP server is in `commands`. `put` writes a file of a given age, as a real client would leave it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import warnings
from pathlib import Path
from typing import Any, ClassVar, Self

import asyncssh
import trustme

with warnings.catch_warnings():  # on Python 3.11 it imports what later versions lack
    warnings.simplefilter("ignore", DeprecationWarning)
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
    from pyftpdlib.ioloop import IOLoop
    from pyftpdlib.servers import FTPServer

logging.getLogger("pyftpdlib").setLevel(logging.ERROR)

USERNAME, PASSWORD = "ann", "canary-of-a-password"
HOUR = 3600.0


def put(folder: Path, name: str, data: bytes = b"user_id,tier\nann,High\n", *, age: float = HOUR) -> Path:
    """Write a file that was last changed so many seconds ago."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    at = time.time() - age
    os.utime(path, (at, at))
    return path


class FtpServer:
    """pyftpdlib in a thread of its own. `folder` is where the login leads to; `lacking` commands are unknown to it."""

    def __init__(self, folder: Path, *, tls: str | None = None, lacking: tuple[str, ...] = ()) -> None:
        self.folder, self.tls = folder, tls
        self.commands: list[str] = []
        self.authority = trustme.CA()
        self._folder_of_certificate = folder.parent
        self._handler = self._make_handler(lacking)

    def _make_handler(self, lacking: tuple[str, ...]) -> type[FTPHandler]:
        said = self.commands
        base = TLS_FTPHandler if self.tls else FTPHandler

        class Handler(base):
            proto_cmds: ClassVar = {name: rule for name, rule in base.proto_cmds.items() if name not in lacking}
            permit_foreign_addresses = False

            def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
                said.append(line)
                super().pre_process_command(line, cmd, arg)

        Handler.authorizer = DummyAuthorizer()
        Handler.authorizer.add_user(USERNAME, PASSWORD, str(self.folder), perm="elr")
        Handler.auth_failed_timeout = 0
        if self.tls:
            certificate = self._folder_of_certificate / f"{id(self)}.pem"
            self.authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
            Handler.certfile, Handler.ssl_context = str(certificate), None
            Handler.tls_control_required = Handler.tls_data_required = self.tls == "explicit"
        if self.tls == "implicit":
            greet = Handler.handle

            def handle(self: Any) -> None:
                self.secure_connection(self.get_ssl_context())
                greet(self)

            Handler.handle = handle
        return Handler

    @property
    def kind(self) -> str:
        return f"ftps_{self.tls}" if self.tls else "ftp"

    def connection(self, **changes: Any) -> dict[str, Any]:
        """The body that configures a connection to it."""
        login = {"username": USERNAME, "password": PASSWORD}
        return {"name": "partner", "kind": self.kind, "host": "127.0.0.1", "port": self.port} | login | changes

    async def __aenter__(self) -> Self:
        self._loop = IOLoop()
        self._server = FTPServer(("127.0.0.1", 0), self._handler, ioloop=self._loop)
        self.port = self._server.address[1]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def _serve(self) -> None:
        while not self._stopping.is_set():
            self._loop.loop(timeout=0.01, blocking=False)
        self._server.close_all()

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)


class SftpServer:
    """An SFTP server by asyncssh, below `folder`. `attempts` counts the passwords and keys that were shown to it."""

    def __init__(
        self, folder: Path, *, kind: str = "ssh-ed25519", handler: type[asyncssh.SFTPServer] | None = None
    ) -> None:
        self.folder, self.handler = folder, handler or asyncssh.SFTPServer
        self.key = asyncssh.generate_private_key(kind)
        self.attempts = 0
        self.port = 0

    @property
    def host_key(self) -> str:
        """The line that pins it."""
        return self.key.export_public_key().decode().strip()

    def connection(self, **changes: Any) -> dict[str, Any]:
        """The body that configures a connection to it, its key pinned."""
        login = {"username": USERNAME, "password": PASSWORD, "host_keys": [self.host_key]}
        return {"name": "partner", "kind": "sftp", "host": "127.0.0.1", "port": self.port} | login | changes

    async def __aenter__(self) -> Self:
        outer = self

        class Server(asyncssh.SSHServer):
            def begin_auth(self, _username: str) -> bool:
                return True

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                outer.attempts += 1
                return (username, password) == (USERNAME, PASSWORD)

        self._listener = await asyncssh.listen(
            "127.0.0.1",
            self.port,
            server_factory=Server,
            server_host_keys=[self.key],
            sftp_factory=lambda channel: self.handler(channel, chroot=str(self.folder)),
            config=None,
        )
        self.port = self._listener.get_port()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        await self._listener.wait_closed()
