"""`ingestd push`: put a file and its manifest on a server by SFTP, and follow what becomes of them over the API."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import asyncssh
import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TextColumn, TransferSpeedColumn
from rich.table import Table

from ingestd.cli.exits import Exit
from ingestd.domain.errors import Forbidden, NotFound, Unavailable
from ingestd.domain.file_name import safe_name
from ingestd.domain.manifest import SUFFIX, is_manifest

LOOK_SECONDS: Final = 0.3
ENDED: Final = {"completed", "failed", "cancelled"}

console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Server:
    """Where to push, as whom, and how to know that it is the right server."""

    host: str
    port: int
    user: str
    known_hosts: Path | None
    fingerprints: frozenset[str] = frozenset()


def run(file: Path, manifest: Path, key: Path, given: Server, *, api: str, api_key: str, follow: bool) -> Exit:
    """Put a file and its manifest on a server; `given` is as far as the caller says which, else the API says it.

    Gives the exit code that says what became of the file, which is 0 where nobody follows.
    """
    _check_names(file, manifest)
    pair = _key_pair(key)
    if follow and not api_key:
        raise typer.BadParameter("Following needs an API key.", param_hint="--api-key")
    with _client(api, api_key) as client:
        server = _server(client if api_key else None, given)
        before = _newest(client) if api_key else None
        asyncio.run(_put(server, pair, (file, manifest)))
        console.print(f"{file.name} and {manifest.name} are on {server.host}.", markup=False)
        if api_key:
            ingestion = _find(client, safe_name(manifest.name), before)
            console.print(f"Ingestion {ingestion['id']}", markup=False)
            if follow:
                return _show(client, _follow(client, ingestion))
    return Exit.ALL_ACCEPTED


def _check_names(file: Path, manifest: Path) -> None:
    for path in (file, manifest):
        if safe_name(path.name) is None:
            raise typer.BadParameter(
                f"The server does not take the name {path.name!r}: up to 200 letters, digits, spaces and _ . ( ) -."
            )
    if not is_manifest(manifest.name):
        raise typer.BadParameter(f"A manifest's name ends in {SUFFIX}.", param_hint="MANIFEST")


def _key_pair(key: Path) -> asyncssh.SSHKey:
    try:
        return asyncssh.read_private_key(key)
    except asyncssh.KeyImportError as error:
        if "passphrase" in str(error).lower():
            message = f"The key {key} has a passphrase, which is not asked for. Give one without."
        else:
            message = f"{key} is no SSH private key. Give the file that lies beside the one that ends in .pub."
        raise typer.BadParameter(message, param_hint="--key") from None


def _client(api: str, api_key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {api_key}"}
    return httpx.Client(base_url=api, headers=headers, timeout=30)


def _ask(client: httpx.Client, path: str, **query: Any) -> Any:
    try:
        answer = client.get(path, params=query)
    except httpx.TransportError as error:
        raise Unavailable(f"The API at {client.base_url} does not answer: {error}") from None
    if answer.is_error:
        problem = answer.json() if "json" in answer.headers.get("content-type", "") else {}
        raise Forbidden(f"The API answered {answer.status_code} to {path}. {problem.get('detail', '')}")
    return answer.json()


def _server(client: httpx.Client | None, given: Server) -> Server:
    if client is None:
        if not (given.host and given.user and given.known_hosts):
            raise typer.BadParameter("Without --api-key, set --host, --user and --known-hosts.")
        return replace(given, port=given.port or 22)
    told = _ask(client, "/v1/sftp")
    prints = frozenset() if given.known_hosts else frozenset(told["host_key_fingerprints"])
    return Server(
        host=given.host or told["host"],
        port=given.port or told["port"],
        user=given.user or told["username"],
        known_hosts=given.known_hosts,
        fingerprints=prints,
    )


async def _put(server: Server, key: asyncssh.SSHKey, files: tuple[Path, ...]) -> None:
    class Pinned(asyncssh.SSHClient):
        """Knows the server by the fingerprints that the API told."""

        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
            return key.get_fingerprint() in server.fingerprints

    known = _known_hosts(server.known_hosts)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    try:
        async with (
            asyncssh.connect(
                server.host,
                server.port,
                username=server.user,
                client_keys=[key],
                client_factory=Pinned,
                known_hosts=known,
                config=None,
                agent_path=None,
            ) as connection,
            connection.start_sftp_client() as sftp,
        ):
            with Progress(*columns, console=console) as progress:
                for file in files:
                    bar = progress.add_task(file.name, total=file.stat().st_size)

                    def told(_source: bytes, _target: bytes, done: int, total: int, bar: Any = bar) -> None:
                        progress.update(bar, completed=done, total=total)

                    await sftp.put(str(file), f"/{file.name}", progress_handler=told)
    except asyncssh.HostKeyNotVerifiable:
        raise Forbidden(
            f"The server at {server.host} shows another host key than it should: nothing was sent."
        ) from None
    except asyncssh.PermissionDenied:
        raise Forbidden(
            f"{server.host} does not accept the key {key.get_fingerprint()} for {server.user}. Register it first."
        ) from None
    except asyncssh.SFTPError as error:
        raise Forbidden(f"{server.host} refused the file: {error.reason}") from None
    except (OSError, asyncssh.Error) as error:
        raise Unavailable(f"{server.host}:{server.port} could not be reached: {error}") from None


def _known_hosts(file: Path | None) -> asyncssh.SSHKnownHosts:
    try:
        return asyncssh.import_known_hosts(file.read_text() if file else "")
    except ValueError:
        raise typer.BadParameter(f"{file} is no file of host keys.", param_hint="--known-hosts") from None


def _newest(client: httpx.Client) -> str | None:
    found = _ask(client, "/v1/ingestions", limit=1)["data"]
    return found[0]["id"] if found else None


def _find(client: httpx.Client, manifest: str | None, before: str | None) -> Any:
    """The ingestion that a manifest became: a new one, or that of the same manifest pushed before."""
    found = _ask(client, "/v1/ingestions", limit=200)["data"]
    of_name = [each for each in found if each["manifest_name"] == manifest]
    new = [each for each in of_name if before is None or each["id"] > before]
    for each in new or [each for each in of_name if each["manifest"] is not None]:
        return each
    raise NotFound("The ingestion of the manifest is not among the newest 200.")


def _follow(client: httpx.Client, ingestion: Any) -> Any:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rows]}"))
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(ingestion["stage"], total=100, rows="")
        while True:
            shown = _ask(client, f"/v1/ingestions/{ingestion['id']}")
            rows = f"{shown['progress']['rows_read'] or shown['counts']['read']:,} rows"
            progress.update(bar, description=shown["stage"], completed=shown["progress"]["percent"], rows=rows)
            if shown["status"] in ENDED:
                return shown
            time.sleep(LOOK_SECONDS)


def _show(client: httpx.Client, ended: Any) -> Exit:
    counts = ended["counts"]
    figures = ", ".join(f"{counts[name]:,} {name}" for name in ("read", "accepted", "rejected", "blank"))
    console.print(f"{ended['status']}: {figures}", markup=False)
    if ended["error"] is not None:
        error = ended["error"]
        console.print(f"{error['message']}: {error['detail']}", style="red", markup=False)
        for problem in error["problems"]:
            if problem["pointer"] or problem["detail"] != error["detail"]:
                console.print(f"  {problem['pointer'] or '/'}: {problem['detail']}", markup=False)
        console.print(f"  {error['remedy']}", markup=False)
    if counts["rejected"]:
        table = Table("rows", "code", "reason", box=None)
        for reason in _ask(client, f"/v1/ingestions/{ended['id']}/error-summary")["reasons"]:
            table.add_row(f"{reason['rows']:,}", reason["code"], reason["sentence"])
        console.print(table)
        console.print(f"Error file: {client.base_url}/v1/ingestions/{ended['id']}/error-file", markup=False)
    for warning in ended["warnings"]:
        console.print(f"Warning: {warning}", style="yellow", markup=False)
    if ended["status"] != "completed":
        return Exit.REFUSED
    return Exit.SOME_REJECTED if counts["rejected"] else Exit.ALL_ACCEPTED
