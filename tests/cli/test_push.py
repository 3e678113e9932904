"""`ingestd push`: from an SSH key and an API key to what became of the file."""

from __future__ import annotations

import asyncio
import json

import asyncssh
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from ingestd.cli import app as commands
from ingestd.cli import push as pushing
from ingestd.cli.exits import Exit
from ingestd.domain.errors import Forbidden, Unavailable

ROWS = b"identity,Age\nann,1\nbob,2\n"
COLUMNS = {"Age": {"dataType": "INTEGER"}}


@pytest.fixture
def files(tmp_path):
    """Write a data file and its manifest; gives the arguments that name them."""

    def write(rows=ROWS, stem="x", **manifest):
        text = {"fileName": f"{stem}.csv", "type": "profile", "clientEmail": "a@example.org", "columns": COLUMNS}
        (tmp_path / f"{stem}.csv").write_bytes(rows)
        (tmp_path / f"{stem}.manifest").write_text(json.dumps(text | manifest))
        return [str(tmp_path / f"{stem}.csv"), str(tmp_path / f"{stem}.manifest")]

    return write


@pytest_asyncio.fixture
async def push(tenant):
    """Run the command as the tenant, all it needs in variables."""
    environment = {
        "INGESTD_PUSH_API": tenant.app.http_url,
        "INGESTD_PUSH_API_KEY": tenant.key,
        "INGESTD_PUSH_KEY": str(tenant.import_key),
    }

    async def run(*arguments, **changes):
        changed = {**environment, **changes}
        return await asyncio.to_thread(CliRunner().invoke, commands, ["push", *arguments], env=changed)

    return run


async def test_a_pushed_file_is_followed_to_its_end(push, files, tenant):
    done = await push(*files(), "--follow")
    assert done.exit_code == Exit.ALL_ACCEPTED, done.output
    assert "completed: 2 read, 2 accepted, 0 rejected, 0 blank" in done.output
    assert (await tenant.profile("ann"))["attributes"] == {"Age": 1}


async def test_rejected_rows_are_summed_up_and_tell_the_exit_code(push, files):
    done = await push(*files(ROWS + b"zoe,old\nmax,older\n"), "--follow")
    assert done.exit_code == Exit.SOME_REJECTED, done.output
    assert "4 read, 2 accepted, 2 rejected" in done.output
    assert "integer_invalid" in done.output
    assert "/error-file" in done.output


async def test_a_refused_manifest_says_why_and_tells_the_exit_code(push, files, tenant):
    await push(*files(stem="first"))
    await tenant.ended()
    done = await push(*files(stem="second", type="foo"), "--follow")
    assert done.exit_code == Exit.REFUSED, done.output
    assert "Incorrect details in manifest file" in done.output
    assert "/type" in done.output


async def test_what_is_wrong_with_a_manifest_as_a_whole_is_said_once_and_names_it(push, files, tenant):
    await push(*files())
    await tenant.ended()
    done = await push(*files(clientEmail="b@example.org"), "--follow")
    assert done.exit_code == Exit.REFUSED, done.output
    assert done.output.count("A manifest named 'x.manifest' has been used before") == 1


async def test_the_same_manifest_again_is_the_same_ingestion(push, files):
    first = await push(*files(), "--follow")
    name = next(line for line in first.output.splitlines() if line.startswith("Ingestion "))
    again = await push(files()[1], files()[1], "--follow")
    assert again.exit_code == Exit.ALL_ACCEPTED, again.output
    assert name in again.output


async def test_the_ingestion_of_another_manifest_is_not_taken_for_its_own(push, files, tenant, monkeypatch):
    mine = files()
    await push(*mine, "--follow")
    own = (await tenant.newest())["id"]
    await push(*files(stem="other"), "--follow")
    refused = await push(*files(stem="other", type="event"), "--follow")
    assert refused.exit_code == Exit.REFUSED, refused.output
    monkeypatch.setattr(pushing, "_newest", lambda _client: own)  # as if that had come while this is pushed
    again = await push(mine[1], mine[1], "--follow")
    assert again.exit_code == Exit.ALL_ACCEPTED, again.output
    assert f"Ingestion {own}" in again.output


async def test_without_following_the_ingestion_is_named(push, files, tenant):
    done = await push(*files())
    assert done.exit_code == 0
    assert (await tenant.newest())["id"] in done.output
    await tenant.ended()


async def test_an_unknown_host_key_gets_nothing(push, files, tenant, tmp_path):
    stranger = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    sftp = tenant.app.sftp
    (tmp_path / "known_hosts").write_text(f"[{sftp.host}]:{sftp.port} {stranger}")
    done = await push(*files(), INGESTD_PUSH_KNOWN_HOSTS=str(tmp_path / "known_hosts"))
    assert isinstance(done.exception, Forbidden)
    assert "another host key" in done.exception.detail
    async with tenant.sftp() as client:
        assert await client.listdir("/") == []


async def test_a_key_that_is_not_registered_and_an_api_that_is_away_are_said_so(push, files, tmp_path):
    other = tmp_path / "other_key"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(other)
    refused = await push(*files(), INGESTD_PUSH_KEY=str(other))
    assert isinstance(refused.exception, Forbidden)
    assert "does not accept the key" in refused.exception.detail
    away = await push(*files(), INGESTD_PUSH_API="http://127.0.0.1:9")
    assert isinstance(away.exception, Unavailable)
    unknown = await push(*files(), INGESTD_PUSH_API_KEY="isk_nonsense")
    assert "answered 401" in unknown.exception.detail


@pytest.mark.parametrize(
    ("arguments", "changes", "said"),
    [
        (["x.csv", "x.json"], {}, ".manifest"),
        (["-x.csv", "x.manifest"], {}, "does not take the name"),
        (["x.csv", "x.manifest", "--follow"], {"INGESTD_PUSH_API_KEY": ""}, "needs an API key"),
        (["x.csv", "x.manifest"], {"INGESTD_PUSH_API_KEY": ""}, "--known-hosts"),
        (["x.csv", "x.manifest"], {"INGESTD_PUSH_KEY": "x.csv"}, "is no SSH private key"),
        (["x.csv", "x.manifest"], {"INGESTD_PUSH_KEY": "sealed"}, "has a passphrase"),
        (["x.csv", "x.manifest"], {"INGESTD_PUSH_KNOWN_HOSTS": "broken"}, "is no file of host keys"),
        (["x.csv", "x.manifest"], {"INGESTD_PUSH_KNOWN_HOSTS": "nowhere"}, "does not exist"),
    ],
)
async def test_a_wrong_call_ends_with_2_and_says_what_is_missing(push, tmp_path, monkeypatch, arguments, changes, said):
    monkeypatch.chdir(tmp_path)
    for name in ("x.csv", "-x.csv", "x.manifest", "x.json"):
        (tmp_path / name).touch()
    (tmp_path / "broken").write_text("host")
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(tmp_path / "sealed", passphrase="secret")
    paths = [str(tmp_path / each) if "." in each else each for each in arguments]
    done = await push(*paths, **changes)
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())
