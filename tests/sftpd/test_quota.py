"""What an account may keep and have under way, over SFTP (T42, I9)."""

from __future__ import annotations

import asyncio

import asyncssh
import pytest
from tests.sftpd.world import manifest, put, until

from ingestd.domain.plan import MIB
from ingestd.ingest.incoming import STEP
from ingestd.settings import QuotaSettings
from ingestd.store import usage
from ingestd.store.files import File
from ingestd.store.usage import Reservation

SIZE = 100_000
LARGE = 2 * STEP + MIB


async def used(world, client):
    async with world.sessions() as session:
        return await usage.stored(session, client.account_id)


async def sizes(world, client):
    live = [file.size_bytes for file in await world.rows(File, client) if file.state not in {"removed", "expired"}]
    return sum(live) + sum(each.reserved_bytes for each in await world.rows(Reservation, client))


@pytest.mark.threat("T42")
async def test_of_twenty_uploads_at_once_just_those_are_accepted_that_have_room(open_world):
    async with open_world(quota=QuotaSettings(stored_bytes=5 * SIZE + SIZE // 2), handles_per_session=20) as world:
        client = await world.client()
        async with client.sftp() as one, client.sftp() as other:
            puts = [put((one, other)[n % 2], f"{n}.csv", bytes(SIZE)) for n in range(20)]
            outcomes = await asyncio.gather(*puts, return_exceptions=True)
        refused = [each for each in outcomes if each is not None]
        assert len(refused) == 15
        assert {type(each) for each in refused} == {asyncssh.SFTPFailure}
        assert "would take more than 550000 bytes" in str(refused[0])
        assert await used(world, client) == await sizes(world, client) == 5 * SIZE
        await world.intake.close()
        assert len(world.stored()) == 5


@pytest.mark.threat("T42")
async def test_a_large_upload_is_stopped_on_its_way_and_gives_its_room_back(open_world):
    quota = QuotaSettings(stored_bytes=LARGE - MIB // 2)
    async with open_world(quota=quota, file_bytes=2 * LARGE) as world:
        client = await world.client()
        async with client.sftp() as sftp, sftp.open("x.csv", "wb") as file:
            await file.write(bytes(STEP + MIB))
            await until(lambda: reserved(world, client))
            assert await used(world, client) == STEP
            with pytest.raises(asyncssh.SFTPFailure, match="would take more than"):
                await put(sftp, "y.csv", bytes(LARGE))
            await until(lambda: gives_back_all_but(world, client, STEP))
        assert await used(world, client) == await sizes(world, client) == STEP + MIB


async def gives_back_all_but(world, client, stored):
    return await used(world, client) == stored


async def reserved(world, client):
    return bool(await world.rows(Reservation, client))


@pytest.mark.threat("T42")
async def test_a_dropped_upload_gives_its_room_back(open_world):
    async with open_world(file_bytes=2 * LARGE) as world:
        client = await world.client()
        async with client.connect() as connection:
            sftp = await connection.start_sftp_client()
            file = await sftp.open("x.csv", "wb")
            await file.write(bytes(STEP))
            await until(lambda: reserved(world, client))
            connection.abort()
        await until(lambda: unreserved(world, client))
        assert await used(world, client) == 0


async def unreserved(world, client):
    return not await reserved(world, client)


@pytest.mark.threat("T42")
async def test_removed_files_and_those_that_became_manifests_make_room(world, client):
    async with client.sftp() as sftp:
        await put(sftp, "x.csv", bytes(100))
        await put(sftp, "x.csv", bytes(200))
        await put(sftp, "y.csv", b"identity\nann\n")
        await put(sftp, "m.part", manifest("y.csv"))
        assert await used(world, client) == await sizes(world, client)
        await sftp.remove("x.csv")
        await sftp.rename("m.part", "m.manifest")
    assert await used(world, client) == await sizes(world, client) == len(b"identity\nann\n")


async def test_a_manifest_waits_outside_while_the_account_has_too_many_open_ingestions(open_world):
    async with open_world(quota=QuotaSettings(open_ingestions=2)) as world:
        client, other = await world.client(), await world.client()
        async with client.sftp() as sftp:
            for name in ("a", "b", "c"):
                await put(sftp, f"{name}.csv", b"identity\nann\n")
            for name in ("a", "b"):
                await put(sftp, f"{name}.manifest", manifest(f"{name}.csv"))
            with pytest.raises(asyncssh.SFTPFailure, match="2 ingestions of the account are still open"):
                await put(sftp, "c.manifest", manifest("c.csv"))
        assert [seq for _, _, seq in await world.ingestions(client)] == [1, 2]
        assert ("c.csv", 13, "available") in await world.files(client)
        async with other.sftp() as sftp:
            await put(sftp, "a.csv", b"identity\nann\n")
            await put(sftp, "a.manifest", manifest("a.csv"))
        assert [seq for _, _, seq in await world.ingestions(other)] == [1]
