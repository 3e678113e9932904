"""The clients that people use put a file and its manifest, and see what they expect (S85)."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import paramiko
import pytest
from tests.sftpd.world import OPENSSH, Client, World, manifest, put

from ingestd.store.files import File
from ingestd.store.manifests import Manifest

DATA = b"identity,Name\na@example.org,Ann\n"


async def check(world: World) -> None:
    """The file was taken by its manifest, and every byte of both is there."""
    (file,) = await world.rows(File)
    (paper,) = await world.rows(Manifest)
    assert (file.name, file.state, file.size_bytes) == ("x.csv", "consumed", len(DATA))
    assert (paper.name, paper.state, paper.file_id) == ("x.manifest", "accepted", file.id)
    assert await world.content(file) == DATA
    assert await world.content(paper) == manifest()
    assert await world.ingestions() == [("scheduled", None, 1)]


def write_files(folder: Path) -> None:
    (folder / "x.csv").write_bytes(DATA)
    (folder / "x.manifest").write_bytes(manifest())


async def openssh(client: Client, folder: Path, batch: str) -> subprocess.CompletedProcess[str]:
    return await run([OPENSSH, "-b", "-", *options(client), f"{client.username}@127.0.0.1"], folder, batch)


async def scp(client: Client, folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return await run(["scp", "-s", *options(client), *names, f"{client.username}@127.0.0.1:"], folder)


def options(client: Client) -> list[str]:
    given = ["-F", "none", "-i", str(client.key_file), "-P", str(client.port)]
    for option in ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "BatchMode=yes"):
        given += ["-o", option]
    return given


async def run(command: list[str | None], folder: Path, batch: str = "") -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        command,
        input=batch,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(OPENSSH is None, reason="the OpenSSH client is not installed")
@pytest.mark.rule("S83", "S85", "S106")
async def test_openssh_puts_a_file_and_its_manifest(world, client, tmp_path):
    write_files(tmp_path)
    ran = await openssh(client, tmp_path, "put x.csv\nls -l\nput x.manifest\n")
    assert ran.returncode == 0, ran.stderr
    assert "x.csv" in ran.stdout
    await check(world)


@pytest.mark.skipif(OPENSSH is None, reason="the OpenSSH client is not installed")
@pytest.mark.rule("S85")
async def test_openssh_may_call_the_folder_a_dot(world, client, tmp_path):
    write_files(tmp_path)
    ran = await openssh(client, tmp_path, "put x.csv ./y.csv\nrename ./y.csv ./x.csv\nls .\nput x.manifest .\n")
    assert ran.returncode == 0, ran.stderr
    assert "x.csv" in ran.stdout
    await check(world)


@pytest.mark.skipif(OPENSSH is None, reason="the OpenSSH client is not installed")
@pytest.mark.threat("T21", "T27", "T28")
async def test_openssh_keeps_times_and_renames_but_makes_no_folder_or_link_and_gets_nothing(world, client, tmp_path):
    write_files(tmp_path)
    batch = "put -p x.csv x.csv.part\nchmod 777 x.csv.part\nrename x.csv.part x.csv\nls\n"
    refused = "-mkdir d\n-ln x.csv y.csv\n-ln -s x.csv y.csv\n-get x.csv copy\n-reput x.csv\n-df\n-cp x.csv y.csv\nls\n"
    ran = await openssh(client, tmp_path, batch + refused)
    assert ran.returncode == 0, ran.stderr
    assert not (tmp_path / "copy").exists()
    assert await world.files() == [("x.csv", len(DATA), "available")]


@pytest.mark.skipif(shutil.which("scp") is None, reason="OpenSSH's scp is not installed")
@pytest.mark.rule("S85", "S142")
async def test_scp_ends_with_0_when_all_was_taken_and_with_1_when_not(world, client, tmp_path):
    write_files(tmp_path)
    (tmp_path / "x.csv").rename(tmp_path / "-x.csv")
    refused = await scp(client, tmp_path, "./-x.csv")
    assert refused.returncode == 1
    (tmp_path / "-x.csv").rename(tmp_path / "x.csv")
    ran = await scp(client, tmp_path, "x.csv", "x.manifest")
    assert ran.returncode == 0, ran.stderr
    await check(world)


@pytest.mark.rule("S85")
async def test_paramiko_puts_a_file_and_its_manifest(world, client, tmp_path):
    write_files(tmp_path)

    def run() -> list[str]:
        with paramiko.Transport(("127.0.0.1", client.port)) as transport:
            key = paramiko.Ed25519Key.from_private_key_file(str(client.key_file))
            transport.connect(username=client.username, pkey=key)
            sftp = paramiko.SFTPClient.from_transport(transport)
            sftp.put(str(tmp_path / "x.csv"), "x.csv")  # asks for the size afterwards, and compares
            names = sftp.listdir("/")
            sftp.put(str(tmp_path / "x.manifest"), "x.manifest")
            assert sftp.stat("x.csv").st_size == len(DATA)
            assert sftp.listdir("/") == []
            return names

    assert await asyncio.to_thread(run) == ["x.csv"]
    await check(world)


@pytest.mark.rule("S85")
async def test_asyncssh_puts_a_file_and_its_manifest(world, client, tmp_path):
    write_files(tmp_path)
    async with client.sftp() as sftp:
        await sftp.put([tmp_path / "x.csv", tmp_path / "x.manifest"], preserve=True)
        assert (await sftp.stat("x.manifest")).size == len(manifest())
        assert (await sftp.stat("/x.csv")).size == len(DATA)
    await check(world)


@pytest.mark.rule("D18")
@pytest.mark.parametrize("suffix", [".part", ".filepart"])
async def test_uploads_under_a_temporary_name_count_from_their_rename_on(world, client, suffix):
    async with client.sftp() as sftp:
        await put(sftp, f"x.csv{suffix}", DATA)
        await sftp.rename(f"x.csv{suffix}", "x.csv")
        await put(sftp, f"x.manifest{suffix}", manifest())
        assert await world.ingestions() == []
        await sftp.posix_rename(f"x.manifest{suffix}", "x.manifest")
        assert await sftp.listdir() == []
        assert (await sftp.stat("x.manifest")).size == len(manifest())
    await check(world)
