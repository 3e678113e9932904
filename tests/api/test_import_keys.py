"""Import keys through the door: which are taken, and what revoking one does."""

import asyncio

import asyncssh
import pytest

PATH = "/v1/import-keys"


def public(kind="ssh-ed25519", **options):
    return asyncssh.generate_private_key(kind, **options).export_public_key().decode().strip()


async def register(tenant, key, name="second"):
    return await tenant.http.post(PATH, json={"name": name, "public_key": key})


@pytest.mark.rule("S80", "S81", "S82", "S84")
async def test_an_import_key_is_a_public_key_with_a_name_and_no_chosen_user(tenant):
    listed = (await tenant.http.get(PATH)).json()
    assert listed["server"]["url"].startswith(f"sftp://{tenant.id}@")
    assert listed["data"][0]["username"] == tenant.id
    key = {"name": "second", "public_key": listed["data"][0]["public_key"]}
    for body, status in (
        (key, 409),
        (key | {"name": "first"}, 409),
        (key | {"username": "root"}, 422),
        (key | {"public_key": "-----BEGIN OPENSSH PRIVATE KEY-----"}, 422),
        ({"public_key": key["public_key"]}, 422),
    ):
        assert (await tenant.http.post(PATH, json=body)).status_code == status, body


@pytest.mark.rule("S82")
@pytest.mark.threat("T33")
@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----", "private key"),
        (public("ssh-rsa", key_size=1024), "3072"),
        ('command="sh" ' + public(), "options"),
        (public() + "\n" + public(), "exactly one"),
        ("ssh-dss AAAAB3NzaC1kc3MAAACBAP", "begins with none"),
        ("ssh-ed25519 AAAA", "damaged"),
        ("x" * 16_385, ""),
    ],
    ids=["private", "weak", "options", "two", "old", "damaged", "long"],  # the keys are new each time
)
async def test_a_key_that_is_refused_is_refused_with_the_reason(tenant, key, reason):
    refused = await register(tenant, key)
    assert refused.status_code == 422
    assert reason in refused.json()["detail"]


@pytest.mark.rule("S79")
async def test_without_the_feature_no_key_is_registered(tenant, operator):
    headers = {"Authorization": f"Bearer {operator}"}
    changed = await tenant.http.patch(f"/v1/accounts/{tenant.id}", json={"features": {"sftp": False}}, headers=headers)
    assert changed.json()["features"] == {"sftp": False, "milestone_emails": True}
    refused = await register(tenant, public())
    assert (refused.status_code, refused.json()["code"]) == (403, "feature_missing")


@pytest.mark.rule("S81")
async def test_a_key_is_renamed_to_a_name_that_is_free(tenant):
    made = (await register(tenant, public())).json()
    for more in ({}, {"webhooks": []}):
        taken = await tenant.http.patch(f"{PATH}/{made['id']}", json={"name": "first"} | more)
        assert (taken.status_code, taken.json()["code"]) == (409, "import_key_exists")
    renamed = await tenant.http.patch(f"{PATH}/{made['id']}", json={"name": "third"})
    assert renamed.json() == made | {"name": "third"}


@pytest.mark.rule("S83")
@pytest.mark.threat("T39")
async def test_revoking_a_key_ends_its_open_session_and_lets_it_in_no_more(tenant):
    listed = (await tenant.http.get(PATH)).json()["data"][0]
    assert listed["last_used_at"] is None
    async with tenant.sftp() as client:
        await client.listdir()
        key = (await tenant.http.get(f"{PATH}/{listed['id']}")).json()
        assert key["last_used_at"] is not None
        assert (await tenant.http.delete(f"{PATH}/{key['id']}")).status_code == 204
        async with asyncio.timeout(10):
            await client.wait_closed()
    with pytest.raises(asyncssh.PermissionDenied):
        async with tenant.sftp():
            pass
    assert (await tenant.http.get(f"{PATH}/{key['id']}")).status_code == 404


@pytest.mark.rule("S84")
async def test_the_server_is_shown_with_commands_that_work(tenant):
    shown = (await tenant.http.get("/v1/sftp")).json()
    assert (shown["username"], shown["port"]) == (tenant.id, tenant.app.sftp.port)
    assert shown["host_key_fingerprints"][0].startswith("SHA256:")
    assert shown["commands"][0] == f"sftp -i ~/.ssh/id_ed25519 -P {shown['port']} {tenant.id}@{shown['host']}"
