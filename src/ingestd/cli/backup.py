"""`ingestd backup` and `ingestd restore`: the database, the blobs and the keys together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ingestd import app
from ingestd.app import backup as backups
from ingestd.settings import Settings


def backup(folder: Annotated[Path, typer.Argument(help="A new or empty folder.", file_okay=False)]) -> None:
    """Write a backup of everything into a folder: the database, the blobs and the keys. The service may run.

    The backup can be read by whoever has it: it holds the master key. Keep that file apart from the rest.

    Example: ingestd backup /backups/2026-11-25
    """
    with app.base(Settings()) as ground:
        done = backups.backup(ground, folder)
    typer.echo(f"The backup of {done.made_at} is whole: the database, {done.blobs} blobs and the keys in {folder}")


def restore(folder: Annotated[Path, typer.Argument(help="A folder that `backup` wrote.", exists=True)]) -> None:
    """Bring a backup back: to a data folder, database and blob store that are empty. Then start the service.

    What was being processed when the backup was made goes on. Webhooks may come again, under the same id.

    Example: INGESTD_DATA_DIR=/srv/ingestd ingestd restore /backups/2026-11-25
    """
    done = backups.restore(Settings(), folder)
    typer.echo(f"Restored the backup of {done.made_at} with {done.blobs} blobs. Start the service: ingestd serve")
