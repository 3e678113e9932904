"""Collecting: the newest file comes whole or not at all, whatever the server does meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass
from typing import Any

import asyncssh
import psycopg
import pytest
import pytest_asyncio
from tests.api.world import account_of
from tests.fetch.hostile import NAME, ScriptedFtp
from tests.fetch.servers import FtpServer, SftpServer, put

from ingestd import egress
from ingestd.domain import ids
from ingestd.domain.errors import NotFound, Unavailable
from ingestd.domain.ids import Prefix
from ingestd.domain.run import FINAL
from ingestd.domain.submission import Actor
from ingestd.fetch.remote import Terms
from ingestd.ingest.collect import Known, Wanted, collect
from ingestd.ingest.intake import add_file
from ingestd.settings import FetchSettings
from ingestd.store.engine import transaction, utc_now

BRIEF = FetchSettings(silence_seconds=2, settle_seconds=0, retry_seconds=0, attempts=3)
READING = {
    "USER",
    "PASS",
    "OPTS",
    "PWD",
    "TYPE",
    "EPSV",
    "PASV",
    "MLSD",
    "MLST",
    "SIZE",
    "MDTM",
    "REST",
    "RETR",
    "LIST",
}
MIB = 1024 * 1024


@dataclass
class Account:
    """An account that collects; `row` reads one column of its files."""

    tenant: Any
    url: str

    async def collect(self, running, known=None, *, path="", stem="demo", settings=BRIEF, **changes):
        """Collect from a server and add the file; gives what was found, and the file's row or None."""
        intake = self.tenant.app.intake
        made = await self.tenant.http.post("/v1/connections", json=running.connection(**changes))
        connection = ids.read(Prefix.CONNECTION, made.raise_for_status().json()["id"])
        try:
            terms = Terms(settings, egress.parse_allow(["127.0.0.0/8:*"]))
            wanted = Wanted(account_of(self.tenant), connection, path, stem)
            async with collect(intake, terms, wanted, known) as found:
                if found.unchanged:
                    return found, None
                async with transaction(intake.sessions) as session:
                    actor, now = Actor("schedule"), utc_now()
                    file = await add_file(session, found.incoming, found.blob, name=found.name, actor=actor, now=now)
                return found, file
        finally:
            await self.tenant.http.delete(f"/v1/connections/{made.json()['id']}")

    async def refused(self, running, **more):
        """The code of a collection that fails; no file may be there after it."""
        with pytest.raises((Unavailable, NotFound)) as refused:
            await self.collect(running, **more)
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            rows = await connection.execute(
                "SELECT count(*) FROM files WHERE account_id = %s", (account_of(self.tenant),)
            )
            assert await rows.fetchone() == (0,)
            rows = await connection.execute(
                "SELECT coalesce(sum(stored_bytes), 0) FROM usage WHERE account_id = %s", (account_of(self.tenant),)
            )
            assert await rows.fetchone() == (0,)
        return refused.value.code


@pytest_asyncio.fixture
async def account(tenant, ground):
    return Account(tenant, ground.database_url)


def digest(data):
    return hashlib.sha256(data).hexdigest()


MAKERS = {"ftp": FtpServer, "ftps": lambda folder: FtpServer(folder, tls="explicit"), "sftp": SftpServer}


@pytest.mark.rule("S7", "S20", "D1")
@pytest.mark.parametrize("kind", ["ftp", "sftp"])
async def test_of_three_files_the_newest_is_taken_as_it_is(account, tmp_path, kind):
    data = os.urandom(3 * MIB)
    for name, age in (("demo__1.csv", 300), ("demo__2.csv", 100), ("demo__3.csv", 200), ("demo2__4.csv", 1)):
        put(tmp_path / "root/in", name, data if name == "demo__2.csv" else b"other", age=age)
    put(tmp_path / "root/in", "demo_points.csv", age=2)
    async with MAKERS[kind](tmp_path / "root") as running:
        found, file = await account.collect(running, path="in")
    assert (file.name, file.size_bytes, file.sha256) == ("demo__2.csv", len(data), digest(data))
    assert found.why == "The newest of 3 files named demo__….csv."
    assert int(found.modified_at.timestamp()) == int((tmp_path / "root/in/demo__2.csv").stat().st_mtime)


@pytest.mark.rule("D1")
@pytest.mark.threat("T142")
async def test_the_same_file_again_is_unchanged_and_nothing_on_the_server_is_touched(account, tmp_path):
    put(tmp_path / "root", NAME, b"same")
    async with FtpServer(tmp_path / "root") as running:
        first, file = await account.collect(running)
        known = Known(first.name, first.size, first.modified_at, file.sha256)
        transfers = running.commands.count(f"RETR /{NAME}")
        again, _ = await account.collect(running, known)
        assert again.unchanged
        assert running.commands.count(f"RETR /{NAME}") == transfers == 1
        put(tmp_path / "root", "demo__b.csv", b"same", age=0)
        renamed, _ = await account.collect(running, known)
        assert (renamed.unchanged, renamed.name) == (True, "demo__b.csv")
        assert {line.partition(" ")[0] for line in running.commands} <= READING
    assert (tmp_path / "root" / NAME).read_bytes() == b"same"


@pytest.mark.rule("D1", "S21")
async def test_where_nothing_fits_there_is_no_file(account, tmp_path):
    put(tmp_path / "root", "other__a.csv")
    async with FtpServer(tmp_path / "root") as running:
        assert await account.refused(running) == "no_file"
        assert await account.refused(running, path="nowhere") == "path_not_found"


@pytest.mark.threat("T138")
@pytest.mark.parametrize("end", ["226 All of it", "426 Broken", None])
async def test_a_transfer_that_is_cut_short_gives_no_file(account, end):
    class Cut(ScriptedFtp):
        async def retr(self, session, _):
            self.offsets.append(session.offset)
            await self.send(session, self.content[session.offset : 1000], end=end)

    settings = BRIEF.model_copy(update={"silence_seconds": 0.5})
    async with Cut(b"x" * 2000) as running:
        assert await account.refused(running, settings=settings) in {"transfer_truncated", "server_silent"}
        assert running.offsets[0] == 0
        assert set(running.offsets[1:]) == {1000}


class Dying(ScriptedFtp):
    """Dies in the middle of its first transfer; `resumes` says whether it can go on later."""

    resumes = True

    async def rest(self, session, argument):
        if self.resumes:
            await super().rest(session, argument)
        else:
            await session.say("502 From the start only")

    async def retr(self, session, argument):
        if self.offsets:
            await super().retr(session, argument)
            return
        self.offsets.append(0)
        await session.say("150 Here")
        await self.pour(session, self.content[: 2 * MIB])
        (await session.data).close()
        session.writer.close()


@pytest.mark.parametrize(("resumes", "offsets"), [(True, [0, 2 * MIB]), (False, [0, 0])])
async def test_a_broken_transfer_goes_on_where_the_server_can(account, resumes, offsets):
    async with Dying(os.urandom(3 * MIB)) as running:
        running.resumes = resumes
        _, file = await account.collect(running)
        assert (file.size_bytes, file.sha256) == (3 * MIB, digest(running.content))
        assert running.offsets == offsets


async def test_a_broken_transfer_over_sftp_goes_on_where_it_broke(account, tmp_path):
    data, starts = os.urandom(4 * MIB), []

    class Breaking(asyncssh.SFTPServer):
        broken = False

        def read(self, file_obj, offset, size):
            starts.append(offset)
            if offset >= 2 * MIB and not Breaking.broken:
                Breaking.broken = True
                self.channel.get_connection().abort()
            return super().read(file_obj, offset, size)

    put(tmp_path / "root", NAME, data)
    async with SftpServer(tmp_path / "root", handler=Breaking) as running:
        _, file = await account.collect(running)
    assert file.sha256 == digest(data)
    assert Breaking.broken
    assert starts.count(0) == 1


@pytest.mark.threat("T134")
async def test_more_than_was_claimed_is_cut_off(account):
    class Liar(ScriptedFtp):
        def facts(self, _size=None):
            return super().facts(1000)

        async def retr(self, session, _):
            await session.say("150 Here")
            while True:
                await self.pour(session, b"x" * MIB)

    async with Liar() as running:
        assert await account.refused(running) == "file_changed"
        assert running.served < 32 * MIB


@pytest.mark.threat("T134")
async def test_a_file_beyond_the_limit_is_not_begun(account):
    class Huge(ScriptedFtp):
        def facts(self, _size=None):
            return super().facts(6 * 1024 * MIB)

    async with Huge() as running:
        assert await account.refused(running) == "file_too_large"
        assert "RETR" not in running.said()


@pytest.mark.threat("T135")
async def test_a_server_that_drips_is_left(account):
    class Dripping(ScriptedFtp):
        async def retr(self, session, _):
            await session.say("150 Here")
            while True:
                await self.pour(session, b"x")
                await asyncio.sleep(0.02)

    settings = BRIEF.model_copy(update={"silence_seconds": 0.3, "floor_bytes": 1000})
    async with Dripping(b"x" * 5000) as running:
        assert await account.refused(running, settings=settings) == "too_slow"


@pytest.mark.threat("T137")
async def test_a_file_that_grows_while_it_is_fetched_is_dropped(account):
    class Growing(ScriptedFtp):
        async def retr(self, session, argument):
            await super().retr(session, argument)
            self.content += b"bob,Low\n"

    async with Growing() as running:
        assert await account.refused(running) == "file_changed"


@pytest.mark.rule("D1")
@pytest.mark.parametrize("modified", ["20991231000000", "20201001020000"])
async def test_a_file_that_is_renamed_once_the_folder_was_listed_is_looked_for_anew(account, modified):
    class Renaming(ScriptedFtp):
        async def mlst(self, session, _):
            await session.say("550 It has another name now")

    async with Renaming() as running:
        running.modified = modified
        assert await account.refused(running) == "file_changed"
    assert "file_changed" not in FINAL


@pytest.mark.rule("D1")
async def test_a_server_of_few_words_is_asked_about_a_growing_file_as_often_as_it_takes(account):
    class Growing(ScriptedFtp):
        mlst, looks = None, 0

        async def size(self, session, _):
            self.looks += 1
            self.content += b"bob,Low\n" * (self.looks < 90)
            await session.say(f"213 {len(self.content)}")

        async def mdtm(self, session, _):
            await session.say(f"213 {self.modified}")

    async with Growing() as running:
        running.modified = "20991231000000"
        _, file = await account.collect(running)
        assert file.sha256 == digest(running.content)


@pytest.mark.rule("D1")
@pytest.mark.threat("T137")
async def test_the_end_of_a_growing_file_is_waited_for(account):
    class Growing(ScriptedFtp):
        modified = "20991231000000"  # so that its age tells nothing
        looks = 0

        async def mlst(self, session, argument):
            self.looks += 1
            if self.looks < 3:
                self.content += b"bob,Low\n"
            await super().mlst(session, argument)

    async with Growing() as running:
        running.modified = Growing.modified
        _, file = await account.collect(running)
        assert file.sha256 == digest(running.content)
        assert running.content.count(b"bob") == 2


@pytest.mark.rule("D1")
@pytest.mark.threat("T137")
async def test_a_server_that_hangs_up_while_a_growing_file_is_waited_for_is_visited_anew(account):
    class Impatient(ScriptedFtp):
        logins = 0

        async def pass_(self, session, argument):
            self.logins += 1
            await super().pass_(session, argument)

        async def mlst(self, session, argument):
            if self.logins == 1:
                await session.say("421 Idle for too long")
                session.writer.close()
            else:
                await super().mlst(session, argument)

    setattr(Impatient, "pass", Impatient.pass_)
    async with Impatient() as running:
        running.modified = "20991231000000"  # so that its age tells nothing
        settings = BRIEF.model_copy(update={"settle_seconds": 0.1})
        _, file = await account.collect(running, settings=settings)
        assert (file.sha256, running.logins) == (digest(running.content), 2)


@pytest.mark.rule("D1")
@pytest.mark.threat("T137")
async def test_a_file_that_does_not_stop_growing_is_not_picked(account):
    class Growing(ScriptedFtp):
        async def mlst(self, session, argument):
            self.content += b"bob,Low\n"
            await super().mlst(session, argument)

    async with Growing() as running:
        running.modified = "20991231000000"
        assert await account.refused(running, settings=BRIEF.model_copy(update={"growing_seconds": 0})) == "no_file"
        assert "RETR" not in running.said()


@pytest.mark.threat("T42", "T134")
async def test_a_file_that_takes_longer_than_a_file_may_is_left(account):
    class Slow(ScriptedFtp):
        async def retr(self, session, _):
            await session.say("150 Here")
            while True:
                await self.pour(session, b"x")
                await asyncio.sleep(0.02)

    async with Slow(b"x" * 5000) as running:
        settings = BRIEF.model_copy(update={"file_seconds": 0.5, "floor_bytes": 0})
        assert await account.refused(running, settings=settings) == "too_slow"
