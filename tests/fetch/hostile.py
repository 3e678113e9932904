"""An FTP server that keeps to the protocol, except where a test tells it otherwise; it has one file, `demo__a.csv`.

    class Liar(ScriptedFtp):
        async def retr(self, session, argument): …

A method named like a command, in small letters, answers it. `commands` has what was said, `offsets` where each RETR
began, `served` the bytes of data that went out.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from tests.fetch.servers import PASSWORD, USERNAME

NAME = "demo__a.csv"
MODIFIED = "20201001020000"


@dataclass
class Session:
    """One client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    offset: int = 0
    data: asyncio.Future[asyncio.StreamWriter] | None = None

    async def say(self, text: str) -> None:
        self.writer.write(f"{text}\r\n".encode())
        await self.writer.drain()


class ScriptedFtp:
    """See above."""

    def __init__(self, data: bytes = b"user_id,tier\nann,High\n") -> None:
        self.content = data
        self.modified = MODIFIED
        self.commands: list[str] = []
        self.offsets: list[int] = []
        self.served = 0
        self._open: list[Any] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in [self._server, *self._open]:
            each.close()
        await self._server.wait_closed()

    def connection(self, **changes: Any) -> dict[str, Any]:
        """The body that configures a connection to it."""
        login = {"username": USERNAME, "password": PASSWORD}
        return {"name": "partner", "kind": "ftp", "host": "127.0.0.1", "port": self.port} | login | changes

    def said(self) -> set[str]:
        """The commands that were given, without their arguments."""
        return {line.partition(" ")[0].upper() for line in self.commands}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(reader, writer)
        self._open.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            await self.greet(session)
            while line := (await reader.readline()).decode().rstrip("\r\n"):
                self.commands.append(line)
                command, _, argument = line.partition(" ")
                answer = getattr(self, command.lower(), None)
                if answer is None:
                    await session.say("502 What?")
                else:
                    await answer(session, argument)
        writer.close()

    async def greet(self, session: Session) -> None:
        await session.say("220 Hello")

    async def user(self, session: Session, _: str) -> None:
        await session.say("331 And?")

    async def pass_(self, session: Session, _: str) -> None:
        await session.say("230 In")

    async def pwd(self, session: Session, _: str) -> None:
        await session.say('257 "/"')

    async def type(self, session: Session, _: str) -> None:
        await session.say("200 Well")

    async def rest(self, session: Session, argument: str) -> None:
        session.offset = int(argument)
        await session.say("350 From there")

    async def epsv(self, session: Session, _: str) -> None:
        await session.say(f"229 There (|||{await self.listen(session)}|)")

    async def mlst(self, session: Session, argument: str) -> None:
        await session.say(f"250-It is\r\n {self.facts()} {argument}\r\n250 So")

    async def mlsd(self, session: Session, _: str) -> None:
        await self.send(session, f"{self.facts()} {NAME}\r\n".encode())

    async def retr(self, session: Session, _: str) -> None:
        start, session.offset = session.offset, 0
        self.offsets.append(start)
        await self.send(session, self.content[start:])

    def facts(self, size: int | None = None) -> str:
        """The facts of the file."""
        return f"type=file;size={len(self.content) if size is None else size};modify={self.modified};"

    async def listen(self, session: Session) -> int:
        """Wait for a data connection; gives the port."""
        session.data = asyncio.get_running_loop().create_future()

        async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._open.append(writer)
            session.data.set_result(writer)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self._open.append(server)
        return server.sockets[0].getsockname()[1]

    async def send(self, session: Session, data: bytes, *, end: str | None = "226 All") -> None:
        """Send over the data connection, close it, and say the end."""
        await session.say("150 Here")
        await self.pour(session, data)
        (await session.data).close()
        if end:
            await session.say(end)

    async def pour(self, session: Session, data: bytes) -> None:
        """Send over the data connection, which stays open; OSError where the client has gone."""
        writer = await session.data
        writer.write(data)
        await writer.drain()
        if writer.is_closing():
            raise ConnectionResetError
        self.served += len(data)


setattr(ScriptedFtp, "pass", ScriptedFtp.pass_)
