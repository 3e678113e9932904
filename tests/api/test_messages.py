"""E-mails at the milestones of a file, as the account sees them, and as they were written."""

from __future__ import annotations

import asyncio
import csv
import io
from email import message_from_bytes, policy

import pytest
from tests.api.sources import CRMID, source, tsv
from tests.api.world import ingest, nothing_is_applied, until

from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.store import messages
from ingestd.store.accounts import Account

TO = "data@example.org"
AGE = {"Age": {"dataType": "INTEGER"}}


async def mails_of(tenant, ingestion):
    """The messages about an ingestion, oldest first, once all are kept."""
    async with asyncio.timeout(30):
        while True:
            answer = await tenant.http.get("/v1/messages", params={"ingestion": ingestion, "sort": "created_at"})
            found = answer.raise_for_status().json()["data"]
            if all(each["state"] == "delivered" for each in found):
                return found
            await asyncio.sleep(0.05)


async def written(tenant, message):
    """A mail as it was kept."""
    account = ids.read(Prefix.ACCOUNT, tenant.id)
    async with tenant.app.intake.sessions() as session:
        row, _ = await messages.get(session, account, ids.read(Prefix.MESSAGE, message["id"]))
    keys = await tenant.app.intake.keys(account)

    def read():
        with tenant.app.intake.blobs.open(row.blob, keys) as file:
            return b"".join(iter(lambda: file.read(1 << 20), b""))

    return message_from_bytes(await asyncio.to_thread(read), policy=policy.default)


def attachments(mail):
    return {part.get_filename(): part.get_content() for part in mail.iter_attachments()}


@pytest.mark.rule("S77", "S111", "S129", "S131", "S134", "D30")
async def test_a_file_is_told_of_at_its_start_and_at_its_end_with_its_rejected_rows(tenant):
    ended = await tenant.push(b"identity,Age\nann,1\nbob,x\n", columns=AGE)
    began, done = await mails_of(tenant, ended["id"])
    assert [(each["type"], each["to"], each["about"]) for each in (began, done)] == [
        ("ingestion.picked_up", TO, ended["id"]),
        ("ingestion.completed", TO, ended["id"]),
    ]
    assert done["attempts"][0]["code"] == "kept"
    mail = await written(tenant, done)
    assert mail["Subject"] == "file-1.csv: completed, 1 row rejected"
    text = mail.get_body(("plain",)).get_content()
    assert ended["status"] in text
    assert f"{ended['id']}/error-file" in text
    assert attachments(mail) == {"file-1.errors.csv": await tenant.error_file(ended)}


@pytest.mark.rule("S69", "S68", "S77")
async def test_an_upload_for_a_data_source_is_told_of_three_times_in_order(tenant):
    crm = await source(tenant, crmid=CRMID)
    done = await crm.ingest(tsv("crmid", "c-1"), notify=[TO])
    mails = await mails_of(tenant, done["id"])
    told = ["ingestion.scheduled", "ingestion.picked_up", "ingestion.completed"]
    assert [(each["type"], each["to"]) for each in mails] == [(each, TO) for each in told]
    first = await written(tenant, mails[0])
    name = done["file"]["name"]
    assert first["Subject"] == f"{name}: processing is scheduled"
    text = " ".join(first.get_body(("plain",)).get_content().split())
    assert f"{name} has come for the data source CRM and waits for its turn." in text


@pytest.mark.rule("S77")
async def test_a_dry_run_is_told_of_as_one_that_changed_nothing(tenant):
    crm = await source(tenant, crmid=CRMID, age={"name": "age", "format": "INTEGER"})
    dry = await crm.ingest(tsv("crmid age", "c-1 1", "c-2 x"), notify=[TO], dry_run=True)
    waits, began, done = [await written(tenant, each) for each in await mails_of(tenant, dry["id"])]
    name = dry["file"]["name"]
    assert waits["Subject"] == f"{name}: a trial is scheduled"
    assert (began["Subject"], done["Subject"]) == (f"{name}: a trial has begun", f"{name}: tried out, 1 row rejected")
    text = " ".join(done.get_body(("plain",)).get_content().split())
    assert f"{name} has been tried out. Nothing was changed. Of its 2 rows 1 would be rejected." in text
    assert "taken in" not in text


@pytest.mark.rule("S132", "S76")
async def test_a_file_of_which_nothing_was_taken_in_is_told_of_with_its_error_file(tenant):
    ended = await tenant.push(b"identity,Age\nbob,x\n", columns=AGE)
    *_, last = await mails_of(tenant, ended["id"])
    mail = await written(tenant, last)
    assert (ended["status"], last["type"], mail["Subject"]) == ("failed", "ingestion.failed", "file-1.csv: failed")
    assert attachments(mail) == {"file-1.errors.csv": await tenant.error_file(ended)}


@pytest.mark.rule("S122")
async def test_a_manifest_that_is_refused_is_told_of_with_all_that_is_wrong(tenant):
    columns = {f"Column {number}": {"dataType": "DATE"} for number in range(20)}
    ended = await tenant.push(b"identity\nann\n", type="people", columns=columns)
    assert ended["error"]["message"] == "Incorrect details in manifest file"
    (message,) = await mails_of(tenant, ended["id"])
    (file,) = attachments(await written(tenant, message)).values()
    assert len(list(csv.reader(io.StringIO(file)))) == 1 + 1 + 20


@pytest.mark.rule("S122")
@pytest.mark.parametrize("columns", [{"Size": {"dataType": "LONG"}}, {"Age": {"ctName": "identity"}}])
async def test_a_manifest_that_does_not_fit_its_file_is_told_of_with_what_is_wrong(tenant, columns):
    ended = await tenant.push(b"identity,Age\nann,1\n", columns=columns)
    error = ended["error"]
    assert error["message"] == "Incorrect details in manifest file"
    assert [(each["pointer"], each["detail"]) for each in error["problems"]] == [("/columns", error["detail"])]
    *_, message = await mails_of(tenant, ended["id"])
    (file,) = attachments(await written(tenant, message)).values()
    assert error["detail"] in file


@pytest.mark.threat("T94")
@pytest.mark.rule("D39")
async def test_nothing_is_mailed_to_who_is_not_the_accounts(tenant):
    ended = await tenant.push(b"identity\nann\n", clientEmail="eve@evil.test")
    assert ended["status"] == "failed"
    assert await mails_of(tenant, ended["id"]) == []


@pytest.mark.rule("S133", "D58")
async def test_without_milestone_mails_only_failures_are_mailed(tenant):
    account = ids.read(Prefix.ACCOUNT, tenant.id)
    async with tenant.app.intake.sessions() as session, session.begin():
        (await session.get_one(Account, account)).features = {"sftp": True, "milestone_emails": False}
    good = await tenant.push(b"identity,Age\nann,1\n", columns=AGE)
    bad = await tenant.push(b"identity,Age\nann,x\n", columns=AGE)
    assert await mails_of(tenant, good["id"]) == []
    assert [each["type"] for each in await mails_of(tenant, bad["id"])] == ["ingestion.failed"]


@pytest.mark.threat("T94")
@pytest.mark.rule("D39")
async def test_nothing_is_mailed_to_who_is_no_recipient_any_more(tenant, ground):
    made = await tenant.http.post("/v1/recipients", json={"address": "eve@elsewhere.example", "name": "Eve"})
    async with nothing_is_applied(ground, tenant):
        ingestion = await ingest(tenant, "x.csv", b"identity\nann\n", clientEmail="eve@elsewhere.example")
        await until(tenant, ingestion, stage="applying")
        (began,) = await mails_of(tenant, ingestion)
        (await tenant.http.delete(made.headers["location"])).raise_for_status()
    await tenant.ended(ingestion)
    assert [each["type"] for each in await mails_of(tenant, ingestion)] == ["ingestion.picked_up"]
    path = f"/v1/messages/{began['id']}"
    (await tenant.http.post(f"{path}/resend")).raise_for_status()
    async with asyncio.timeout(30):
        while True:
            again = (await tenant.http.get(path)).json()
            if again["state"] == "dead":
                break
            await asyncio.sleep(0.05)
    assert [each["code"] for each in again["attempts"]] == ["kept", "refused"]


async def test_a_mail_is_sent_again_under_its_id(tenant):
    ended = await tenant.push(b"identity\nann\n")
    *_, last = await mails_of(tenant, ended["id"])
    first = await written(tenant, last)
    again = await tenant.http.post(f"/v1/messages/{last['id']}/resend")
    assert (again.status_code, again.json()["id"]) == (202, last["id"])
    *_, last = await mails_of(tenant, ended["id"])
    second = await written(tenant, last)
    assert [each["code"] for each in last["attempts"]] == ["kept", "kept"]
    assert first["Message-ID"] == second["Message-ID"]


async def test_a_recipient_is_told_only_of_the_milestones_they_want(tenant):
    recipient = {"address": TO, "name": "Data", "milestones": ["completed"]}
    (await tenant.http.post("/v1/recipients", json=recipient)).raise_for_status()
    ended = await tenant.ended(await ingest(tenant, "x.csv", b"identity\nann\n"))
    assert [each["type"] for each in await mails_of(tenant, ended["id"])] == ["ingestion.completed"]


async def test_an_invitation_has_the_code_that_confirms(tenant):
    await tenant.http.patch("/v1/account", json={"confirm_recipients": True})
    made = await tenant.http.post("/v1/recipients", json={"address": "eve@elsewhere.example", "name": "Eve"})
    path = made.headers["location"]
    async with asyncio.timeout(30):
        while True:
            (message,) = (await tenant.http.get("/v1/messages")).json()["data"]
            if message["state"] == "delivered":
                break
            await asyncio.sleep(0.05)
    assert (message["type"], message["to"]) == ("recipient.invited", "eve@elsewhere.example")
    text = (await written(tenant, message)).get_body(("plain",)).get_content()
    code = next(word for word in text.split() if word.count("-") == 2 and len(word) == 14)
    assert (await tenant.http.post(f"{path}/confirm", json={"code": code})).status_code == 200
