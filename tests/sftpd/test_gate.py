"""Floods, guesses and clients that hold on to what they got: others are not kept waiting by them."""

from __future__ import annotations

import asyncio

import asyncssh
import pytest
from tests.sftpd.world import put, until

from ingestd.settings import SftpSettings
from ingestd.sftpd.gate import Gate, Refusal

STRANGER = asyncssh.generate_private_key("ssh-ed25519")
ELSEWHERE = ("127.0.0.2", 0)  # another address of this machine
REFUSED = (asyncssh.ConnectionLost, ConnectionResetError)


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def gate(*, chance=1.0, **settings):
    clock = Clock()
    return Gate(SftpSettings(**settings), clock=clock, chance=lambda: chance), clock


def fail(gate, address, times):
    """Let logins fail; gives what the gate said to each."""
    said = [gate.enter(address) for _ in range(times)]
    for refusal in said:
        if refusal is None:
            gate.leave(address, known=False, failed=True)
    return said


@pytest.mark.threat("T31")
def test_failed_logins_are_a_penalty_that_grows_and_passes():
    door, clock = gate()
    for _ in range(3):
        assert fail(door, "192.0.2.1", 1) == [None]
    assert door.enter("192.0.2.1") is Refusal.PENALTY
    assert door.enter("192.0.2.2") is None
    clock.now = 0.1
    assert door.enter("192.0.2.1") is None
    for _ in range(200):
        door.leave("192.0.2.1", known=False, failed=True)
    clock.now = 600 - 15
    assert door.enter("192.0.2.1") is Refusal.PENALTY
    clock.now = 600
    assert door.enter("192.0.2.1") is None


@pytest.mark.threat("T31")
def test_whoever_gets_in_has_no_penalty_for_the_keys_that_did_not_fit():
    door, _ = gate()
    for _ in range(5):
        assert door.enter("192.0.2.1") is None
        door.know("192.0.2.1")
        door.leave("192.0.2.1", known=True, failed=True)


@pytest.mark.threat("T31")
def test_an_exempt_network_is_let_in_whatever_it_does():
    door, _ = gate(exempt=("10.0.0.0/8", "2001:db8::/32"), strangers_per_address=1)
    for address in ("10.1.2.3", "2001:db8::1"):
        assert fail(door, address, 9) == [None] * 9


@pytest.mark.threat("T29", "T32")
def test_connections_are_counted_in_all_and_by_address_and_given_back():
    door, _ = gate(connections=4, connections_per_address=3, strangers_per_address=2)
    assert [door.enter("192.0.2.1") for _ in range(3)] == [None, None, Refusal.TOO_MANY_STRANGERS_OF_ADDRESS]
    door.know("192.0.2.1")
    assert [door.enter("192.0.2.1"), door.enter("192.0.2.1")] == [None, Refusal.TOO_MANY_OF_ADDRESS]
    assert [door.enter("192.0.2.2"), door.enter("192.0.2.3")] == [None, Refusal.TOO_MANY]
    door.leave("192.0.2.1", known=True, failed=False)
    assert door.enter("192.0.2.3") is None


@pytest.mark.threat("T32")
@pytest.mark.parametrize(
    ("strangers", "chance", "refused"), [(9, 0.0, 0), (55, 0.49, 1), (55, 0.51, 0), (100, 0.99, 1)]
)
def test_the_more_strangers_are_there_the_fewer_are_let_in(strangers, chance, refused):
    door, _ = gate()
    for number in range(strangers):
        door.chance = lambda: 1.0
        assert door.enter(f"10.0.0.{number}") is None
    door.chance = lambda: chance
    assert (door.enter("192.0.2.1") is Refusal.TOO_MANY_STRANGERS) == bool(refused)


@pytest.mark.threat("T31")
async def test_a_guesser_is_refused_before_the_key_exchange_and_others_are_not(open_world):
    async with open_world(penalty=60) as world:
        client = await world.client()
        with pytest.raises(asyncssh.PermissionDenied):
            async with client.connect(client_keys=[STRANGER], local_addr=ELSEWHERE):
                pass
        with pytest.raises(REFUSED):
            async with client.connect(local_addr=ELSEWHERE):
                pass
        async with client.sftp() as sftp:
            assert await sftp.listdir() == []


@pytest.mark.threat("T32")
async def test_a_flood_of_silent_connections_keeps_nobody_out_and_is_cleared(open_world):
    async with open_world(login_timeout=4) as world:
        client = await world.client()
        flood = [
            await asyncio.open_connection("127.0.0.1", world.server.port, local_addr=ELSEWHERE) for _ in range(100)
        ]
        async with asyncio.timeout(20), client.sftp() as sftp:
            await put(sftp, "x.csv", b"1")
        banners = [await _all(reader) for reader, _ in flood]
        for _, writer in flood:
            writer.close()
        assert banners.count(b"SSH-2.0-ingestd\r\n") == 10
        assert banners.count(b"") == 90


async def _all(reader):
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


@pytest.mark.threat("T29")
async def test_a_key_has_so_many_connections_and_no_more(open_world):
    async with open_world(connections_per_key=1) as world:
        client = await world.client()
        other = await world.key_of(client.account_id)
        async with client.sftp() as sftp:
            with pytest.raises((asyncssh.DisconnectError, asyncssh.ChannelOpenError)):
                async with client.sftp() as second:
                    await second.listdir()
            async with other.sftp() as another:
                assert await another.listdir() == []
            assert await sftp.listdir() == []
        async with client.sftp() as sftp:
            assert await sftp.listdir() == []


@pytest.mark.threat("T37")
async def test_an_upload_that_is_left_alone_leaves_its_place_and_its_bytes(open_world):
    async with open_world(idle_handle_timeout=1, revocation_seconds=0.05) as world:
        client = await world.client()
        async with client.sftp() as sftp:
            file = await sftp.open("x.csv", "wb")
            await file.write(b"12345")

            async def is_gone():
                return world.stored() == []

            await until(is_gone)
            for attempt in (file.write(b"6"), file.close()):
                with pytest.raises(asyncssh.SFTPFailure):
                    await attempt
            assert await sftp.listdir() == []
        assert await world.files() == []


@pytest.mark.threat("T30")
async def test_a_packet_of_four_gigabytes_ends_the_session_and_no_other(client):
    async with client.connect() as connection, client.sftp() as other:
        writer, reader, _ = await connection.open_session(subsystem="sftp", encoding=None)
        writer.write(b"\xff\xff\xff\xf0" + bytes(100_000))
        assert await reader.read() == b""
        assert await other.listdir() == []
