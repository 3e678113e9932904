"""`ingestd backup` and `ingestd restore`: the database, the blobs and the keys together."""

from __future__ import annotations

from pathlib import Path

import typer

from ingestd.app import backup as backups
from ingestd.app.ground import base
from ingestd.settings import Settings


def backup(folder: Path) -> None:
    """Write a backup of everything into a new or empty folder."""
    with base(Settings()) as ground:
        done = backups.backup(ground, folder)
    typer.echo(f"The backup of {done.made_at} is whole: the database, {done.blobs} blobs and the keys in {folder}")


def restore(folder: Path) -> None:
    """Bring a backup back, to an empty place."""
    done = backups.restore(Settings(), folder)
    typer.echo(f"Restored the backup of {done.made_at} with {done.blobs} blobs. Start the service: ingestd serve")
