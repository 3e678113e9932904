"""`ingestd demo`: the whole way on real input, in about a minute, leaving nothing behind."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import asyncssh
import httpx
from rich.console import Console
from rich.json import JSON
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from ingestd import telemetry
from ingestd.app.ground import base
from ingestd.app.service import App, running
from ingestd.cli import accounts, generated
from ingestd.cli.demo_segment import show_segment
from ingestd.cli.demo_upload import show_upload
from ingestd.cli.receiver import Receiver
from ingestd.settings import HttpSettings, MetricsSettings, Settings, SftpSettings
from ingestd.store import embedded

PERSON: Final = {"kind": "identity", "value": "jane.doe-002@example.org"}
_SECOND: Final = (
    "identity,id_phone,id_phone.operation,Playlist,Playlist.operation\n"
    "jane.doe-002@example.org,+918876543299,$set,Jazz,$add\n"
    "jane.doe-002@example.org,,,Blues,$add\n"
    "jane.doe-002@example.org,,,Jazz,$remove\n"
)
_SECOND_MANIFEST: Final = (
    '{"fileName": "second.csv", "type": "profile", "clientEmail": "data-team@example.org",'
    ' "columns": {"id_phone": {"ctName": "Phone"}}}'
)

console = Console(highlight=False)


@dataclass
class Pushed:
    """A file that was pushed: what became of it, and after how many seconds."""

    name: str
    seconds: float
    ingestion: dict[str, Any]


def run() -> None:
    """Start the real service in a temporary folder, push files, refresh a segment, and show what becomes of them."""
    telemetry.configure(level="ERROR")
    with _folder() as folder:
        settings = Settings(
            data_dir=folder / "data",
            http=HttpSettings(port=0),
            sftp=SftpSettings(port=0),
            metrics=MetricsSettings(port=0),
            egress_allow=("127.0.0.0/8:*",),
        )
        started = time.monotonic()
        console.print("Starting the service: PostgreSQL, SFTP server, HTTP API, workers …")
        with base(settings) as ground:
            account, key = accounts.make(
                ground, name="demo", email_domains=["example.org"], import_key=folder / "import_key"
            )
            asyncio.run(_show(ground, folder, account, key))
    console.print(f"demo ok: everything above ran for real, in {time.monotonic() - started:.0f} s")


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder that the embedded database's user can pass through, and that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="ingestd-demo-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        embedded.remove(folder / "data" / "postgres")
        shutil.rmtree(folder)


async def _show(ground: Any, folder: Path, account: str, key: str) -> None:
    async with Receiver() as receiver, running(ground) as app, _client(app, key) as client:
        made = await client.post("/v1/webhooks", json={"name": "demo", "url": receiver.url})
        receiver.secret = made.raise_for_status().json()["secret"]
        console.print(f"Ready: HTTP on {app.http_url}, SFTP on {app.sftp.host}:{app.sftp.port}, account {account}\n")
        _write_files(folder)
        async with _sftp(app, account, folder / "import_key") as sftp:
            pushed = [await _push(sftp, client, receiver, folder, stem) for stem in ("profiles", "events", "generated")]
            before = await _profile(client)
            pushed.append(await _push(sftp, client, receiver, folder, "second"))
        console.print(_table(pushed))
        console.print("\nOne profile before its second file …")
        console.print(JSON.from_data(before))
        console.print("… and after it:")
        console.print(JSON.from_data(await _profile(client)))
        await _show_error_file(client, pushed[2])
        await show_segment(client, receiver, folder / "theirs", console)
        await show_upload(client, receiver, console)
        _show_notices(receiver)


def _client(app: App, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=app.http_url, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=60
    )


def _sftp(app: App, account: str, key: Path) -> Any:
    hosts = "".join(f"[{app.sftp.host}]:{app.sftp.port} {line}\n" for line in app.sftp.host_keys)

    class Session:
        async def __aenter__(self) -> asyncssh.SFTPClient:
            self.connection = await asyncssh.connect(
                app.sftp.host,
                app.sftp.port,
                username=account,
                client_keys=[str(key)],
                known_hosts=asyncssh.import_known_hosts(hosts),
                config=None,
                agent_path=None,
            )
            return await self.connection.start_sftp_client()

        async def __aexit__(self, *_: object) -> None:
            self.connection.close()
            await self.connection.wait_closed()

    return Session()


def _write_files(folder: Path) -> None:
    for sample in (resources.files("ingestd.cli") / "samples").iterdir():
        (folder / sample.name).write_bytes(sample.read_bytes())
    generated.write(folder, "generated")
    (folder / "second.csv").write_text(_SECOND)
    (folder / "second.manifest").write_text(_SECOND_MANIFEST)


async def _push(
    sftp: asyncssh.SFTPClient, client: httpx.AsyncClient, receiver: Receiver, folder: Path, stem: str
) -> Pushed:
    """Put a file and its manifest, follow the ingestion, and wait for the webhook that ends it."""
    for suffix in (".csv", ".manifest"):
        await sftp.put(str(folder / f"{stem}{suffix}"), f"/{stem}{suffix}")
    started = time.monotonic()
    newest = (await client.get("/v1/ingestions", params={"limit": 1})).raise_for_status().json()["data"][0]
    ended = asyncio.create_task(receiver.until("ingestion.completed", newest["id"]))
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[stage]}"),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(f"{stem}.csv", total=100, stage="queued")
        while not ended.done():
            shown = (await client.get(f"/v1/ingestions/{newest['id']}")).raise_for_status().json()
            if shown["status"] == "failed":
                raise SystemExit(f"demo failed: {shown['error']}")
            progress.update(bar, completed=shown["progress"]["percent"], stage=shown["stage"])
            await asyncio.wait([ended], timeout=0.1)
        seconds = time.monotonic() - started
        progress.update(bar, completed=100, stage="done")
    return Pushed(f"{stem}.csv", seconds, await ended)


async def _profile(client: httpx.AsyncClient) -> Any:
    found = await client.post("/v1/profiles/lookup", json={"identifiers": [PERSON]})
    return found.raise_for_status().json()["data"][0]["profile"]


def _table(pushed: list[Pushed]) -> Table:
    table = Table("file", title="What became of the files")
    for heading in ("read", "accepted", "rejected", "seconds", "rows/s"):
        table.add_column(heading, justify="right")
    for each in pushed:
        counts = each.ingestion["counts"]
        figures = (counts["read"], counts["accepted"], counts["rejected"])
        rate = counts["read"] / each.seconds
        table.add_row(each.name, *(f"{figure:,}" for figure in figures), f"{each.seconds:.2f}", f"{rate:,.0f}")
    return table


async def _show_error_file(client: httpx.AsyncClient, pushed: Pushed) -> None:
    answer = await client.get(f"/v1/ingestions/{pushed.ingestion['id']}/error-file")
    lines = answer.raise_for_status().text.split("\r\n")
    console.print(f"\nThe error file of {pushed.name}, its first lines of {len(lines) - 2:,}:")
    for line in lines[:8]:
        console.print(f"  {line}", markup=False, soft_wrap=True)


def _show_notices(receiver: Receiver) -> None:
    console.print(f"\nWebhooks received, signatures verified: {len(receiver.told)}; forged: {receiver.forged}")
    for what, times in Counter(notice["type"] for notice in receiver.told).items():
        console.print(f"  {times:>3} {what}")
