"""Servers that mean no good, or are merely broken: whatever they answer, a visit ends with a code, in time."""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncssh
import pytest
from tests.fetch.hostile import NAME, ScriptedFtp
from tests.fetch.servers import PASSWORD, USERNAME, FtpServer, SftpServer, put

from ingestd import egress
from ingestd.domain.connection import Auth, Kind, Login, parse_host_key
from ingestd.domain.errors import Unavailable
from ingestd.domain.run import FINAL
from ingestd.fetch.remote import HostKeyChanged, Server, Terms
from ingestd.fetch.visit import scan, visit
from ingestd.settings import FetchSettings

BRIEF = FetchSettings(silence_seconds=2, listing_entries=500, listing_bytes=64 * 1024, listing_seconds=5)
TERMS = Terms(BRIEF, egress.parse_allow(["127.0.0.0/8:*"]))


def server_of(running, **changes):
    said = running.connection()
    keys = tuple(parse_host_key(line, Kind(said["kind"])) for line in said.get("host_keys", []))
    login = Login(Auth.PASSWORD, PASSWORD)
    server = Server(Kind(said["kind"]), "127.0.0.1", running.port, USERNAME, login, "", keys)
    return replace(server, **changes)


async def listed(running, terms=TERMS, **changes):
    async with visit(server_of(running, **changes), terms) as remote:
        return await remote.list("", lambda _: True)


async def refusal(running, **changes):
    with pytest.raises(Unavailable) as refused:
        await listed(running, **changes)
    return refused.value.code


class WithoutTls(ScriptedFtp):
    async def auth(self, session, _):
        await session.say("502 No TLS here")


class WithoutProtection(ScriptedFtp):
    async def prot(self, session, _):
        await session.say("534 Not for the data")


@pytest.mark.threat("T131")
async def test_without_tls_nothing_secret_is_said():
    async with WithoutTls() as running:
        assert await refusal(running, kind=Kind.FTPS_EXPLICIT) == "tls_refused"
    assert running.said() == {"AUTH"}


@pytest.mark.threat("T131")
@pytest.mark.parametrize("tls", ["explicit", "implicit"])
async def test_a_certificate_that_nobody_vouches_for_is_refused_before_the_login(tmp_path, tls):
    async with FtpServer(tmp_path, tls=tls) as running:
        assert await refusal(running) == "certificate_untrusted"
    assert not any(line.startswith(("USER", "PASS")) for line in running.commands)


@pytest.mark.threat("T131")
async def test_a_certificate_of_a_known_authority_is_enough(tmp_path, monkeypatch):
    put(tmp_path / "in", NAME)
    async with FtpServer(tmp_path / "in", tls="explicit") as running:
        running.authority.cert_pem.write_to_path(tmp_path / "authority.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        assert [file.name for file in (await listed(running)).files] == [NAME]
        assert "PROT P" in running.commands


@pytest.mark.threat("T130")
async def test_another_certificate_than_the_pinned_one_is_refused_before_the_login(tmp_path):
    async with FtpServer(tmp_path, tls="explicit") as first, FtpServer(tmp_path, tls="explicit") as second:
        pinned = tuple(await scan(server_of(first), TERMS))
        assert await refusal(second, host_keys=pinned) == "host_key_changed"
        assert (await listed(first, host_keys=pinned)).files is not None
    assert not any(line.startswith(("USER", "PASS")) for line in second.commands)


@pytest.mark.threat("T130")
@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
async def test_another_host_key_of_whatever_kind_is_refused_before_the_login(tmp_path, kind):
    async with SftpServer(tmp_path) as known, SftpServer(tmp_path, kind=kind) as impostor:
        pinned = server_of(known).host_keys
        with pytest.raises(HostKeyChanged) as changed:
            await listed(impostor, host_keys=pinned)
        assert changed.value.seen.line == impostor.host_key
        assert await refusal(impostor, host_keys=()) == "host_key_unknown"
        assert impostor.attempts == 0


class Bouncer(ScriptedFtp):
    """Would have the data connection go to another host."""

    host = "10,0,0,5"
    port_low: int | None = None

    async def epsv(self, session, _):
        await session.say("502 No EPSV")

    async def pasv(self, session, _):
        port = await self.listen(session) if self.port_low is None else self.port_low
        await session.say(f"227 There ({self.host},{port >> 8},{port & 255})")


@pytest.mark.threat("T132")
@pytest.mark.parametrize("host", ["10,0,0,5", "127,0,0,2", "0,0,0,0", "169,254,169,254"])
async def test_a_data_connection_goes_to_the_server_itself_whatever_it_claims(host):
    async with Bouncer() as running:
        running.host = host
        assert [file.name for file in (await listed(running)).files] == [NAME]


@pytest.mark.threat("T132")
@pytest.mark.parametrize("reply", ["227 There (10,0,0,5,0,22)", "227 There (1,2)", "227 Nowhere", "227 (a,b,c,d,e,f)"])
async def test_a_data_port_of_the_system_or_none_at_all_is_refused(reply):
    class Odd(Bouncer):
        async def pasv(self, session, _):
            await session.say(reply)

    async with Odd() as running:
        assert await refusal(running) == "protocol_error"


class Endless(ScriptedFtp):
    line = b"type=file;size=1;modify=20201001020000; demo__%d.csv\r\n"

    async def mlsd(self, session, _):
        await session.say("150 Here")
        while True:
            await self.pour(session, b"".join(self.line.replace(b"%d", b"%d" % n) for n in range(100)))


@pytest.mark.threat("T133")
@pytest.mark.parametrize("line", [Endless.line, b"x" * 8000 + b"\r\n", b"x" * 100_000])
async def test_a_listing_that_does_not_end_is_left(line):
    async with Endless() as running:
        running.line = line
        assert await refusal(running) in {"listing_limit", "protocol_error"}
    assert running.served < 32 * 1024 * 1024


@pytest.mark.threat("T133")
async def test_a_listing_that_never_comes_is_left():
    class Mute(ScriptedFtp):
        async def mlsd(self, session, _):
            await session.say("150 Here")

    async with Mute() as running:
        brief = Terms(BRIEF.model_copy(update={"listing_seconds": 0.3}), TERMS.allow)
        with pytest.raises(Unavailable) as refused:
            await listed(running, brief)
        assert refused.value.code == "server_silent"


class EndlessFolder(asyncssh.SFTPServer):
    async def scandir(self, _path):
        number = 0
        while True:
            number += 1
            attrs = asyncssh.SFTPAttrs(size=1, permissions=0o100644, atime=0, mtime=0)
            yield asyncssh.SFTPName(b"demo__%d.csv" % number, b"", attrs)


@pytest.mark.threat("T133")
async def test_a_folder_over_sftp_that_does_not_end_is_left(tmp_path):
    async with SftpServer(tmp_path, handler=EndlessFolder) as running:
        assert await refusal(running) == "listing_limit"


@pytest.mark.threat("T133")
async def test_a_server_over_sftp_that_hangs_while_it_lists_is_left():
    def nothing(_answer, _number):
        """Not even that the folder is closed."""

    terms = replace(TERMS, settings=BRIEF.model_copy(update={"listing_seconds": 0.3}))
    async with bare_sftp(nothing) as server, asyncio.timeout(5):
        with pytest.raises(Unavailable) as refused:
            async with visit(server, terms) as remote:
                await remote.list("", lambda _: True)
    assert refused.value.code == "server_silent"


@pytest.mark.threat("T133")
async def test_a_listing_over_sftp_that_hangs_is_left_when_the_service_stops():
    asked = asyncio.Event()

    def nothing(_answer, _number):
        asked.set()

    async def look(server):
        async with visit(server, TERMS) as remote:
            await remote.list("", lambda _: True)

    async with bare_sftp(nothing) as server, asyncio.timeout(4):
        looking = asyncio.create_task(look(server))
        await asked.wait()
        looking.cancel()
        await asyncio.wait([looking])
        assert looking.cancelled()


NAMES = ["../../x.csv", "/etc/passwd", "a\rDELE b", "a\0.csv", "C:\\x", "x" * 3000, "a\u202eb.csv", "a\x1b[2J", ""]


@pytest.mark.threat("T136")
async def test_hostile_names_are_skipped_and_counted():
    class Names(ScriptedFtp):
        async def mlsd(self, session, _):
            entries = [f"{self.facts()} {name}" for name in [*NAMES, NAME]]
            entries.append(f"type=OS.unix=slink:/etc/passwd;size=1;modify={self.modified}; demo__link.csv")
            entries.append("type=cdir; .\r\ntype=pdir; ..\r\ntype=dir; sub")
            await self.send(session, "".join(f"{entry}\r\n" for entry in entries).encode() + b"type=file;; \xff\r\n")

    async with Names() as running:
        found = await listed(running)
    assert [file.name for file in found.files] == [NAME]
    assert found.folders == ("sub",)
    assert found.skipped == len(NAMES) + 2
    assert running.said() <= {"USER", "PASS", "PWD", "TYPE", "EPSV", "MLSD"}


OLD = [
    ("-rw-r--r-- 1 a a 1 Oct 01 02:00", "lrwxrwxrwx 1 a a 1 Oct 01 02:00 demo__link.csv -> /etc/passwd"),
    ("10-01-20  02:00AM                    1", "10-01-20  02:00AM    <SYMLINKD>     demo__link.csv [C:\\etc]"),
]


@pytest.mark.threat("T136")
@pytest.mark.parametrize(("entry", "link"), OLD)
async def test_hostile_names_are_skipped_and_counted_where_the_server_knows_only_list(entry, link):
    class Old(ScriptedFtp):
        async def mlsd(self, session, _):
            await session.say("502 No MLSD")

        async def list(self, session, _):
            entries = [f"{self.entry} {name}" for name in [*NAMES, NAME]]
            entries.append(self.link)
            await self.send(session, "".join(f"{entry}\r\n" for entry in entries).encode())

        async def size(self, session, _):
            await session.say("213 1")

        async def mdtm(self, session, _):
            await session.say(f"213 {self.modified}")

    async with Old() as running:
        running.entry, running.link = entry, link
        found = await listed(running)
    assert [file.name for file in found.files] == [NAME]
    assert found.skipped == len(NAMES) + 1
    assert [line for line in running.commands if line[:4] in {"SIZE", "MDTM"}] == [f"SIZE /{NAME}", f"MDTM /{NAME}"]


@pytest.mark.threat("T136")
async def test_hostile_names_over_sftp_are_skipped_and_counted(tmp_path):
    class Names(asyncssh.SFTPServer):
        async def scandir(self, _path):
            for name, mode in [*((each, 0o100644) for each in [*NAMES, NAME]), ("demo__link.csv", 0o120777)]:
                attrs = asyncssh.SFTPAttrs(size=1, permissions=mode, atime=0, mtime=0)
                yield asyncssh.SFTPName(name.encode(), b"", attrs)

    async with SftpServer(tmp_path, handler=Names) as running:
        found = await listed(running)
    assert [file.name for file in found.files] == [NAME]
    assert found.skipped == len(NAMES) + 1


@pytest.mark.threat("T136")
@pytest.mark.parametrize("answer", ['"/in\rDELE b"', '"/in\x1b[2J"', '"in"', '""', "nowhere"])
async def test_where_the_login_leads_to_is_a_path_or_nothing_is_asked_for(answer):
    class Astray(ScriptedFtp):
        async def pwd(self, session, _):
            await session.say(f"257 {answer}")

    async with Astray() as running:
        assert await refusal(running, root="in") == "protocol_error"
    assert running.said() <= {"USER", "PASS", "TYPE", "PWD"}


@pytest.mark.threat("T136")
async def test_every_path_that_is_asked_for_begins_at_the_root_folder():
    async with ScriptedFtp() as running, visit(server_of(running, root="/in"), TERMS) as remote:
        await remote.list("sub", lambda _: True)
        await remote.look("sub", NAME)
        async with remote.read("sub", NAME, 3) as pieces:
            assert b"".join([piece async for piece in pieces]) == running.content[3:]
    asked = {line for line in running.commands if line.split()[0] in {"MLSD", "MLST", "RETR", "CWD", "PWD", "LIST"}}
    assert asked == {"MLSD /in/sub", f"MLST /in/sub/{NAME}", f"RETR /in/sub/{NAME}"}


@pytest.mark.threat("T136")
@pytest.mark.parametrize("time", ["", "99999999999999", "20201001020000.1e999", "\u0662" * 14, "20201001", "-" * 14])
async def test_a_file_without_a_time_that_can_be_read_is_an_error(time):
    async with ScriptedFtp() as running:
        running.modified = time
        assert await refusal(running) == "protocol_error"


@pytest.mark.threat("T139")
@pytest.mark.parametrize("piece", ["220-hello\r\n", "x" * 100, "220-" + "x" * 9000 + "\r\n"])
async def test_a_banner_that_does_not_end_is_left(piece):
    class Talker(ScriptedFtp):
        async def greet(self, session):
            while not session.writer.is_closing():
                await session.say(piece)

    async with Talker() as running:
        assert await refusal(running) == "protocol_error"


@pytest.mark.threat("T135")
@pytest.mark.parametrize("ask", [listed, lambda running, terms, **more: scan(server_of(running, **more), terms)])
async def test_a_banner_that_drips_is_not_waited_for(ask):
    class Dripper(ScriptedFtp):
        async def greet(self, session):
            while not session.writer.is_closing():
                await session.say("220-hello")
                await asyncio.sleep(0.1)

    terms = replace(TERMS, settings=BRIEF.model_copy(update={"connect_seconds": 1}))
    async with Dripper() as running:
        with pytest.raises(Unavailable) as refused:
            await ask(running, terms, kind=Kind.FTPS_EXPLICIT)
    assert refused.value.code == "server_silent"


class NeverOpens(asyncssh.SFTPServer):
    async def open(self, _path, _pflags, _attrs):
        await asyncio.Event().wait()


@pytest.mark.threat("T135")
async def test_a_file_over_sftp_that_is_never_opened_is_not_waited_for(tmp_path):
    put(tmp_path, NAME, b"user_id\n")
    async with SftpServer(tmp_path, handler=NeverOpens) as running, asyncio.timeout(10):
        with pytest.raises(Unavailable) as refused:
            async with visit(server_of(running), TERMS) as remote, remote.read("", NAME, 0):
                pass
    assert refused.value.code == "server_silent"


@pytest.mark.threat("T139")
async def test_a_server_that_asks_for_ever_is_left():
    class Asker(ScriptedFtp):
        async def pass_(self, session, _):
            await session.say("331 And again?")

    setattr(Asker, "pass", Asker.pass_)
    async with Asker() as running:
        assert await refusal(running) == "protocol_error"
    assert len(running.commands) <= 200


BUSY = {
    "user": ("421", "connection_lost"),
    "pass": ("421", "connection_lost"),
    "type": ("421", "connection_lost"),
    "epsv": ("425", "server_busy"),
    "mlsd": ("450", "server_busy"),
    "mlst": ("451", "server_busy"),
    "retr": ("425", "server_busy"),
    "rest": ("450", "server_busy"),
}


@pytest.mark.parametrize("command", BUSY)
async def test_what_the_server_cannot_do_now_is_no_refusal(command):
    code, told = BUSY[command]

    async def busy(session, _):
        await session.say(f"{code} Later")

    async def read():
        async with visit(server_of(running), TERMS) as remote:
            await remote.list("", lambda _: True)
            await remote.look("", NAME)
            async with remote.read("", NAME, 3):
                pass

    async with ScriptedFtp() as running:
        setattr(running, command, busy)
        with pytest.raises(Unavailable) as refused:
            await read()
    assert refused.value.code == told
    assert told not in FINAL


async def test_a_wrong_password_is_refused_whatever_the_server_says_to_it():
    async def wrong(session, _):
        await session.say("430 Wrong")

    async with ScriptedFtp() as running:
        setattr(running, "pass", wrong)
        assert await refusal(running) == "login_refused"


@pytest.mark.threat("T144")
async def test_a_packet_of_names_that_lies_about_its_length_is_an_error(tmp_path):
    def lie(answer, number):
        answer(104, number, struct.pack(">I", 2**32 - 1) + b"short")

    async with bare_sftp(lie) as server, asyncio.timeout(10):
        with pytest.raises(Unavailable) as refused:
            async with visit(server, TERMS) as remote:
                await remote.list("", lambda _: True)
    assert refused.value.code in {"protocol_error", "connection_lost"}


class Bare(asyncssh.SSHServerSession):
    """Opens any folder, and leaves it to `then(answer, number)` to answer what is asked after that."""

    def __init__(self, then):
        self.then, self.come = then, b""

    def connection_made(self, channel):
        self.channel = channel

    def subsystem_requested(self, _subsystem):
        return True

    def data_received(self, data, _datatype):
        self.come += data
        while len(self.come) > 4 and len(self.come) >= (end := 4 + struct.unpack_from(">I", self.come)[0]):
            packet, self.come = self.come[4:end], self.come[end:]
            self.asked(*struct.unpack_from(">BI", packet))

    def asked(self, kind, number):
        if kind == 1:  # INIT
            self.answer(2, None, struct.pack(">I", 3))
        elif kind == 16:  # REALPATH
            self.answer(104, number, struct.pack(">II", 1, 1) + b"/" + struct.pack(">II", 0, 0))
        elif kind == 11:  # OPENDIR
            self.answer(102, number, struct.pack(">I", 1) + b"h")
        else:
            self.then(self.answer, number)

    def answer(self, kind, number, body):
        body = (b"" if number is None else struct.pack(">I", number)) + body
        self.channel.write(struct.pack(">IB", len(body) + 1, kind) + body)


@asynccontextmanager
async def bare_sftp(then):
    """A server of such sessions."""

    class Door(asyncssh.SSHServer):
        def begin_auth(self, _username):
            return False

        def session_requested(self):
            return Bare(then)

    key = asyncssh.generate_private_key("ssh-ed25519")
    listener = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=Door, server_host_keys=[key], encoding=None, config=None
    )
    try:
        pinned = (parse_host_key(key.export_public_key().decode(), Kind.SFTP),)
        yield Server(Kind.SFTP, "127.0.0.1", listener.get_port(), "ann", Login(Auth.PASSWORD, "x"), "", pinned)
    finally:
        listener.close()
        await listener.wait_closed()
