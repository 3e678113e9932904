"""Visits over the API: a connection is tested, its key scanned and pinned, its folders browsed, a file resolved."""

from __future__ import annotations

import asyncio

import asyncssh
import pytest
import pytest_asyncio
from tests.fetch.servers import PASSWORD, FtpServer, SftpServer, put

STEPS = ["resolve", "connect", "host_key", "authenticate", "list_root"]


@pytest_asyncio.fixture
async def sftp(tmp_path):
    (tmp_path / "root").mkdir()
    async with SftpServer(tmp_path / "root") as running:
        yield running


@pytest_asyncio.fixture
async def ftp(tmp_path):
    (tmp_path / "ftp").mkdir()
    async with FtpServer(tmp_path / "ftp") as running:
        yield running


async def connect(tenant, server, **changes):
    made = await tenant.http.post("/v1/connections", json=server.connection(**changes))
    return f"/v1/connections/{made.raise_for_status().json()['id']}"


async def outcome_of(tenant, url):
    return (await tenant.http.post(f"{url}/test")).raise_for_status().json()


async def test_a_test_tells_each_step_with_its_time(tenant, sftp):
    answer = await outcome_of(tenant, await connect(tenant, sftp))
    assert answer["ok"]
    assert [(each["step"], each["status"], each["code"]) for each in answer["steps"]] == [
        (step, "ok", None) for step in STEPS
    ]
    assert all(0 <= each["milliseconds"] < 60_000 for each in answer["steps"])


@pytest.mark.parametrize(
    ("changes", "step", "code"),
    [
        ({"port": 1}, "connect", "connect_failed"),
        ({"host_keys": []}, "host_key", "host_key_unknown"),
        ({"password": "wrong"}, "authenticate", "login_refused"),
        ({"root": "nowhere"}, "list_root", "path_not_found"),
    ],
)
async def test_the_step_that_fails_says_why_and_the_rest_is_skipped(tenant, sftp, changes, step, code):
    for answer in (
        await outcome_of(tenant, await connect(tenant, sftp, **changes)),
        (await tenant.http.post("/v1/connections/test", json=sftp.connection(**changes))).raise_for_status().json(),
    ):
        at = STEPS.index(step)
        assert not answer["ok"]
        assert [each["status"] for each in answer["steps"]] == [*["ok"] * at, "failed", *["skipped"] * (4 - at)]
        assert answer["steps"][at]["code"] == code
        assert PASSWORD not in answer["steps"][at]["detail"]


async def test_a_root_folder_that_is_mistyped_in_its_first_part_does_not_blame_the_login(tenant, tmp_path):
    class Strict(asyncssh.SFTPServer):
        """As OpenSSH it has no real path for what is in a folder that is not there."""

        def realpath(self, path):
            if path == b"no/where":
                raise asyncssh.SFTPNoSuchFile("No such file")
            return super().realpath(path)

    (tmp_path / "root").mkdir()
    async with SftpServer(tmp_path / "root", handler=Strict) as running:
        answer = await outcome_of(tenant, await connect(tenant, running, root="no/where"))
    assert [each["status"] for each in answer["steps"]] == ["ok", "ok", "ok", "ok", "failed"]
    assert answer["steps"][4]["code"] == "path_not_found"


async def test_what_is_tested_before_it_is_kept_is_not_kept(tenant, ftp):
    answer = (await tenant.http.post("/v1/connections/test", json=ftp.connection())).raise_for_status().json()
    assert [each["status"] for each in answer["steps"]] == ["ok", "ok", "skipped", "ok", "ok"]
    assert (await tenant.http.get("/v1/connections")).json()["data"] == []
    inside = await tenant.http.post("/v1/connections/test", json=ftp.connection(host="10.0.0.5"))
    assert inside.json()["steps"][0]["code"] == "egress_denied"


@pytest.mark.threat("T130")
async def test_a_key_is_scanned_shown_and_pinned_by_a_call_of_its_own(tenant, sftp):
    url = await connect(tenant, sftp, host_keys=[])
    refused = await tenant.http.get(f"{url}/files")
    assert (refused.status_code, refused.json()["code"]) == (409, "host_key_unknown")
    scanned = (await tenant.http.post(f"{url}/host-keys/scan")).raise_for_status().json()
    assert [each["line"] for each in scanned["host_keys"]] == [sftp.host_key]
    assert scanned["host_keys"][0]["fingerprint"] == sftp.key.get_fingerprint()
    assert not scanned["pinned"]
    assert (await tenant.http.get(f"{url}/files")).status_code == 409
    assert sftp.attempts == 0
    pins = [each["line"] for each in scanned["host_keys"]]
    (await tenant.http.put(f"{url}/host-keys", json={"host_keys": pins})).raise_for_status()
    assert (await outcome_of(tenant, url))["ok"]
    assert (await tenant.http.post(f"{url}/host-keys/scan")).json()["pinned"]


@pytest.mark.threat("T130")
async def test_a_changed_key_stops_everything_before_a_password_is_sent_and_is_told_once(tenant, sftp, receiver):
    url = await connect(tenant, sftp)
    await outcome_of(tenant, url)
    async with SftpServer(sftp.folder) as impostor:
        moved = sftp.connection(name="moved", port=impostor.port)
        url = f"/v1/connections/{(await tenant.http.post('/v1/connections', json=moved)).json()['id']}"
        for asked in (f"{url}/files", f"{url}/files"):
            refused = await tenant.http.get(asked)
            assert (refused.status_code, refused.json()["code"]) == (409, "host_key_changed")
        failed = (await outcome_of(tenant, url))["steps"][2]
        assert (failed["status"], failed["code"]) == ("failed", "host_key_changed")
        assert impostor.attempts == 0
        shown = (await tenant.http.get(url)).json()
        assert shown["changed_host_key"]["line"] == impostor.host_key
        assert await receiver.until("connection.host_key_changed", shown["id"]) == shown
        pinned = await tenant.http.put(f"{url}/host-keys", json={"host_keys": [impostor.host_key]})
        assert pinned.json()["changed_host_key"] is None
        assert (await outcome_of(tenant, url))["ok"]
    assert [each["type"] for each in receiver.told].count("connection.host_key_changed") == 1


@pytest.mark.threat("T130")
async def test_a_connection_whose_key_has_changed_does_not_work_though_the_pinned_key_is_shown_again(tenant, sftp):
    url = await connect(tenant, sftp)
    own, sftp.key = sftp.key, asyncssh.generate_private_key("ssh-ed25519")
    await sftp.__aexit__()
    async with sftp:
        assert (await outcome_of(tenant, url))["steps"][2]["code"] == "host_key_changed"
    sftp.key = own
    async with sftp:
        answer = await outcome_of(tenant, url)
        assert (answer["ok"], [each["status"] for each in answer["steps"][1:4]]) == (False, ["ok", "failed", "skipped"])
        assert answer["steps"][2]["code"] == "host_key_changed"
        assert "pinned anew" in answer["steps"][2]["detail"]
        pinned = await tenant.http.put(f"{url}/host-keys", json={"host_keys": [sftp.host_key]})
        assert pinned.json()["changed_host_key"] is None
        assert (await outcome_of(tenant, url))["ok"]
    await sftp.__aenter__()  # for the fixture to end it


@pytest.mark.rule("S19")
async def test_a_folder_is_browsed_below_the_root_only(tenant, ftp):
    put(ftp.folder / "demo_master/demo_path", "demo__points.csv", b"12345")
    put(ftp.folder, "outside__the_root.csv")
    url = await connect(tenant, ftp, root="demo_master/")
    top = (await tenant.http.get(f"{url}/files")).raise_for_status().json()
    assert (top["path"], top["folders"], top["data"]) == ("", ["demo_path"], [])
    below = (await tenant.http.get(f"{url}/files", params={"path": "/demo_path/"})).raise_for_status().json()
    assert [(each["name"], each["size_bytes"]) for each in below["data"]] == [("demo__points.csv", 5)]
    for path in ("..", "demo_path/../..", "ftp://127.0.0.1/demo_path"):
        refused = await tenant.http.get(f"{url}/files", params={"path": path})
        assert (refused.status_code, refused.json()["code"]) == (422, "path_invalid")
    missing = await tenant.http.get(f"{url}/files", params={"path": "nowhere"})
    assert (missing.status_code, missing.json()["code"]) == (404, "path_not_found")
    assert not any("outside" in said or ".." in said for said in ftp.commands)


@pytest.mark.rule("S19")
async def test_a_link_does_not_lead_out_of_the_root(tenant, sftp):
    put(sftp.folder / "outside", "demo__a.csv")
    (sftp.folder / "root").mkdir()
    (sftp.folder / "root/link").symlink_to(sftp.folder / "outside")
    url = await connect(tenant, sftp, root="root")
    answer = await tenant.http.get(f"{url}/files", params={"path": "link"})
    assert (answer.status_code, answer.json()["code"]) in {(502, "permission_denied"), (404, "path_not_found")}


@pytest.mark.rule("S7", "S20")
async def test_the_file_that_would_be_picked_is_shown_with_the_reason(tenant, ftp):
    for name, age in (("loyalty__1.csv", 300), ("loyalty__3.csv", 100), ("loyalty__2.csv", 200), ("other__x.csv", 10)):
        put(ftp.folder / "in", name, age=age)
    url = await connect(tenant, ftp)
    found = (await tenant.http.post(f"{url}/resolve", json={"path": "in", "name": "loyalty"})).raise_for_status().json()
    assert found["file"]["name"] == "loyalty__3.csv"
    assert found["why"] == "The newest of 3 files named loyalty__….csv."
    one = (await tenant.http.post(f"{url}/resolve", json={"path": "in/loyalty__1.csv", "name": "loyalty"})).json()
    assert one["file"]["name"] == "loyalty__1.csv"
    none = (await tenant.http.post(f"{url}/resolve", json={"path": "in", "name": "loyal"})).json()
    assert (none["file"], none["why"]) == (None, "Files named loyal__….csv are not there.")


async def test_two_visits_at_a_time_do_not_wait_for_each_other(tenant, ftp):
    url = await connect(tenant, ftp)
    answers = await asyncio.gather(*(tenant.http.get(f"{url}/files") for _ in range(4)))
    assert [each.status_code for each in answers] == [200] * 4
