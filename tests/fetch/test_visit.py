"""What a visit finds, the same on every kind of server."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from tests.fetch.hostile import ScriptedFtp
from tests.fetch.servers import PASSWORD, USERNAME, FtpServer, SftpServer, put

from ingestd import egress
from ingestd.domain.connection import Auth, Kind, Login
from ingestd.domain.errors import Unavailable
from ingestd.domain.remote_file import newest_first
from ingestd.fetch.ftp import ASKED_AT_MOST, ASKED_FOR
from ingestd.fetch.remote import Server, Step, Terms
from ingestd.fetch.visit import probe, scan, visit
from ingestd.settings import FetchSettings

LOOPBACK = egress.parse_allow(["127.0.0.0/8:*"])
TERMS = Terms(FetchSettings(), LOOPBACK)
MAKERS = {
    "ftp": FtpServer,
    "ftp without MLSD": lambda folder: FtpServer(folder, lacking=("MLSD", "MLST")),
    "ftps_explicit": lambda folder: FtpServer(folder, tls="explicit"),
    "ftps_implicit": lambda folder: FtpServer(folder, tls="implicit"),
    "sftp": SftpServer,
}


@pytest_asyncio.fixture(params=MAKERS)
async def server(request, tmp_path):
    """A server of each kind, its key pinned."""
    (tmp_path / "root").mkdir()
    async with MAKERS[request.param](tmp_path / "root") as running:
        yield running, await known(running)


async def known(running, **changes):
    """The server as a connection has it."""
    said = running.connection()
    unknown = Server(
        kind=Kind(said["kind"]),
        host="127.0.0.1",
        port=running.port,
        username=USERNAME,
        login=Login(Auth.PASSWORD, PASSWORD),
        root="",
        host_keys=(),
    )
    return replace(unknown, host_keys=tuple(await scan(unknown, TERMS)), **changes)


def everything(name):
    return True


async def test_a_folder_is_listed_with_exact_times_and_links_are_left_out(server):
    running, known = server
    folder = running.folder
    first = put(folder, "demo__a.csv", b"12345", age=90)
    put(folder, "größe & more__b.csv", b"1")
    (folder / "sub").mkdir()
    async with visit(known, TERMS) as remote:
        found = await remote.list("", everything)
        one = await remote.look("", "demo__a.csv")
    files = {file.name: file for file in found.files}
    assert set(files) == {"demo__a.csv", "größe & more__b.csv"}
    assert (one.size, int(one.modified_at.timestamp())) == (5, int(first.stat().st_mtime))
    assert files["demo__a.csv"] == one
    assert found.folders == ("sub",)


async def test_a_file_is_read_from_any_byte_to_its_end(server):
    running, known = server
    data = bytes(range(256)) * 8192  # two blocks
    put(running.folder / "in", "demo__a.csv", data)
    for offset in (0, 1_500_000, len(data)):
        async with visit(known, TERMS) as remote, remote.read("in", "demo__a.csv", offset) as pieces:
            assert b"".join([piece async for piece in pieces]) == data[offset:]


async def test_what_is_not_there_is_told(server):
    _, known = server
    async with visit(known, TERMS) as remote:
        with pytest.raises(Unavailable) as refused:
            await remote.list("nowhere", everything)
        assert refused.value.code == "path_not_found"
        with pytest.raises(Unavailable) as refused:
            await remote.look("", "nothing.csv")
        assert refused.value.code == "path_not_found"


async def test_a_probe_tells_each_step(server):
    _, known = server
    walked = await probe(known, TERMS)
    assert [each.failure for each in walked] == [None] * len(walked)
    expected = [step for step in Step if known.kind is not Kind.FTP or step is not Step.HOST_KEY]
    assert [each.step for each in walked] == expected
    wrong = await probe(replace(known, login=Login(Auth.PASSWORD, "wrong")), TERMS)
    assert wrong[-1].step is Step.AUTHENTICATE
    assert wrong[-1].failure.code == "login_refused"


@pytest.mark.rule("D1")
@pytest.mark.threat("T139")
async def test_without_exact_times_in_the_listing_those_that_may_be_newest_are_asked_for(tmp_path):
    """LIST has minutes only: the newest here is 10 seconds newer than the next."""
    for number in range(80):
        put(tmp_path, f"demo__{number}.csv", age=86_400 * (80 - number) if number != 40 else 86_390)
    async with FtpServer(tmp_path, lacking=("MLSD", "MLST")) as running, visit(await known(running), TERMS) as remote:
        found = await remote.list("", everything)
        assert newest_first(found.files)[0].name == "demo__40.csv"
        assert len(found.files) == 80
        assert (await remote.look("", "demo__7.csv")).size > 0
    assert len(running.commands) < 200


@pytest.mark.rule("D1")
async def test_a_listing_in_the_servers_local_time_makes_no_old_file_the_newest():
    class Eastern(ScriptedFtp):
        """The times of its listing are five hours ahead."""

        mlsd = mlst = None
        minutes = range(ASKED_FOR + 9)

        async def list(self, session, _):
            times = (f"{7 + minute // 60:02}:{minute % 60:02} demo__{minute}.csv\r\n" for minute in self.minutes)
            await self.send(session, "".join(f"-rw-r--r-- 1 a a 1 Oct 01 {time}" for time in times).encode())

        async def size(self, session, _):
            await session.say("213 1")

        async def mdtm(self, session, path):
            minute = int(path[len("/demo__") : -len(".csv")])
            await session.say(f"213 20201001{2 + minute // 60:02}{minute % 60:02}00")

    async with Eastern() as running, visit(await known(running), TERMS) as remote:
        found = await remote.list("", everything)
    assert len(found.files) == len(Eastern.minutes)
    assert newest_first(found.files)[0].name == f"demo__{Eastern.minutes[-1]}.csv"


VAGUE = {"equal": "-rw-r--r-- 1 a a 1 Oct 01 2020 {name}", "not to be read": "-rw-r--r-- 1 a a 1 1. Okt 2020 {name}"}


@pytest.mark.rule("S7", "D1")
@pytest.mark.threat("T139")
@pytest.mark.parametrize("line", VAGUE.values(), ids=VAGUE)
async def test_where_the_dates_of_a_listing_tell_nothing_every_file_is_asked_for(line):
    async with Numbered() as running, visit(await known(running), TERMS) as remote:
        running.lines = [line.format(name=f"demo__{number}.csv") for number in range(300)]
        found = await remote.list("", everything)
        assert (newest_first(found.files)[0].name, len(found.files)) == ("demo__299.csv", 300)
        running.lines = [line.format(name=f"demo__{number}.csv") for number in range(ASKED_AT_MOST + 1)]
        with pytest.raises(Unavailable) as refused:
            await remote.list("", everything)
    assert refused.value.code == "listing_limit"


@pytest.mark.rule("S7", "D1")
async def test_a_file_without_a_date_may_be_the_newest_however_many_have_one():
    async with Numbered() as running, visit(await known(running), TERMS) as remote:
        running.lines = [f"-rw-r--r-- 1 a a 1 Oct 01 02:{number:02} demo__{number}.csv" for number in range(60)]
        running.lines += [f"-rw-r--r-- 1 a a 1 Oct 01 01:00 demo__{number}.csv" for number in range(-900, 0)]
        running.lines += ["-rw-r--r-- 1 a a 1 1. Okt 2020 demo__99.csv"]
        found = await remote.list("", everything)
    assert (newest_first(found.files)[0].name, len(found.files)) == ("demo__99.csv", 961)


LINES = {
    "IIS": "10-01-20  02:{minute:02}AM                    1 {name}",
    "IIS with the century": "10-01-2020  02:{minute:02}AM          1,234 {name}",
    "DOS of 24 hours": "10/01/2020  02:{minute:02}  1 {name}",
    "with further rights": "-rw-r--r--+ 1 a a 1 Oct 01 02:{minute:02} {name}",
    "without a group": "-rw-r--r-- 1 a 1 Oct 01 02:{minute:02} {name}",
    "with numbers for names": "-rw-r--r--. 1 500 500 1 Oct 01 02:{minute:02} {name}",
}
FOLDERS = {
    "IIS": "10-01-20  02:00AM       <DIR>          a folder",
    "Unix": "drwxr-xr-x+ 2 a 0 Oct 01 02:00 a folder",
}


class Plain(ScriptedFtp):
    """It lists by LIST alone, `lines`, and says with MDTM what minute stands in a file's name."""

    mlsd = mlst = None
    lines = ()

    async def list(self, session, _):
        await self.send(session, "".join(f"{line}\r\n" for line in self.lines).encode())

    async def size(self, session, _):
        await session.say("213 1")

    async def mdtm(self, session, path):
        await session.say(f"213 2020100102{int(path.split('__')[1][:2]):02}00")


@pytest.mark.rule("S7", "D1")
@pytest.mark.parametrize("command", ["size", "mdtm"])
@pytest.mark.parametrize(("answer", "told"), [("450 Busy", "server_busy"), ("502 What?", "protocol_error")])
async def test_a_file_that_cannot_be_asked_for_is_not_passed_over(command, answer, told):
    async def refuse(session, _):
        await session.say(answer)

    async with Plain() as running, visit(await known(running), TERMS) as remote:
        running.lines = [f"-rw-r--r-- 1 a a 1 Oct 01 02:0{minute} demo__0{minute}.csv" for minute in range(3)]
        setattr(running, command, refuse)
        with pytest.raises(Unavailable) as refused:
            await remote.list("", everything)
        assert refused.value.code == told
        answer = "550 It is gone"
        assert (await remote.list("", everything)).skipped == 3


class Numbered(Plain):
    """The number in a file's name is the minute of its exact time."""

    async def mdtm(self, session, path):
        at = datetime(2020, 10, 1, tzinfo=UTC) + timedelta(minutes=int(path[len("/demo__") : -len(".csv")]))
        await session.say(f"213 {at:%Y%m%d%H%M%S}")


@pytest.mark.rule("D1")
@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
@pytest.mark.parametrize("folder", FOLDERS.values(), ids=FOLDERS)
async def test_a_listing_of_whatever_form_shows_the_files_and_which_may_be_newest(line, folder):
    count = 59
    async with Plain() as running, visit(await known(running), TERMS) as remote:
        running.lines = [line.format(minute=0, name=f"old demo__00 {number}.csv") for number in range(ASKED_FOR)]
        running.lines += [line.format(minute=minute, name=f"my demo__{minute:02}.csv") for minute in range(count)]
        running.lines.append(folder)
        found = await remote.list("", everything)
    assert (len(found.files), found.folders, found.skipped) == (count + ASKED_FOR, ("a folder",), 0)
    assert newest_first(found.files)[0].name == "my demo__58.csv"


@pytest.mark.rule("D1")
@pytest.mark.parametrize(
    "line",
    [
        "-rw-r--r-- 1 a a 1 1. Okt 02:00 {name}",
        "-rw-r--r-- 1 a a 1 2020-10-01 02:00 {name}",
        "13-01-20  02:00AM  1 {name}",
        "10-01-20  14:00PM  1 {name}",
    ],
)
async def test_a_file_whose_date_cannot_be_read_is_asked_for(line):
    async with Plain() as running, visit(await known(running), TERMS) as remote:
        running.lines = [line.format(name=f"demo__{minute:02}.csv") for minute in (4, 3)]
        found = await remote.list("", everything)
    assert (newest_first(found.files)[0].name, len(found.files), found.skipped) == ("demo__04.csv", 2, 0)


async def test_what_is_no_entry_is_counted():
    async with Plain() as running, visit(await known(running), TERMS) as remote:
        running.lines = ["total 8", "-rw-r--r-- 1 a a 1 Oct 01 02:00", "10-01-20  02:00AM  <DIR>", "Hello"]
        found = await remote.list("", everything)
    assert (found.files, found.folders, found.skipped) == ((), (), 3)
