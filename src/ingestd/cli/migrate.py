"""`ingestd migrate`: bring the database to the newest schema."""

from __future__ import annotations

import typer

from ingestd.app import ground
from ingestd.domain.errors import Invalid
from ingestd.settings import Settings


def run() -> None:
    """Bring the database of INGESTD_DATABASE_URL to the newest schema; Invalid where it is not set."""
    url = Settings().database_url
    if url is None:
        raise Invalid("Set INGESTD_DATABASE_URL; the embedded database is migrated when the service starts.")
    ground.database_version(url.get_secret_value())
    ground.migrate(url.get_secret_value())
    typer.echo("The database is at the newest schema.")
