"""Who may come in, with what, and what is done for them beside SFTP: nothing."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import asyncssh
import pytest
from tests.sftpd.world import put, until

from ingestd.domain.errors import Forbidden, Unavailable
from ingestd.settings import SftpSettings
from ingestd.sftpd.host_key import HOST_KEY_FILE, host_key
from ingestd.sftpd.server import listen
from ingestd.store import import_keys
from ingestd.store.accounts import Account
from ingestd.store.engine import transaction
from ingestd.store.import_keys import ImportKey

STRANGER = asyncssh.generate_private_key("ssh-ed25519")


async def is_refused(client, **options):
    with pytest.raises(asyncssh.PermissionDenied):
        async with client.connect(**options):
            pass


@pytest.mark.rule("S83")
async def test_a_key_opens_its_own_account_only_and_its_use_is_noted(world):
    one, two = await world.client(), await world.client()
    async with one.sftp():
        pass
    await is_refused(one, client_keys=[two.key])
    await is_refused(one, username=two.username)
    used = {key.id: key.last_used_at is not None for key in await world.rows(ImportKey)}
    assert used == {one.key_id: True, two.key_id: False}


@pytest.mark.rule("S83")
async def test_a_password_is_not_even_asked_for(client):
    await is_refused(client, client_keys=None, password="hunter2")
    methods = await asyncssh.get_server_auth_methods("127.0.0.1", client.port, username=client.username, config=None)
    assert methods == ["publickey"]


@pytest.mark.rule("S79")
async def test_an_account_without_the_feature_is_not_let_in_and_loses_its_session_with_it(world, client):
    await is_refused(await world.client(sftp=False))
    async with client.sftp() as sftp:
        async with transaction(world.sessions) as session:
            (await session.get(Account, client.account_id)).features = {"sftp": False}
        with pytest.raises(asyncssh.SFTPPermissionDenied):
            await sftp.open("x.csv", "wb")
    await is_refused(client)


@pytest.mark.rule("S83")
@pytest.mark.threat("T39")
async def test_a_revoked_key_is_refused_at_once_even_in_an_open_session(world, client):
    other = await world.key_of(client.account_id)
    async with client.sftp() as sftp, other.sftp() as going_on:
        await put(sftp, "before.csv", b"1")
        file = await sftp.open("x.csv", "wb")
        await file.write(b"12345")
        await world.revoke(client)
        for attempt in (
            file.close(),
            sftp.open("y.csv", "wb"),
            sftp.listdir(),
            sftp.stat("before.csv"),
            sftp.rename("before.csv", "z.csv"),
            sftp.remove("before.csv"),
        ):
            with pytest.raises(asyncssh.SFTPPermissionDenied):
                await attempt
        await put(going_on, "after.csv", b"1")
    await is_refused(client)
    assert [name for name, _, _ in await world.files()] == ["before.csv", "after.csv"]
    assert len(world.stored()) == 2


@pytest.mark.rule("S83")
@pytest.mark.threat("T39")
async def test_a_key_that_was_revoked_and_added_again_is_another_key(world, client):
    async with client.sftp() as sftp:
        await world.revoke(client)
        await world.key_of(client.account_id, key=client.key)
        with pytest.raises(asyncssh.SFTPPermissionDenied):
            await sftp.listdir()
    async with client.sftp() as sftp:
        assert await sftp.listdir() == []


@pytest.mark.threat("T39")
async def test_who_logs_in_while_sessions_are_looked_at_is_not_sent_away(open_world, monkeypatch):
    asked, told, looked = asyncio.Event(), asyncio.Event(), asyncio.Event()
    admitted = import_keys.admitted

    async def slowly(session, present):
        found = await admitted(session, present)
        if told.is_set():
            looked.set()
        asked.set()
        await told.wait()
        return found

    async with open_world(revocation_seconds=0.01) as world:
        first, second = await world.client(), await world.client()
        async with first.sftp():
            monkeypatch.setattr(import_keys, "admitted", slowly)
            await asked.wait()
            async with second.sftp() as sftp:
                told.set()
                await looked.wait()
                assert await sftp.listdir() == []


@pytest.mark.threat("T34")
@pytest.mark.parametrize("name", ["root", "acc_", "../a", "acc_" + "z" * 26, "\u0410CME", "x" * 1000, "acc_01J"])
async def test_an_unknown_user_is_refused_like_a_known_one(client, name):
    await is_refused(client, username=name)
    await is_refused(client, client_keys=[STRANGER])


@pytest.mark.threat("T31")
async def test_a_client_with_many_keys_is_sent_away(open_world):
    async with open_world(failed_keys=3) as world:
        client = await world.client()
        strangers = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(10)]
        with pytest.raises(asyncssh.DisconnectError) as sent_away:
            async with client.connect(client_keys=[*strangers, client.key]):
                pass
        assert sent_away.value.code == asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE
        async with client.connect(client_keys=[*strangers[:2], client.key]):
            pass


@pytest.mark.threat("T33")
@pytest.mark.parametrize("algorithm", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521"])
async def test_modern_keys_open_the_door(world, algorithm):
    client = await world.client(key=asyncssh.generate_private_key(algorithm))
    async with client.sftp() as sftp:
        assert await sftp.listdir() == []


@pytest.mark.threat("T33")
async def test_an_rsa_key_signs_with_sha_2_and_never_with_sha_1(world, monkeypatch):
    client = await world.client(key=asyncssh.generate_private_key("ssh-rsa", key_size=3072))
    async with client.sftp(signature_algs=["rsa-sha2-512"]) as sftp:
        assert await sftp.listdir() == []

    def insist(_connection, keypair):
        keypair.set_sig_algorithm(b"ssh-rsa")  # whatever the server says that it accepts
        return True

    monkeypatch.setattr(asyncssh.SSHClientConnection, "_choose_signature_alg", insist)
    await is_refused(client)


@pytest.mark.threat("T33", "T36")
@pytest.mark.parametrize(
    "weak",
    [
        {"mac_algs": ["hmac-sha1"], "encryption_algs": ["aes128-ctr"]},
        {"mac_algs": ["hmac-sha1-etm@openssh.com"], "encryption_algs": ["aes128-ctr"]},
        {"kex_algs": ["diffie-hellman-group14-sha1"]},
        {"encryption_algs": ["aes128-cbc"]},
        {"compression_algs": ["zlib@openssh.com"]},
    ],
    ids=["mac", "etm", "kex", "cipher", "compression"],
)
async def test_weak_algorithms_are_not_spoken(client, weak):
    with pytest.raises(asyncssh.KeyExchangeFailed):
        async with client.connect(**weak):
            pass


@pytest.mark.threat("T35")
async def test_nothing_but_sftp_is_done(client):
    async with client.connect() as connection:
        for attempt in (
            connection.create_process(),
            connection.create_process("id"),
            connection.create_process("scp -t /"),
            connection.create_process(subsystem="netconf"),
            connection.open_connection("127.0.0.1", client.port),
            connection.open_unix_connection("/tmp/socket"),
        ):
            with pytest.raises(asyncssh.ChannelOpenError):
                await attempt
        for attempt in (
            connection.start_server(lambda *_: True, "127.0.0.1", 0),
            connection.start_unix_server(lambda *_: True, "/tmp/socket"),
        ):
            with pytest.raises(asyncssh.ChannelListenError):
                await attempt
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.create_process(subsystem="sftp", term_type="vt100")


@pytest.mark.threat("T29")
async def test_a_session_too_many_is_refused_and_the_others_go_on(open_world):
    async with open_world(sessions_per_connection=2) as world:
        client = await world.client()
        async with client.connect() as connection:
            one, two = await connection.start_sftp_client(), await connection.start_sftp_client()
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.start_sftp_client()
            one.exit()
            await one.wait_closed()
            assert await two.listdir() == []
            async with connection.start_sftp_client() as three:
                assert await three.listdir() == []


@pytest.mark.threat("T37")
async def test_a_session_that_asks_for_nothing_is_ended(open_world):
    async with open_world(idle_session_timeout=3) as world:
        client = await world.client()
        async with client.sftp() as sftp:
            file = await sftp.open("x.csv", "wb")
            await file.write(b"12345")
            await sftp.wait_closed()
        assert await world.files() == []

        async def nothing_is_stored():
            return world.stored() == []

        await until(nothing_is_stored)


@pytest.mark.threat("T32")
async def test_a_connection_that_says_nothing_is_closed(open_world):
    async with open_world(login_timeout=1) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.server.port)
        banner = await reader.readline()
        await reader.read()
        assert banner == b"SSH-2.0-ingestd\r\n"
        writer.close()


@pytest.mark.threat("T41")
async def test_the_host_key_is_made_once_and_kept_for_our_user_only(world):
    path = world.folder / HOST_KEY_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert world.server.fingerprints == (host_key(path).get_fingerprint(),)
    assert world.server.host_keys == (host_key(path).export_public_key().decode().strip(),)
    shown = await asyncssh.get_server_host_key("127.0.0.1", world.server.port, config=None)
    assert (shown.get_fingerprint(),) == world.server.fingerprints


@pytest.mark.threat("T41")
async def test_a_host_key_that_others_can_read_stops_the_start(world, tmp_path):
    (tmp_path / HOST_KEY_FILE).chmod(0o644)
    with pytest.raises(Forbidden):
        await listen(world.intake, SftpSettings(port=0), folder=tmp_path)


@pytest.mark.threat("T41")
async def test_a_host_key_that_the_settings_name_is_not_made(world, tmp_path):
    named = tmp_path / "mistyped"
    with pytest.raises(Unavailable, match=f"There is no SFTP host key {named}.*INGESTD_SFTP__HOST_KEY"):
        await listen(world.intake, SftpSettings(port=0, host_key=named), folder=tmp_path)
    assert not named.exists()


@pytest.mark.threat("T41")
def test_starts_at_once_agree_on_one_host_key(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        keys = list(threads.map(partial(host_key, make=True), [tmp_path / "key"] * 8))
    assert len({key.get_fingerprint() for key in keys}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
