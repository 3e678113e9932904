"""An upload that was dropped never looks finished, however and wherever it was cut (T43, B59)."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys

import asyncssh
import pytest
from asyncssh import FXF_CREAT, FXF_TRUNC, FXF_WRITE, SFTPServer
from asyncssh.sftp import FXP_CLOSE, FXP_INIT, FXP_OPEN, FXP_WRITE
from tests.sftpd.world import manifest, put, until

KILLED = """
import asyncio, sys, asyncssh
async def main(port, user, key):
    connection = await asyncssh.connect(
        "127.0.0.1", int(port), username=user, client_keys=[key], known_hosts=None, config=None, agent_path=None)
    sftp = await connection.start_sftp_client()
    file = await sftp.open("x.csv", "wb")
    await file.write(b"12345")
    print("written", flush=True)
    await asyncio.Event().wait()
asyncio.run(main(*sys.argv[1:]))
"""


def reset(connection, _sftp):
    sock = connection._transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection._transport.abort()


ENDINGS = {
    "reset": reset,
    "connection dropped": lambda connection, _: connection.abort(),
    "disconnect": lambda connection, _: connection.close(),
    "channel EOF": lambda _, sftp: sftp._handler._writer.channel.write_eof(),
    "channel close": lambda _, sftp: sftp._handler._writer.channel.close(),
    "channel abort": lambda _, sftp: sftp._handler._writer.channel.abort(),
    "half a request": lambda _, sftp: cut_inside_a_request(sftp),
    "nonsense": lambda _, sftp: sftp._handler._writer.write(b"\xff" * 9),
    "request without a body": lambda _, sftp: sftp._handler._writer.write(struct.pack(">I", 0)),
    "signal": lambda _, sftp: sftp._handler._writer.channel.send_signal("KILL"),
    "break": lambda _, sftp: sftp._handler._writer.channel.send_break(1),
}


def cut_inside_a_request(sftp):
    sftp._handler._writer.write(struct.pack(">IB", 30, FXP_WRITE) + b"half")
    sftp._handler._writer.channel.write_eof()


async def nothing_came_of_it(world, client):
    """No file, no part, and a manifest that finds no data file."""

    async def is_forgotten():
        return world.stored() == []

    await until(is_forgotten)
    assert await world.files() == []
    async with client.sftp() as sftp:
        await put(sftp, "x.manifest", manifest())
    assert await world.ingestions() == [("failed", "No data file found", None)]


@pytest.mark.fault
@pytest.mark.rule("D17")
@pytest.mark.threat("T43")
@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_dropped_upload_is_forgotten(world, client, ending):
    async with client.connect() as connection:
        sftp = await connection.start_sftp_client()
        file = await sftp.open("x.csv", "wb")
        await file.write(b"12345")
        ENDINGS[ending](connection, sftp)
        await nothing_came_of_it(world, client)


@pytest.mark.fault
@pytest.mark.threat("T43")
async def test_an_upload_of_a_killed_client_is_forgotten(world, client):
    command = [sys.executable, "-c", KILLED, str(client.port), client.username, client.key_file]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert await process.stdout.readline() == b"written\n"
    process.kill()
    await process.wait()
    await nothing_came_of_it(world, client)


@pytest.mark.fault
@pytest.mark.threat("T43")
async def test_a_server_that_stops_forgets_open_uploads_and_acknowledges_none(world, client):
    async with client.sftp() as sftp:
        files = [await sftp.open(f"{name}.csv", "wb") for name in "ab"]
        for file in files:
            await file.write(b"12345")
        await world.server.close()
        await sftp.wait_closed()
        with pytest.raises(asyncssh.SFTPError):
            await files[0].write(b"6")
    assert world.stored() == []
    assert await world.files() == []


@pytest.mark.fault
@pytest.mark.threat("T43")
async def test_a_server_that_stops_waits_for_a_file_that_was_closed(world, client):
    async with client.sftp() as sftp:
        file = await sftp.open("x.csv", "wb")
        await file.write(b"12345")
        closing = asyncio.create_task(file.close())
        (guest,) = world.server._guests

        async def is_being_published():
            return not any(name.startswith(".") for name in world.stored())

        await until(is_being_published)
        await world.server.close()
        assert not guest.running
        await asyncio.gather(closing, return_exceptions=True)
    assert await world.files() == [("x.csv", 5, "available")]


def request(kind, *fields):
    body = bytes([kind]) + b"".join(fields)
    return struct.pack(">I", len(body)) + body


def text(value):
    return struct.pack(">I", len(value)) + value


def conversation(name, data):
    """What a client sends to put a file, as one stream of bytes; the first handle of a session is 0."""
    handle = text(struct.pack(">I", 0))
    flags = struct.pack(">II", FXF_WRITE | FXF_CREAT | FXF_TRUNC, 0)
    return b"".join(
        (
            request(FXP_INIT, struct.pack(">I", 3)),
            request(FXP_OPEN, struct.pack(">I", 1), text(name), flags),
            request(FXP_WRITE, struct.pack(">I", 2), handle, struct.pack(">Q", 0), text(data)),
            request(FXP_CLOSE, struct.pack(">I", 3), handle),
        )
    )


async def say(connection, stream, how):
    """Send a stream on a channel of its own, and end the channel."""
    writer, _, _ = await connection.open_session(subsystem="sftp", encoding=None)
    writer.write(stream)
    if how == "EOF":
        writer.write_eof()
    else:
        writer.close()
    await writer.channel.wait_closed()


@pytest.mark.fault
@pytest.mark.threat("T43")
@pytest.mark.parametrize("name", [b"x.csv", b"x.manifest"])
async def test_an_upload_of_200_bytes_cut_at_any_byte_never_counts_and_a_whole_one_does(world, client, name):
    stream = conversation(name, bytes(200))
    async with client.connect() as connection:
        for start in range(0, len(stream), 8):
            ends = range(start, min(start + 8, len(stream)))
            await asyncio.gather(*(say(connection, stream[:end], "EOF" if end % 2 else "close") for end in ends))
        await say(connection, stream, "EOF")
    await world.server.close()
    assert len(world.stored()) == 1
    if name == b"x.csv":
        assert await world.files() == [("x.csv", 200, "available")]
    else:
        assert await world.ingestions() == [("failed", "Incorrect details in manifest file", None)]


@pytest.mark.fault
@pytest.mark.threat("T43")
async def test_an_upload_of_200_bytes_whose_connection_ends_anywhere_never_counts(world, client):
    kinds = ["reset", "connection dropped", "disconnect"]
    for count in range(0, 201, 8):
        async with client.connect() as connection:
            sftp = await connection.start_sftp_client()
            file = await sftp.open("x.csv", "wb")
            await file.write(b"x" * count)
            ENDINGS[kinds[count % 3]](connection, sftp)
    await world.server.close()
    assert world.stored() == []
    assert await world.files() == []


class Recorder(SFTPServer):
    """Notes whether an exception is being dealt with when asyncssh closes a file."""

    seen: asyncio.Queue[bool]

    def open(self, *_):
        return object()

    def write(self, *_):
        return 5

    def close(self, _):
        self.seen.put_nowait(sys.exception() is not None)


@pytest.mark.threat("T43")
@pytest.mark.parametrize("ending", [None, *(ending for ending in ENDINGS if ending not in {"signal", "break"})])
async def test_asyncssh_closes_a_file_outside_of_any_exception_only_for_the_clients_own_close(ending):
    """The contract that `Inbox.close` stands on. After a signal asyncssh does not close files at all: see `_serve`."""
    Recorder.seen = asyncio.Queue()
    key = asyncssh.generate_private_key("ssh-ed25519")
    authorized = asyncssh.import_authorized_keys(key.export_public_key().decode())
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[key], authorized_client_keys=authorized, sftp_factory=Recorder, config=None
    )
    async with (
        server,
        asyncssh.connect(
            "127.0.0.1", server.get_port(), username="u", client_keys=[key], known_hosts=None, config=None
        ) as connection,
    ):
        sftp = await connection.start_sftp_client()
        file = await sftp.open("x.csv", "wb")
        await file.write(b"12345")
        if ending is None:
            await file.close()
        else:
            ENDINGS[ending](connection, sftp)
        assert await Recorder.seen.get() == (ending is not None)
