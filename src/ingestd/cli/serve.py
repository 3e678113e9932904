"""`ingestd serve`: run the service until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Collection
from typing import Final

import typer

from ingestd import telemetry, tracing
from ingestd.app.ground import Base, base
from ingestd.app.role import Role
from ingestd.app.service import App, running
from ingestd.cli import accounts
from ingestd.settings import Settings

FIRST_KEY: Final = "import_key"
KNOWN_HOSTS: Final = "known_hosts"
DOMAIN: Final = "example.org"
"""Whose addresses the first account's manifests may name, as those of the samples do."""


def run(settings: Settings, roles: Collection[Role], *, migrating: bool) -> None:
    """Run the service until it is told to stop; the first start on an empty embedded database makes an account."""
    pretty = None if settings.log_format == "auto" else settings.log_format == "console"
    telemetry.configure(level=settings.log_level.upper(), pretty=pretty)
    with tracing.sending(), base(settings, serving=True, migrating=migrating) as ground:
        asyncio.run(_run(ground, roles))


def _first_account(ground: Base) -> tuple[str, str] | None:
    """Make the first account where there is none yet on an embedded database; gives its id and its API key's text."""
    if not ground.alone or accounts.any_account(ground):
        return None
    folder = ground.settings.data_dir.absolute()
    return accounts.make(ground, name="first", email_domains=[DOMAIN], admin=True, import_key=folder / FIRST_KEY)


async def _run(ground: Base, roles: Collection[Role]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop.set)
    async with running(ground, roles) as app:
        _collect_seldom()
        # not before everything runs: a key that is made by a start that fails would never be shown
        first = await asyncio.to_thread(_first_account, ground) if app.sftp_door and app.http_port else None
        typer.echo(f"ingestd is ready: {', '.join(_places(app))}")
        if first is not None:
            typer.echo(welcome(app, *first))
        await stop.wait()
        typer.echo("stopping")


def _collect_seldom() -> None:
    """Keep the garbage collector from holding up requests: it need not look at what is here, since that stays.

    It comes when so many new objects are alive, about as many as a large page of a list takes; by default, ten times
    within one.
    """
    gc.freeze()
    gc.set_threshold(10_000)


def _places(app: App) -> list[str]:
    """Where the process can be reached; the operator's port comes last."""
    return [
        *([f"HTTP on {app.http_url}"] if app.http_port else []),
        *([f"SFTP on {app.sftp.host}:{app.sftp.port}"] if app.sftp_door else []),
        f"metrics on {app.operations_url}/metrics",
    ]


def welcome(app: App, account: str, key: str) -> str:
    """What is said when the first account has been made: lines that work as they stand."""
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

A manifest's clientEmail has to be at {DOMAIN}, or a recipient's. Make yourself one:

  curl -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' {app.http_url}/v1/recipients \\
       -d '{{"name": "You", "address": "you@example.com"}}'

See what became of it:

  curl -H 'Authorization: Bearer {key}' {app.http_url}/v1/ingestions

All that the API can do: {app.http_url}/docs
"""
