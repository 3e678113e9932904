"""`ingestd serve`: run the service until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from typing import Final

import typer

from ingestd import telemetry
from ingestd.app import App, Base, base, running
from ingestd.cli import accounts
from ingestd.settings import Settings

FIRST_KEY: Final = "import_key"
KNOWN_HOSTS: Final = "known_hosts"


def serve() -> None:
    """Run the service: HTTP API, SFTP server and workers, with an embedded PostgreSQL where none is set.

    Everything is set by INGESTD_… variables, such as INGESTD_DATA_DIR, INGESTD_HTTP__PORT, INGESTD_SFTP__PORT.
    The first start on an empty embedded database makes an account and prints how to use it.
    """
    settings = Settings()
    telemetry.configure(level=settings.log_level.upper())
    with base(settings, serving=True) as ground:
        first = _first_account(ground) if ground.alone and not accounts.any_account(ground) else None
        asyncio.run(_run(ground, first))


def _first_account(ground: Base) -> tuple[str, str]:
    folder = ground.settings.data_dir.absolute()
    return accounts.make(ground, name="first", email_domains=["example.org"], admin=True, import_key=folder / FIRST_KEY)


async def _run(ground: Base, first: tuple[str, str] | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop.set)
    async with running(ground) as app:
        typer.echo(f"ingestd is ready: HTTP on {app.http_url}, SFTP on {app.sftp.host}:{app.sftp.port}")
        if first is not None:
            typer.echo(_welcome(app, *first))
        await stop.wait()
        typer.echo("stopping")


def _welcome(app: App, account: str, key: str) -> str:
    folder = app.settings.data_dir.absolute()
    hosts = folder / KNOWN_HOSTS
    hosts.write_text("".join(f"[{app.sftp.host}]:{app.sftp.port} {line}\n" for line in app.sftp.host_keys))
    return f"""
The first account was made.

  account   {account}
  API key   {key}
            (shown once; keep it)

Put a file and its manifest:

  sftp -P {app.sftp.port} -i '{folder / FIRST_KEY}' -o UserKnownHostsFile='{hosts}' {account}@{app.sftp.host}

See what became of it:

  curl -H 'Authorization: Bearer {key}' {app.http_url}/v1/ingestions
"""
