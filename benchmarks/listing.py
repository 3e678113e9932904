"""How soon the newest of many files on somebody else's server is known, over FTP and over SFTP."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncssh
import httpx

from benchmarks.machine import Measured, circumstances
from benchmarks.service import Service, serving, workshop

STEM: Final = "loyalty"
LOGIN: Final = {"username": "bench", "password": "not a real one"}
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Measured):
    """`seconds` pass from asking which of `files` would be picked, over HTTP, to the answer: login and listing."""

    files: int
    seconds: float
    right: bool


def measure(*, files: int, runs: int, parent: Path | None) -> Iterator[Listing]:
    """Ask the service for the newest of `files` in one folder, each run of each kind on a new connection."""
    with workshop(parent) as folder, serving(folder) as service:
        there = folder / "there"
        there.mkdir()
        for number in range(files):
            path = there / f"{STEM}__{number:06}.csv"
            path.touch()
            os.utime(path, (number, number))
        yield from asyncio.run(_ask(service, there, files, runs))


async def _ask(service: Service, folder: Path, files: int, runs: int) -> list[Listing]:
    measured = []
    headers = {"Authorization": f"Bearer {service.key}"}
    async with httpx.AsyncClient(base_url=service.http, headers=headers, timeout=120, trust_env=False) as http:
        for variant, start in (("ftp", _ftp), ("sftp", _sftp)):
            async with start(folder) as server:
                made = await http.post("/v1/connections", json={"name": variant} | LOGIN | server)
                url = f"/v1/connections/{made.raise_for_status().json()['id']}"
                for run in range(1, runs + 1):
                    began = time.perf_counter()
                    answer = (await http.post(f"{url}/resolve", json={"name": STEM})).raise_for_status().json()
                    measured.append(
                        Listing(
                            work="listing",
                            variant=variant,
                            mb=0,
                            run=run,
                            files=files,
                            seconds=round(time.perf_counter() - began, 3),
                            right=answer["file"]["name"] == f"{STEM}__{files - 1:06}.csv",
                            **circumstances(service.url),
                        )
                    )
    return measured


@asynccontextmanager
async def _ftp(folder: Path) -> AsyncIterator[dict[str, Any]]:
    """An FTP server in a process of its own."""
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    login = ("-u", LOGIN["username"], "-P", LOGIN["password"])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pyftpdlib", "-i", LOOPBACK, "-p", str(port), "-d", str(folder), *login),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await _until_open(port)
        yield {"kind": "ftp", "host": LOOPBACK, "port": port}
    finally:
        process.terminate()
        await process.wait()


async def _until_open(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection(LOOPBACK, port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


class _Known(asyncssh.SSHServer):
    """Lets in whoever knows the password."""

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return {"username": username, "password": password} == LOGIN


class _Folder(asyncssh.SFTPServer):
    """Lists the folder as fast as Python can: asyncssh's own asks for each entry's owner by name."""

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        with os.scandir(self.map_path(path)) as entries:
            for entry in entries:
                attrs = asyncssh.SFTPAttrs.from_local(entry.stat())
                yield asyncssh.SFTPName(os.fsencode(entry.name), b"-", attrs)


@asynccontextmanager
async def _sftp(folder: Path) -> AsyncIterator[dict[str, Any]]:
    """An SFTP server in this process, which is not the service's."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    listener = await asyncssh.listen(
        LOOPBACK,
        0,
        server_factory=_Known,
        server_host_keys=[key],
        sftp_factory=lambda channel: _Folder(channel, chroot=str(folder).encode()),
        config=None,
    )
    try:
        pins = [key.export_public_key().decode().strip()]
        yield {"kind": "sftp", "host": LOOPBACK, "port": listener.get_port(), "host_keys": pins}
    finally:
        listener.close()
        await listener.wait_closed()
