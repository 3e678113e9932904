"""Connections: what may be configured, what is shown of it, and what never is (S17 to S19)."""

from __future__ import annotations

import asyncio

import asyncssh
import psycopg
import pytest
from tests.api.walk import SERVER
from tests.api.world import account_of

from ingestd.domain.connection import PLAIN_WARNING

PASSWORD = "canary-of-a-password"
FTP = {"kind": "ftp", "host": "127.0.0.1", "username": "ann", "password": PASSWORD}


async def create(tenant, **changes):
    return await tenant.http.post("/v1/connections", json={"name": "one"} | SERVER | changes)


async def made(tenant, **changes):
    return (await create(tenant, **changes)).raise_for_status().json()


def problems(answer):
    return answer.json()["code"], [each["pointer"] for each in answer.json()["errors"]]


@pytest.mark.rule("S18")
async def test_the_sixth_is_refused_also_when_six_come_at_once(tenant):
    answers = await asyncio.gather(*(create(tenant, name=f"number {number}") for number in range(6)))
    assert sorted(each.status_code for each in answers) == [201] * 5 + [409]
    refused = next(each for each in answers if each.status_code == 409)
    assert refused.json()["code"] == "too_many_connections"
    assert len((await tenant.http.get("/v1/connections")).json()["data"]) == 5


@pytest.mark.rule("S18")
async def test_another_accounts_connections_do_not_count_and_a_deleted_one_makes_room(tenant, other):
    await made(other)
    five = [await made(tenant, name=f"number {number}") for number in range(5)]
    (await tenant.http.delete(f"/v1/connections/{five[0]['id']}")).raise_for_status()
    assert (await create(tenant, name="another")).status_code == 201


@pytest.mark.rule("S17")
async def test_a_name_is_used_once(tenant):
    one, two = await made(tenant), await made(tenant, name="two")
    assert (await create(tenant)).json()["code"] == "connection_exists"
    renamed = await tenant.http.patch(f"/v1/connections/{two['id']}", json={"name": one["name"]})
    assert (renamed.status_code, renamed.json()["code"]) == (409, "connection_exists")


@pytest.mark.parametrize(("kind", "port"), [("ftp", 21), ("ftps_explicit", 21), ("ftps_implicit", 990), ("sftp", 22)])
async def test_each_kind_has_its_usual_port_and_the_one_in_the_clear_a_warning(tenant, kind, port):
    shown = await made(tenant, kind=kind, port=None)
    assert shown["port"] == port
    assert shown["warnings"] == ([PLAIN_WARNING] if kind == "ftp" else [])


@pytest.mark.threat("T110")
async def test_a_secret_is_sealed_and_never_shown(tenant, ground):
    key = asyncssh.generate_private_key("ssh-ed25519")
    text = key.export_private_key().decode()
    first = await create(tenant, password=PASSWORD)
    second = await create(tenant, name="two", password=None, private_key=text)
    assert second.json()["public_key"] == key.export_public_key().decode().strip()
    page = await tenant.http.get("/v1/connections")
    trail = await tenant.http.get("/v1/audit")
    async with await psycopg.AsyncConnection.connect(ground.database_url) as connection:
        rows = await connection.execute(
            "SELECT c::text FROM connections c WHERE account_id = %s", (account_of(tenant),)
        )
        stored = "".join(row[0] for row in await rows.fetchall())
    for told in (first.text, second.text, page.text, trail.text, stored):
        assert "canary" not in told
        assert PASSWORD.encode().hex() not in told
        assert "PRIVATE" not in told


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"password": None}, "/body/password"),
        ({"private_key": "x"}, "/body/password"),
        ({"password": "a\r\nDELE b"}, "/body/password"),
        ({"password": None, "private_key": "x"}, "/body/private_key"),
        ({"kind": "ftp", "port": None, "password": None, "private_key": "x"}, "/body/private_key"),
    ],
)
async def test_a_secret_that_does_not_fit_is_told_what_does(tenant, changes, pointer):
    answer = await create(tenant, **changes)
    assert answer.status_code == 422
    assert problems(answer) == ("secret_invalid", [pointer])


async def test_a_locked_key_is_not_unlocked_and_its_owner_told_how_to(tenant):
    text = (
        asyncssh.generate_private_key("ssh-ed25519")
        .export_private_key(passphrase="x", rounds=1, ignore_few_rounds=True)
        .decode()
    )
    answer = await create(tenant, password=None, private_key=text)
    assert problems(answer) == ("secret_invalid", ["/body/private_key"])
    assert "ssh-keygen -p" in answer.json()["errors"][0]["detail"]


async def test_a_kept_secret_goes_to_no_other_server(tenant):
    """Whoever may change a connection could have its password sent to a server of theirs."""
    connection = await made(tenant, host_keys=[host_key()])
    url = f"/v1/connections/{connection['id']}"
    for change in ({"host": "127.0.0.2"}, {"port": 3}, {"kind": "ftp"}):
        answer = await tenant.http.patch(url, json=change)
        assert problems(answer) == ("secret_invalid", ["/body/password"])
    kept = (await tenant.http.patch(url, json={"username": "bob", "root": "/in/"})).raise_for_status().json()
    assert (kept["username"], kept["root"], len(kept["host_keys"])) == ("bob", "/in", 1)
    moved = (await tenant.http.patch(url, json={"host": "127.0.0.2", "password": "x"})).raise_for_status().json()
    assert (moved["host"], moved["host_keys"]) == ("127.0.0.2", [])


def host_key():
    return asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()


@pytest.mark.threat("T130")
async def test_a_host_key_is_pinned_by_its_line(tenant):
    connection, line = await made(tenant), host_key()
    url = f"/v1/connections/{connection['id']}/host-keys"
    pinned = (await tenant.http.put(url, json={"host_keys": [line + " comment"]})).raise_for_status().json()
    fingerprint = asyncssh.import_public_key(line).get_fingerprint()
    assert pinned["host_keys"] == [{"algorithm": "ssh-ed25519", "fingerprint": fingerprint, "line": line}]
    for wrong in ("", "ssh-ed25519", "ssh-ed25519 AAAA", line.replace("ssh-ed25519", "ssh-rsa"), "x509 AAAA"):
        answer = await tenant.http.put(url, json={"host_keys": [wrong]})
        assert (answer.status_code, answer.json()["code"]) == (422, "host_key_invalid")


@pytest.mark.threat("T2", "T9")
@pytest.mark.parametrize(
    "changes", [{"host": "10.0.0.5"}, {"host": "169.254.169.254"}, {"host": "192.0.2.1", "port": 22}]
)
async def test_an_address_that_is_not_public_is_denied(tenant, changes):
    answer = await create(tenant, **changes)
    assert (answer.status_code, answer.json()["code"]) == (403, "egress_denied")


@pytest.mark.threat("T7")
@pytest.mark.parametrize("host", ["ftp://127.0.0.1", "127.1", "a@127.0.0.1", "a b", "127.0.0.1:22", "[::1]"])
async def test_a_host_in_an_odd_spelling_is_refused(tenant, host):
    assert (await create(tenant, host=host)).json()["code"] == "url_invalid"


@pytest.mark.rule("S19")
@pytest.mark.parametrize(
    "root", ["../up", "in/../../up", "ftp://server/in", "\\in", "C:/in", "//server/in", "in/\r\nDELE b"]
)
async def test_a_root_folder_that_leads_elsewhere_is_refused(tenant, root):
    assert (await create(tenant, root=root)).json()["code"] == "path_invalid"


async def test_a_host_that_cannot_be_looked_up_now_is_kept_and_its_test_says_so(tenant):
    connection = await made(tenant, host="sftp.invalid", port=22)
    answer = (await tenant.http.post(f"/v1/connections/{connection['id']}/test")).raise_for_status().json()
    assert (answer["steps"][0]["status"], answer["steps"][0]["code"]) == ("failed", "dns_failed")
    refused = await tenant.http.get(f"/v1/connections/{connection['id']}/files")
    assert (refused.status_code, refused.json()["code"]) == (502, "dns_failed")
