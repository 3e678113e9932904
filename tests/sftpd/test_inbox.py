"""What the flat folder allows, shows and refuses."""

from __future__ import annotations

import hashlib
import inspect

import asyncssh
import pytest
from asyncssh import FXF_WRITE, SFTPAttrs, SFTPServer
from tests.sftpd.world import LIMIT, put

from ingestd.domain.plan import Limits
from ingestd.sftpd import inbox
from ingestd.sftpd.inbox import Inbox
from ingestd.sftpd.session import EXTENSIONS
from ingestd.store.files import File

REFUSED = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPPermissionDenied)


async def test_a_file_is_listed_shown_renamed_and_removed(world, client):
    async with client.sftp() as sftp:
        await put(sftp, "b.csv", b"12345")
        await put(sftp, "a.csv", b"")
        assert await sftp.listdir() == ["a.csv", "b.csv"]
        (entry,) = [entry for entry in await sftp.readdir("/") if entry.filename == "b.csv"]
        assert (entry.attrs.size, entry.attrs.permissions & 0o7777) == (5, 0o600)
        assert entry.longname.startswith("-rw-------")
        assert await sftp.getsize("/b.csv") == 5
        assert await sftp.isfile("b.csv")
        assert await sftp.isdir("/")
        await sftp.rename("b.csv", "c.csv")
        assert not await sftp.exists("b.csv")
        await sftp.remove("a.csv")
        assert await sftp.listdir() == ["c.csv"]
        for gone in (sftp.stat("a.csv"), sftp.remove("a.csv"), sftp.rename("a.csv", "d.csv")):
            with pytest.raises(asyncssh.SFTPNoSuchFile):
                await gone
    assert await world.files() == [("c.csv", 5, "available"), ("a.csv", 0, "removed")]


async def test_only_the_one_folder_can_be_listed(client):
    async with client.sftp() as sftp:
        for path in (".", "./", "/", "/.", "/./", "/././"):
            assert await sftp.isdir(path)
            assert await sftp.listdir(path) == []
        for path in ("/etc", "..", "x", "./..", "./x", "/./../"):
            with pytest.raises(asyncssh.SFTPNoSuchFile):
                await sftp.listdir(path)
        assert await sftp.realpath(".") == "/"
        assert await sftp.realpath("../../x.csv") == "/x.csv"


async def test_more_files_than_one_answer_or_one_look_holds_are_listed(client, monkeypatch):
    monkeypatch.setattr(inbox, "LISTED_AT_ONCE", 50)
    names = [f"{n:03}.csv" for n in range(130)]
    async with client.sftp() as sftp:
        for name in names:
            await put(sftp, name, b"")
        assert await sftp.listdir() == names


@pytest.mark.threat("T23", "T29")
async def test_an_account_sees_its_own_files_only(world):
    one, two = await world.client(), await world.client()
    async with one.sftp() as mine, two.sftp() as theirs:
        await put(mine, "x.csv", b"mine")
        assert await theirs.listdir() == []
        for attempt in (theirs.stat("x.csv"), theirs.remove("x.csv"), theirs.rename("x.csv", "y.csv")):
            with pytest.raises(asyncssh.SFTPNoSuchFile):
                await attempt
        await put(theirs, "x.csv", b"theirs")
        assert await mine.getsize("x.csv") == 4


@pytest.mark.threat("T28")
async def test_nothing_can_be_read_back(client):
    async with client.sftp() as sftp:
        await put(sftp, "x.csv", b"secret")
        for mode in ("rb", "r+b", "w+b"):
            with pytest.raises(asyncssh.SFTPPermissionDenied):
                await sftp.open("x.csv", mode)
        async with sftp.open("y.csv", "wb") as file:
            await file.write(b"secret")
            with pytest.raises(asyncssh.SFTPPermissionDenied):
                await file._handler.read(file._handle, 0, 6)
            assert (await file.stat()).size == 6


@pytest.mark.threat("T21")
async def test_files_are_written_whole(client):
    async with client.sftp() as sftp:
        await put(sftp, "x.csv", b"12345")
        for mode in ("ab", "r+b"):
            with pytest.raises(asyncssh.SFTPPermissionDenied):
                await sftp.open("x.csv", mode)
        with pytest.raises(asyncssh.SFTPPermissionDenied):
            await sftp.open("x.csv", FXF_WRITE)
        with pytest.raises(asyncssh.SFTPFailure):
            await sftp.open("x.csv", "xb")
        with pytest.raises(asyncssh.SFTPPermissionDenied):
            await sftp.truncate("x.csv", 1)
        await sftp.setstat("x.csv", SFTPAttrs(permissions=0o6777, uid=0, gid=0, atime=1, mtime=1))
        attrs = await sftp.stat("x.csv")
        assert (attrs.permissions & 0o7777, attrs.size) == (0o600, 5)


@pytest.mark.threat("T38", "T40")
async def test_every_open_makes_a_new_version_and_the_last_to_close_is_current(world, client):
    async with client.sftp() as one, client.sftp() as two:
        first, second = await one.open("x.csv", "wb"), await two.open("x.csv", "wb")
        await second.write(b"second")
        await first.write(b"first")
        await second.close()
        await first.close()
        assert await one.getsize("x.csv") == len(b"first")
    assert sorted(await world.files()) == [("x.csv", 5, "available"), ("x.csv", 6, "available")]
    stored = {hashlib.sha256(await world.content(file)).hexdigest() for file in await world.rows(File)}
    assert stored == {hashlib.sha256(data).hexdigest() for data in (b"first", b"second")}


async def test_renaming_or_removing_leaves_no_older_version_in_its_place(world, client):
    async with client.sftp() as sftp:
        for name in ("x.csv.part", "x.csv.part", "y.csv", "y.csv"):
            await put(sftp, name, b"1")
        await sftp.rename("x.csv.part", "x.csv")
        await sftp.remove("y.csv")
        assert await sftp.listdir() == ["x.csv"]
    assert await world.files() == [
        ("x.csv.part", 1, "superseded"),
        ("x.csv", 1, "available"),
        ("y.csv", 1, "removed"),
        ("y.csv", 1, "removed"),
    ]


@pytest.mark.rule("S86", "S138", "D10")
async def test_the_largest_file_is_accepted_and_one_byte_more_is_not(world, client):
    async with client.sftp() as sftp:
        await put(sftp, "x.csv", bytes(LIMIT))
        file = await sftp.open("y.csv", "wb")
        await file.write(bytes(LIMIT))
        with pytest.raises(asyncssh.SFTPFailure, match=str(LIMIT)):
            await file.write(b"x")
        with pytest.raises(asyncssh.SFTPFailure):
            await file.close()
    assert await world.files() == [("x.csv", LIMIT, "available")]
    assert len(world.stored()) == 1
    assert Limits().file_bytes == 5 * 1024**3


@pytest.mark.threat("T26")
async def test_pieces_may_overtake_each_other_but_not_leave_a_hole(world, client):
    async with client.sftp() as sftp:
        file = await sftp.open("x.csv", "wb")
        await file.write(b"cd", 2)
        await file.write(b"ab", 0)
        await file.close()
        hole = await sftp.open("y.csv", "wb")
        await hole.write(b"cd", 2)
        with pytest.raises(asyncssh.SFTPFailure, match="hole"):
            await hole.close()
        far = await sftp.open("z.csv", "wb")
        with pytest.raises(asyncssh.SFTPFailure):
            await far.write(b"x", 2**40)
        with pytest.raises(asyncssh.SFTPFailure):
            await far.close()
    (file,) = await world.rows(File)
    assert await world.content(file) == b"abcd"
    assert len(world.stored()) == 1


@pytest.mark.threat("T20", "T24")
@pytest.mark.parametrize(
    "path",
    [
        b"../x",
        b"/etc/passwd",
        b"a/../../b",
        b"..\\x",
        b".",
        b"..",
        b"",
        b"/",
        b"//x",
        b"./",
        b"./../x",
        b"/./.x",
        b"./x.csv/",
        b"a/b.csv",
        b"%2e%2e/x",
        b"~/x",
        b".hidden",
        b"-x",
        b"a\nb",
        b"a\rb",
        b"a\x1b[31m",
        b"a\x00b",
        b"\xff.csv",
        "a\u202eb".encode(),
        "a\u200bb".encode(),
        b"x" * 201,
        b"x" * 256,
    ],
)
async def test_a_hostile_name_is_refused_and_nothing_is_stored(world, client, path):
    async with client.sftp() as sftp:
        await put(sftp, "x.csv", b"")
        for attempt in (sftp.open(path, "wb"), sftp.rename("x.csv", path)):
            with pytest.raises(asyncssh.SFTPPermissionDenied):
                await attempt
        for attempt in (sftp.remove(path), sftp.rename(path, "y.csv")):
            with pytest.raises(asyncssh.SFTPNoSuchFile):
                await attempt
    assert await world.files() == [("x.csv", 0, "available")]


@pytest.mark.threat("T20")
async def test_a_name_in_two_spellings_is_one_name(client):
    async with client.sftp() as sftp:
        await put(sftp, "cafe\u0301.csv", b"12")
        assert await sftp.listdir() == ["caf\u00e9.csv"]
        assert await sftp.getsize("cafe\u0301.csv") == 2


@pytest.mark.threat("T21", "T22")
async def test_folders_and_links_are_not_made(world, client):
    async with client.sftp() as sftp:
        await put(sftp, "x.csv", b"")
        for attempt in (
            sftp.mkdir("d"),
            sftp.rmdir("d"),
            sftp.symlink("x.csv", "y"),
            sftp.link("x.csv", "y"),
            sftp.readlink("x.csv"),
        ):
            with pytest.raises(asyncssh.SFTPOpUnsupported):
                await attempt
    assert await world.files() == [("x.csv", 0, "available")]


@pytest.mark.threat("T27")
async def test_other_extensions_are_neither_offered_nor_served(client):
    async with client.sftp() as sftp:
        assert sftp._handler._supports_posix_rename
        assert not sftp._handler._supports_copy_data
        requests = [b"copy-data", b"statvfs@openssh.com", b"lsetstat@openssh.com", b"ranges@asyncssh.com", b"nonsense"]
        for request in requests:
            assert request not in EXTENSIONS
            with pytest.raises(asyncssh.SFTPOpUnsupported):
                await sftp._handler._make_request(request)


@pytest.mark.threat("T20", "T22")
def test_no_operation_of_the_library_reaches_the_disk():
    ours = {name for name, _ in inspect.getmembers(Inbox, callable) if name in vars(Inbox)}
    theirs = {name for name, found in vars(SFTPServer).items() if inspect.isfunction(found) and name[0] != "_"}
    harmless = {
        "convert_attrs",
        "format_user",
        "format_group",
        "format_longname",
        "map_path",
        "reverse_map_path",
    }
    assert theirs - ours == harmless


async def test_an_open_beyond_the_limit_of_handles_fails_and_the_others_go_on(open_world):
    async with open_world(handles_per_session=2) as world:
        client = await world.client()
        async with client.sftp() as sftp:
            one, two = await sftp.open("1.csv", "wb"), await sftp.open("2.csv", "wb")
            with pytest.raises(asyncssh.SFTPFailure):
                await sftp.open("3.csv", "wb")
            await one.close()
            folder = await sftp._handler.opendir(b"/")
            await sftp._handler.readdir(folder)
            with pytest.raises(asyncssh.SFTPFailure):
                await sftp._handler.opendir(b"/")
            await sftp._handler.close(folder)
            await sftp._handler.close(await sftp._handler.opendir(b"/"))
            await two.close()
            await put(sftp, "3.csv", b"")
        assert [name for name, _, _ in await world.files()] == ["1.csv", "2.csv", "3.csv"]
