"""A segment that refreshes itself, end to end: clock → run → fetch → submit → flow → members, against real servers."""

from contextlib import asynccontextmanager
from datetime import datetime

import asyncssh
import pytest
from tests.api.sources import CRMID, source, tsv
from tests.api.test_messages import written
from tests.fetch.servers import FtpServer, SftpServer, put
from tests.scheduler.world import (
    Slow,
    activate,
    body,
    ended,
    move_clock,
    new_connection,
    next_due,
    put_schedule,
    runs_of,
    schedule_of,
    scheduled,
)
from tests.test_segment_files import make, refresh

from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.store import runs
from ingestd.store.engine import new_id, transaction, utc_now

FIRST = b"user_id,tier\nann,High\nbob,Low\n"
SECOND = b"user_id,tier\nann,Medium\nbob,Low\ncat,High\n"


def server_of(kind, folder):
    folder.mkdir()
    return SftpServer(folder) if kind == "sftp" else FtpServer(folder, tls=kind.partition("_")[2] or None)


async def connect(tenant, server):
    """A connection to a server; the certificate of one with TLS, which nobody has signed, is scanned and pinned."""
    connection = await new_connection(tenant, **server.connection())
    if connection["kind"].startswith("ftps"):
        url = f"/v1/connections/{connection['id']}/host-keys"
        seen = (await tenant.http.post(f"{url}/scan")).raise_for_status().json()
        (
            await tenant.http.put(url, json={"host_keys": [each["line"] for each in seen["host_keys"]]})
        ).raise_for_status()
    return connection


async def run_next(tenant, segment):
    """Move the clock to the next slot, and give its run when it has ended."""
    await move_clock(tenant, await next_due(tenant, segment))
    [run, *_] = await runs_of(tenant, segment)
    return await ended(tenant, run)


async def new_recipient(tenant):
    made = await tenant.http.post("/v1/recipients", json={"address": "ann@example.org", "name": "Ann"})
    return made.raise_for_status().json()["id"]


async def mails(tenant):
    found = (await tenant.http.get("/v1/messages")).raise_for_status().json()["data"]
    return [(each["type"], each["about"], each["to"]) for each in found]


async def the_mail(tenant):
    """The only mail of the account as it was written, once it is kept; the test's time limit ends a wait in vain."""
    while True:
        [message] = (await tenant.http.get("/v1/messages")).raise_for_status().json()["data"]
        if message["state"] == "delivered":
            return await written(tenant, message)


async def show(tenant, segment):
    return (await tenant.http.get(f"/v1/segments/{segment['id']}")).raise_for_status().json()


@pytest.mark.rule("S1", "S7", "S20", "S28", "S44", "S46", "S47")
@pytest.mark.parametrize("kind", ["ftp", "ftps_explicit", "sftp"])
async def test_a_segment_refreshes_itself_from_the_newest_of_three_files(tenant, receiver, tmp_path, kind):
    async with server_of(kind, tmp_path / "theirs") as server:
        folder = server.folder / "demo_path"
        put(folder, "loyalty__a.csv", b"user_id,tier\nold,High\n", age=3 * 3600)
        newest = put(folder, "loyalty__b.csv", FIRST, age=3600)
        put(folder, "loyalty__c.csv", b"user_id,tier\nolder,High\n", age=2 * 3600)
        put(folder, "loyal__d.csv", b"user_id,tier\nother,High\n", age=60)
        recipient = await new_recipient(tenant)
        async with scheduled(tenant, await connect(tenant, server), recipients=[recipient]) as segment:
            due = await next_due(tenant, segment)
            run = await run_next(tenant, segment)
            assert (run["outcome"], run["result"], run["error"]) == ("succeeded", "ingested", None)
            assert (run["slot"], run["file"]["name"]) == (str(due.date()), "loyalty__b.csv")
            assert (run["why"].partition(" files")[0], run["counts"]["accepted"]) == ("The newest of 3", 2)
            assert datetime.fromisoformat(run["data_as_of"]).timestamp() == int(newest.stat().st_mtime)
            assert run["duration_seconds"] > 0
            refreshed = await show(tenant, segment)
            assert (refreshed["status"], refreshed["members"]) == ("active", 2)
            assert refreshed["data_as_of"] == run["data_as_of"]
            told = await receiver.until("run.succeeded", run["id"])
            assert told["ingestion"]["id"] == run["ingestion"]["id"]
            ingestion = (await tenant.http.get(f"/v1/ingestions/{run['ingestion']['id']}")).json()
            assert (ingestion["channel"], ingestion["uploaded_by"]["type"]) == ("schedule", "schedule")

            same = await run_next(tenant, segment)  # the same file again (D1)
            assert (same["outcome"], same["result"], same["ingestion"]) == ("succeeded", "unchanged", None)
            put(folder, "loyalty__e.csv", FIRST, age=120)  # another file with the same bytes
            assert (await run_next(tenant, segment))["result"] == "unchanged"
            assert (await show(tenant, segment))["members"] == 2

            put(folder, "loyalty__f.csv", SECOND, age=90)
            assert (await run_next(tenant, segment))["result"] == "ingested"
            assert (await show(tenant, segment))["members"] == 3
            results = [each["result"] for each in await runs_of(tenant, segment)]
            assert results == ["ingested", "unchanged", "unchanged", "ingested"]
            assert await mails(tenant) == []


@pytest.mark.rule("S7", "D1", "D53")
async def test_what_was_added_to_a_file_stays_when_the_same_file_is_found_again(tenant, tmp_path):
    async with server_of("sftp", tmp_path / "theirs") as server:
        put(server.folder / "demo_path", "loyalty__a.csv", b"user_id,tier\nann,High\nbob,\n", age=3600)
        async with scheduled(tenant, await connect(tenant, server)) as segment:
            run = await run_next(tenant, segment)
            first = await tenant.ended(run["ingestion"]["id"])
            again = await tenant.http.post(f"/v1/ingestions/{first['id']}/retry", json={"rows": "rejected"})
            assert (await tenant.ended(again.raise_for_status().json()["id"]))["status"] == "failed"
            mended = (await tenant.error_file(first)).replace('"bob",""', '"bob","Low"')
            await refresh(tenant, segment["id"], mended.encode())
            await refresh(tenant, segment["id"], b"user_id,tier\ncat,Low\n", mode="append")
            crm = await source(tenant, crmid=CRMID)
            await crm.ingest(tsv("crmid", "c-1"), segment={"id": segment["id"]})
            assert (await run_next(tenant, segment))["result"] == "unchanged"
            refreshed = await show(tenant, segment)
            assert (refreshed["members"], refreshed["data_as_of"]) == (4, run["data_as_of"])
            put(server.folder / "demo_path", "loyalty__b.csv", mended.encode(), age=60)  # mended where it came from
            results = [(await run_next(tenant, segment))["result"] for _ in range(2)]
            assert (results, (await show(tenant, segment))["members"]) == (["ingested", "unchanged"], 4)


@asynccontextmanager
async def switched(tenant, server):
    """A segment that was filled with FIRST by hand, and waits for its first scheduled upload."""
    segment = {"id": await make(tenant)}
    await refresh(tenant, segment["id"], FIRST)
    await put_schedule(tenant, segment, body(await connect(tenant, server)))
    assert (await edited(tenant, segment, upload_type="scheduled"))["status"] == "in_progress"
    try:
        yield segment
    finally:
        await tenant.http.delete(f"/v1/segments/{segment['id']}/schedule")


async def edited(tenant, segment, **draft):
    """A segment after its edits were published."""
    (await tenant.http.put(f"/v1/segments/{segment['id']}/draft", json=draft)).raise_for_status()
    return await activate(tenant, segment)


@pytest.mark.rule("S44", "D1")
async def test_a_segment_whose_first_run_finds_what_it_has_is_active_from_then_on(tenant, tmp_path):
    async with server_of("sftp", tmp_path / "theirs") as server, switched(tenant, server) as segment:
        put(server.folder / "demo_path", "loyalty__a.csv", FIRST)
        assert (await run_next(tenant, segment))["result"] == "unchanged"
        assert (await show(tenant, segment))["status"] == "active"
        assert (await edited(tenant, segment, description="Said otherwise"))["status"] == "active"


@pytest.mark.rule("S44")
async def test_what_is_only_added_is_not_the_scheduled_upload_that_a_segment_waits_for(tenant, tmp_path):
    crm = await source(tenant, crmid=CRMID)
    async with server_of("sftp", tmp_path / "theirs") as server, switched(tenant, server) as segment:
        await refresh(tenant, segment["id"], b"user_id,tier\ncat,Low\n", mode="append")
        assert (await crm.ingest(tsv("crmid", "c-1"), segment={"id": segment["id"]}))["status"] == "completed"
        shown = await show(tenant, segment)
        assert (shown["status"], shown["members"]) == ("in_progress", 4)
        put(server.folder / "demo_path", "loyalty__a.csv", SECOND)
        assert (await run_next(tenant, segment))["result"] == "ingested"
        shown = await show(tenant, segment)
        assert (shown["status"], shown["members"]) == ("active", 3)
        assert (await edited(tenant, segment, description="Said otherwise"))["status"] == "active"


@pytest.mark.rule("D53")
async def test_a_file_that_is_tried_again_is_as_old_as_before(tenant, tmp_path):
    async with server_of("sftp", tmp_path / "theirs") as server:
        put(server.folder / "demo_path", "loyalty__a.csv", FIRST, age=3600)
        async with scheduled(tenant, await connect(tenant, server)) as segment:
            run = await run_next(tenant, segment)
            again = await tenant.http.post(f"/v1/ingestions/{run['ingestion']['id']}/retry", json={"rows": "all"})
            assert (await tenant.ended(again.raise_for_status().json()["id"]))["status"] == "completed"
            assert (await show(tenant, segment))["data_as_of"] == run["data_as_of"]


@pytest.mark.rule("D1", "D53")
async def test_a_file_is_unchanged_only_if_the_same_is_still_in_force_when_it_has_come(tenant, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    slow = Slow.new()
    async with SftpServer(folder, handler=slow) as server:
        put(folder / "demo_path", "loyalty__a.csv", FIRST, age=3600)
        async with scheduled(tenant, await connect(tenant, server)) as segment:
            slow.go.set()
            assert (await run_next(tenant, segment))["result"] == "ingested"
            slow.go.clear()
            slow.asked.clear()
            put(folder / "demo_path", "loyalty__b.csv", FIRST, age=60)  # has to be fetched to be compared
            asked = await tenant.http.post(f"/v1/segments/{segment['id']}/runs")
            await slow.asked.wait()
            assert (await refresh(tenant, segment["id"], SECOND))["status"] == "completed"
            slow.go.set()
            run = await ended(tenant, asked.raise_for_status().json())
            assert (run["result"], run["attempts"]) == ("ingested", 2)
            refreshed = await show(tenant, segment)
            assert (refreshed["members"], refreshed["data_as_of"]) == (2, run["data_as_of"])


@pytest.mark.rule("S21", "S36", "S46", "S47")
async def test_no_file_fails_the_run_and_tells_the_recipients(tenant, receiver, tmp_path):
    recipient = await new_recipient(tenant)
    async with server_of("ftp", tmp_path / "theirs") as server:
        put(server.folder / "demo_path", "loyal__a.csv", FIRST)
        connection = await connect(tenant, server)
        async with scheduled(tenant, connection, recipients=[recipient]) as segment:
            run = await run_next(tenant, segment)
            assert (run["outcome"], run["result"], run["attempts"]) == ("failed", "no_file", 1)
            assert (run["error"]["code"], run["error"]["message"]) == ("no_file", "No data file found")
            told = await receiver.until("run.failed", run["id"])
            assert told["error"] == run["error"]
            assert "example.org" not in str(told)
            assert await mails(tenant) == [("run.failed", run["id"], "ann@example.org")]
            assert (await the_mail(tenant))["Subject"] == "loyalty: a scheduled upload has failed"
            assert (await show(tenant, segment))["status"] == "in_progress"
            [log] = await runs_of(tenant, segment, outcome="failed")
            assert log == run
            assert await runs_of(tenant, segment, data_source_id=ids.show(Prefix.DATA_SOURCE, new_id())) == []


async def test_a_run_that_waits_to_be_confirmed_keeps_no_other_waiting(tenant, receiver, tmp_path):
    async with server_of("sftp", tmp_path / "theirs") as server:
        folder = server.folder / "demo_path"
        put(folder, "loyalty__a.csv", FIRST, age=3 * 3600)
        async with scheduled(tenant, await connect(tenant, server)) as segment:
            assert (await run_next(tenant, segment))["result"] == "ingested"
            in_force = await show(tenant, segment)
            put(folder, "loyalty__b.csv", b"user_id,tier\ncat,High\n", age=2 * 3600)
            await move_clock(tenant, await next_due(tenant, segment))
            [held, _] = await runs_of(tenant, segment)
            while held["state"] != "held":
                [held, _] = await runs_of(tenant, segment)
            asked = await tenant.http.post(f"/v1/segments/{segment['id']}/runs")
            same = await ended(tenant, asked.raise_for_status().json())
            assert (same["result"], same["why"][-27:]) == ("unchanged", ". It waits to be confirmed.")
            assert (await show(tenant, segment))["data_as_of"] == in_force["data_as_of"]
            put(folder, "loyalty__c.csv", SECOND, age=3600)
            assert (await run_next(tenant, segment))["result"] == "ingested"
            over = await ended(tenant, held)
            assert (over["outcome"], over["result"]) == ("failed", "cancelled")
            assert (await show(tenant, segment))["members"] == 3


@pytest.mark.rule("S22", "S36")
async def test_a_file_that_is_refused_fails_the_run_with_its_ingestion_and_mails_once(tenant, tmp_path):
    async with server_of("sftp", tmp_path / "theirs") as server:
        put(server.folder / "demo_path", "loyalty__a.csv", b"ann,High\nbob,Low\n")
        connection, recipient = await connect(tenant, server), await new_recipient(tenant)
        async with scheduled(tenant, connection, recipients=[recipient]) as segment:
            run = await run_next(tenant, segment)
            ingestion = (await tenant.http.get(f"/v1/ingestions/{run['ingestion']['id']}")).json()
            assert (run["outcome"], run["result"]) == ("failed", "failed")
            assert run["error"] == ingestion["error"]
            assert await mails(tenant) == [("ingestion.failed", ingestion["id"], "ann@example.org")]
            again = await run_next(tenant, segment)  # what failed is tried again, though the file is the same
            assert again["ingestion"]["id"] != ingestion["id"]


@pytest.mark.rule("S46", "S49", "S58")
async def test_a_run_whose_file_cannot_be_used_says_what_to_do_about_that(tenant, tmp_path):
    crm = await source(tenant)
    async with server_of("sftp", tmp_path / "theirs") as server:
        put(server.folder / "demo_path", "CRM__a.TSV", tsv("crmid", "c-1"))
        schedule = body(await connect(tenant, server), path="demo_path/CRM__a.TSV")
        (await tenant.http.put(f"{crm.path}/schedule", json=schedule)).raise_for_status()
        runs_of_source = f"{crm.path}/runs"
        run = await ended(tenant, (await tenant.http.post(runs_of_source)).raise_for_status().json())
        assert (run["error"]["code"], run["error"]["message"], run["attempts"]) == (
            "mapping_missing",
            "The data source has no mapping yet",
            1,
        )
        assert "Test the connection" not in run["error"]["remedy"]
        await crm.map(crmid=CRMID)
        run = await ended(tenant, (await tenant.http.post(runs_of_source)).raise_for_status().json())
        assert run["result"] == "ingested"
        (await tenant.http.delete(f"{crm.path}/schedule")).raise_for_status()


@pytest.mark.rule("S136", "D51")
async def test_a_webhook_chosen_for_a_segment_or_a_data_source_hears_of_its_runs(tenant, receiver, tmp_path):
    [webhook] = (await tenant.http.get("/v1/webhooks")).json()["data"]
    (await tenant.http.patch(f"/v1/webhooks/{webhook['id']}", json={"events": []})).raise_for_status()
    async with server_of("sftp", tmp_path / "theirs") as server:
        (server.folder / "demo_path").mkdir()
        connection, crm = await connect(tenant, server), await source(tenant, crmid=CRMID)
        async with scheduled(tenant, connection) as segment:
            (await tenant.http.put(f"{crm.path}/schedule", json=body(connection))).raise_for_status()
            for path in (f"/v1/segments/{segment['id']}", crm.path):
                (await tenant.http.put(f"{path}/webhooks", json={"webhooks": [webhook["id"]]})).raise_for_status()
                run = await ended(tenant, (await tenant.http.post(f"{path}/runs")).raise_for_status().json())
                assert (await receiver.until("run.failed", run["id"]))["result"] == "no_file"
        (await tenant.http.delete(f"{crm.path}/schedule")).raise_for_status()


@pytest.mark.rule("S36", "D51")
async def test_the_recipients_of_a_data_sources_schedule_hear_of_failures_only(tenant, tmp_path):
    crm, recipient = await source(tenant, crmid=CRMID), await new_recipient(tenant)
    async with server_of("sftp", tmp_path / "theirs") as server:
        folder = server.folder / "demo_path"
        put(folder, "CRM__a.tsv", tsv("crmid", "c-1"), age=7200)
        schedule = body(await connect(tenant, server), recipients=[recipient])
        (await tenant.http.put(f"{crm.path}/schedule", json=schedule)).raise_for_status()
        run = await ended(tenant, (await tenant.http.post(f"{crm.path}/runs")).raise_for_status().json())
        assert (run["result"], await mails(tenant)) == ("ingested", [])
        put(folder, "CRM__b.tsv", tsv("other", "c-1"))
        run = await ended(tenant, (await tenant.http.post(f"{crm.path}/runs")).raise_for_status().json())
        assert await mails(tenant) == [("run.failed", run["id"], "ann@example.org")]
        (await tenant.http.delete(f"{crm.path}/schedule")).raise_for_status()


@pytest.mark.threat("T130")
async def test_a_changed_host_key_pauses_the_schedule_before_any_password_is_sent(tenant, receiver, tmp_path):
    async with server_of("sftp", tmp_path / "theirs") as server:
        put(server.folder / "demo_path", "loyalty__a.csv", FIRST)
        other_key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
        connection = await new_connection(tenant, **server.connection(host_keys=[other_key]))
        async with scheduled(tenant, connection) as segment:
            run = await run_next(tenant, segment)
            assert (run["outcome"], run["error"]["code"], run["attempts"]) == ("failed", "host_key_changed", 1)
            assert server.attempts == 0
            paused = await schedule_of(tenant, segment)
            assert (paused["pause_reason"], paused["next_run_at"]) == ("host_key_changed", None)
            await receiver.until("connection.host_key_changed", connection["id"])

            pinned = {"host_keys": [server.host_key]}
            (await tenant.http.put(f"/v1/connections/{connection['id']}/host-keys", json=pinned)).raise_for_status()
            (await tenant.http.post(f"/v1/segments/{segment['id']}/schedule/resume")).raise_for_status()
            assert (await run_next(tenant, segment))["result"] == "ingested"


class Dying(asyncssh.SFTPServer):
    """Hangs up in the midst of a file, every time."""

    def read(self, file_obj, offset, size):
        self.channel.get_connection().abort()
        return super().read(file_obj, offset, size)


async def test_a_server_that_dies_in_mid_transfer_leaves_nothing_behind(tenant, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    async with SftpServer(folder, handler=Dying) as server:
        put(folder / "demo_path", "loyalty__a.csv", FIRST)
        async with scheduled(tenant, await connect(tenant, server)) as segment:
            run = await run_next(tenant, segment)
            assert (run["outcome"], run["result"], run["attempts"]) == ("failed", "failed", 2)
            assert run["error"]["code"] in {"connection_lost", "connect_failed"}
            assert (await tenant.http.get("/v1/files")).json()["data"] == []
            assert (await tenant.http.get("/v1/ingestions")).json()["data"] == []


@pytest.mark.rule("S135")
async def test_a_slow_server_does_not_hold_up_the_files_that_are_pushed(tenant, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    slow = Slow.new()
    async with SftpServer(folder, handler=slow) as server:
        put(folder / "demo_path", "loyalty__a.csv", FIRST)
        async with scheduled(tenant, await connect(tenant, server)) as segment:
            asked = await tenant.http.post(f"/v1/segments/{segment['id']}/runs")
            run = asked.raise_for_status().json()
            await slow.asked.wait()
            again = await tenant.http.post(f"/v1/segments/{segment['id']}/runs")
            assert (again.status_code, again.json()["code"]) == (409, "run_open")
            pushed = await tenant.push(b"identity\nann\n")
            assert pushed["status"] == "completed"
            still = (await tenant.http.get(f"/v1/runs/{run['id']}")).json()
            assert (still["state"], still["slot"]) == ("fetching", None)
            slow.go.set()
            assert (await ended(tenant, run))["result"] == "ingested"


async def test_an_attempt_that_another_one_has_overtaken_changes_nothing(tenant, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    slow = Slow.new()
    async with SftpServer(folder, handler=slow) as server:
        put(folder / "demo_path", "loyalty__a.csv", FIRST)
        put(folder / "demo_path", "spending__a.csv", FIRST)
        connection = await connect(tenant, server)
        async with scheduled(tenant, connection) as segment, scheduled(tenant, connection, "spending") as other:
            run = (await tenant.http.post(f"/v1/segments/{segment['id']}/runs")).raise_for_status().json()
            await slow.asked.wait()
            async with transaction(tenant.app.intake.sessions) as session:  # as another replica would
                await runs.claim(session, ids.read(Prefix.RUN, run["id"]), now=utc_now())
            slow.go.set()
            later = (await tenant.http.post(f"/v1/segments/{other['id']}/runs")).raise_for_status().json()
            assert (await ended(tenant, later))["result"] == "ingested"  # one connection, one run after the other
            left = (await tenant.http.get(f"/v1/runs/{run['id']}")).json()
            assert (left["state"], left["ingestion"], left["attempts"]) == ("fetching", None, 2)
            assert [each["name"] for each in (await tenant.http.get("/v1/files")).json()["data"]] == ["spending__a.csv"]
