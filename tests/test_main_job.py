"""The main job through its door: files pushed over real SFTP become profiles and events."""

import asyncio
import csv
import io
import shutil

import paramiko
import pytest

FILES = ("profiles.csv", "profiles.manifest", "events.csv", "events.manifest")
OPENSSH = pytest.mark.skipif(not shutil.which("sftp"), reason="OpenSSH's sftp is not installed")

pytestmark = pytest.mark.timeout(120)


async def by_openssh(tenant, folder):
    """Put every file of a folder with OpenSSH's sftp, data before manifest."""
    hosts = folder / "known_hosts"
    sftp = tenant.app.sftp
    hosts.write_text("".join(f"[{sftp.host}]:{sftp.port} {line}\n" for line in sftp.host_keys))
    batch = "".join(f"put {folder / name}\n" for name in FILES)
    process = await asyncio.create_subprocess_exec(
        "sftp", "-b", "-", "-P", str(sftp.port), "-i", str(tenant.import_key), "-F", "none",
        "-o", f"UserKnownHostsFile={hosts}", "-o", "IdentitiesOnly=yes", f"{tenant.id}@{sftp.host}",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate(batch.encode())
    assert process.returncode == 0, said.decode()


async def by_paramiko(tenant, folder):
    def put():
        transport = paramiko.Transport((tenant.app.sftp.host, tenant.app.sftp.port))
        transport.connect(username=tenant.id, pkey=paramiko.Ed25519Key.from_private_key_file(str(tenant.import_key)))
        client = paramiko.SFTPClient.from_transport(transport)
        for name in FILES:
            client.put(str(folder / name), f"/{name}")
        client.close()
        transport.close()

    await asyncio.to_thread(put)


async def by_asyncssh(tenant, folder):
    async with tenant.sftp() as client:
        for name in FILES:
            await client.put(str(folder / name), f"/{name}")


@pytest.mark.parametrize("put", [pytest.param(by_openssh, marks=OPENSSH), by_paramiko, by_asyncssh])
@pytest.mark.rule("S78", "S85", "S94", "S95", "S96", "S98", "S99", "S100", "S101", "S102", "S104", "S116", "S117")
async def test_the_samples_give_the_documented_outcome_with_any_client(tenant, samples, put):
    await put(tenant, samples)
    events = await tenant.ended()
    profiles = await tenant.ended((await tenant.http.get("/v1/ingestions")).json()["data"][1]["id"])
    assert profiles["counts"] == counts(read=5, accepted=5, created=5)
    assert events["counts"] == counts(read=4, accepted=4, created=4)
    john = await tenant.profile("john.doe-001@example.org")
    assert john["attributes"] == {
        "Name": "JohnDoe-001",
        "Email": "john.doe-001@example.org",
        "Phone": "+918876543211",
        "Married": True,
        "Age": 21,
        "Playlist": ["Rock"],
    }
    assert (john["preferences"], john["channels"]) == ({"MSG-sms": True, "MSG-dndSMS": False}, ["sms"])
    assert (await tenant.profile("dummy_cookie-001", kind="objectId"))["id"] == john["id"]
    assert "Phone" not in (await tenant.profile("jane.roe-004@example.org"))["attributes"]
    happened = await tenant.events("john.doe-001@example.org")
    assert [each["name"] for each in happened] == ["Purchased"] * 4
    assert [each["properties"]["DeliveryStatus"] for each in happened] == [True, False, True, False]
    assert {each["properties"]["Price"] for each in happened} == {123.0}
    assert {each["properties"]["DeliveryDate"] for each in happened} == {"2020-05-12T09:07:12Z"}
    assert {each["ts"] for each in happened} == {"2020-01-08T17:14:27Z"}


def counts(**given):
    names = ("read", "accepted", "rejected", "blank", "created", "updated", "unchanged", "merged", "erased", "removed")
    return dict.fromkeys(names, 0) | given


@pytest.mark.rule("S128", "S143")
async def test_rejected_rows_come_back_with_every_reason_and_the_rest_is_applied(tenant):
    rows = "identity,Age,Phone,Married\nann,21,+918876543211,true\nbob,old,12,perhaps\n,3,,\nzoe,,,no\n"
    columns = {"Age": {"dataType": "INTEGER"}, "Married": {"dataType": "BOOLEAN"}}
    ended = await tenant.push(rows.encode(), columns=columns)
    assert ended["status"] == "completed"
    assert ended["counts"] == counts(read=4, accepted=2, rejected=2, created=2)
    header, bob, nobody = csv.reader(io.StringIO(await tenant.error_file(ended)))
    assert header == ["identity", "Age", "Phone", "Married", "Failure Description"]
    assert bob[:4] == ["bob", "old", "12", "perhaps"]
    assert bob[4].split("; ") == [
        "Age: not an INTEGER of 32 bits (LONG has 64)",
        "Married: not a BOOLEAN (true, false, 1, 0, y, n, yes, no)",
        "Phone number is not valid",
    ]
    assert nobody[4].startswith("Atleast one of identity")


@pytest.mark.rule("S128", "D44")
async def test_an_error_file_comes_back_as_it_is_and_again_when_it_is_mended(tenant):
    rows = "identity,Note,Age,L,L.operation\nann,=1+1,1,Rock,$add\nbob,=2+2,old,Pop,$add\n,-3,3,,\ncy,4,4\n"
    columns = {"Age": {"dataType": "INTEGER"}}
    first = await tenant.push(rows.encode(), columns=columns)
    assert first["counts"] == counts(read=4, accepted=1, rejected=3, created=1)
    assert first["retry_of"] is None
    sent_out = await tenant.error_file(first)

    as_it_is = await tenant.push(sent_out.encode(), columns=columns, fileName="anything.csv")
    assert (as_it_is["status"], as_it_is["counts"]["rejected"]) == ("failed", 3)
    assert as_it_is["retry_of"] == first["id"]
    header, bob, nobody, cy = csv.reader(io.StringIO(await tenant.error_file(as_it_is)))
    assert header == ["identity", "Note", "Age", "L", "L.operation", "Failure Description"]
    assert [bob[1], nobody[1], cy[0]] == ["'=2+2", "'-3", "cy,4,4"]
    assert cy[5].startswith("The record was broken before")
    assert await tenant.profile("cy,4,4") is None

    mended = sent_out.replace('"old"', '"2"').replace('"cy,4,4","","","",""', '"cy","4","4","",""')
    for changed in ({"updated": 0, "created": 2}, {"unchanged": 2}):
        again = await tenant.push(mended.encode(), columns=columns, fileName="file-1.errors.csv")
        assert again["counts"] == counts(read=3, accepted=2, rejected=1, **changed)
        assert again["retry_of"] == first["id"]
    assert (await tenant.profile("bob"))["attributes"] == {"Note": "=2+2", "Age": 2, "L": ["Pop"]}
    assert (await tenant.profile("cy"))["attributes"] == {"Note": "4", "Age": 4}


@pytest.mark.rule("S76")
async def test_one_good_row_of_a_hundred_completes_and_none_fails(tenant):
    bad = "".join(f"user-{n},x\n" for n in range(99))
    columns = {"Age": {"dataType": "INTEGER"}}
    mixed = await tenant.push(f"identity,Age\nann,1\n{bad}".encode(), columns=columns)
    none = await tenant.push(f"identity,Age\n{bad}".encode(), columns=columns)
    assert (mixed["status"], mixed["counts"]["accepted"], mixed["counts"]["rejected"]) == ("completed", 1, 99)
    assert (none["status"], none["counts"]["accepted"], none["counts"]["rejected"]) == ("failed", 0, 99)
    assert none["error"]["code"] == "nothing_applied"
    assert none["error_file"]["rows"] == 99


@pytest.mark.rule("S86", "S89", "S115", "S120", "S124")
@pytest.mark.parametrize(
    ("data", "manifest", "code"),
    [
        (b"", {}, "file_unreadable"),
        (b"PK\x03\x04rest of an archive\n", {}, "file_unreadable"),
        (b"name\nann\n", {}, "identifier_missing"),
        (b"identity;Age\nann;1\n", {}, "identifier_missing"),
        (b"identity,Age\nann,1\n", {"type": "event"}, "event_name_missing"),
        (b"identity,Age\nann,1\n", {"columns": {"Size": {}}}, "manifest_incorrect"),
    ],
)
async def test_a_file_that_cannot_be_read_is_refused_whole_and_says_why(tenant, data, manifest, code):
    refused = await tenant.push(data, **manifest)
    assert (refused["status"], refused["error"]["code"]) == ("failed", code)
    assert refused["error"]["detail"]
    assert refused["error"]["remedy"]
    assert refused["counts"] == counts()
    assert (await tenant.push(b"identity,Age\nann,1\n"))["counts"]["accepted"] == 1


@pytest.mark.rule("S129", "S131", "S136")
async def test_a_signed_webhook_says_what_happened_in_order(tenant, receiver):
    ended = await tenant.push(b"identity,Age\n" + b"".join(b"user-%d,1\n" % n for n in range(100)))
    told = await asyncio.wait_for(receiver.until("ingestion.completed", ended["id"]), 20)
    assert told["counts"] == ended["counts"]
    types = [each["type"] for each in receiver.told if each["data"]["id"] == ended["id"]]
    assert sorted(types) == ["ingestion.completed", "ingestion.picked_up", "ingestion.scheduled"]
    assert receiver.forged == 0


@pytest.mark.rule("S135")
async def test_an_account_s_files_are_walked_in_the_order_of_their_manifests(tenant):
    async with tenant.sftp() as client:
        for n in range(12):
            for name, text in (
                (f"{n}.csv", f"identity,Turn\nann,{n}\n"),
                (f"{n}.manifest", f'{{"fileName": "{n}.csv", "type": "profile", "clientEmail": "a@example.org"}}'),
            ):
                async with client.open(f"/{name}", "wb") as file:
                    await file.write(text.encode())
    await tenant.ended()
    shown = (await tenant.http.get("/v1/ingestions")).json()["data"]
    started = [each["started_at"] for each in reversed(shown)]
    assert started == sorted(started)
    assert (await tenant.profile("ann"))["attributes"]["Turn"] == "11"


@pytest.mark.rule("S142")
async def test_a_script_sends_a_file_of_one_name_again_and_again(tenant):
    for day in range(3):
        await tenant.put("daily.csv", f"identity,Day\nann,{day}\n".encode())
        text = '{"fileName": "daily.csv", "type": "profile", "clientEmail": "data@example.org"}'
        await tenant.put(f"daily-{day}.manifest", text.encode())
    await tenant.ended()
    shown = (await tenant.http.get("/v1/ingestions")).json()["data"]
    assert [each["manifest"]["name"] for each in shown] == [f"daily-{day}.manifest" for day in (2, 1, 0)]
    assert {each["status"] for each in shown} == {"completed"}
    assert (await tenant.profile("ann"))["attributes"] == {"Day": "2"}


@pytest.mark.rule("S50", "S91", "S92")
async def test_one_person_named_by_different_identifiers_is_one_profile(tenant):
    first = await tenant.push(b"identity,objectId,fbId,A\nann,cookie-1,,1\nann,,fb-1,2\n,cookie-1,,3\n")
    assert first["counts"] == counts(read=3, accepted=3, created=1)
    second = await tenant.push(b"fbId,B\nfb-1,4\n")
    assert second["counts"] == counts(read=1, accepted=1, updated=1)
    ann = await tenant.profile("ann")
    assert ann["attributes"] == {"A": "3", "B": "4"}
    assert (await tenant.profile("fb-1", kind="fbId"))["id"] == ann["id"]


@pytest.mark.rule("S143")
async def test_a_row_that_ties_two_identities_is_rejected_alone(tenant):
    ended = await tenant.push(b"identity,objectId,A\nann,cookie-1,1\nbob,cookie-1,2\nbob,,3\n")
    assert ended["counts"] == counts(read=3, accepted=2, rejected=1, created=2)
    _, rejected = csv.reader(io.StringIO(await tenant.error_file(ended)))
    assert rejected == ["bob", "cookie-1", "2", "identifiers belong to two people"]
    assert (await tenant.profile("bob"))["attributes"] == {"A": "3"}
    later = await tenant.push(b"identity,objectId,A\nbob,cookie-1,4\nbob,,5\n")
    assert later["counts"] == counts(read=2, accepted=1, rejected=1, updated=1)


async def test_two_known_profiles_that_a_row_ties_become_one_and_are_counted(tenant):
    await tenant.push(b"objectId,A,B\ncookie-1,1,1\n")
    await tenant.push(b"identity,B,C\nann,2,2\n")
    merging = await tenant.push(b"identity,objectId,D\nann,cookie-1,3\n")
    assert merging["counts"]["merged"] == 1
    ann = await tenant.profile("ann")
    assert ann["attributes"] == {"A": "1", "B": "2", "C": "2", "D": "3"}
    assert (await tenant.profile("cookie-1", kind="objectId"))["id"] == ann["id"]


async def test_a_file_sent_again_under_a_new_manifest_changes_nothing(tenant):
    rows = b"identity,Age,Playlist,Playlist.operation\nann,1,Rock,$add\nbob,2,Pop,$remove\n"
    first, again = await tenant.push(rows), await tenant.push(rows)
    assert first["counts"] == counts(read=2, accepted=2, created=2)
    assert again["counts"] == counts(read=2, accepted=2, unchanged=2)


@pytest.mark.threat("T50", "T106")
async def test_nobody_sees_what_another_account_has(tenant, other):
    ended = await tenant.push(b"identity,Age\nann,1\nbob,x\n", columns={"Age": {"dataType": "INTEGER"}})
    for path in (f"/v1/ingestions/{ended['id']}", f"/v1/ingestions/{ended['id']}/error-file"):
        theirs = await other.http.get(path)
        unknown = await other.http.get(path.replace(ended["id"], "ing_" + "0" * 26))
        assert theirs.status_code == unknown.status_code == 404
        own = {"instance": "", "request_id": ""}
        assert theirs.json() | own == unknown.json() | own
    assert (await other.http.get("/v1/ingestions")).json()["data"] == []
    assert await other.profile("ann") is None
