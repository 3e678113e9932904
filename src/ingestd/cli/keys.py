"""`ingestd keys`: import keys, the SSH public keys that open an account's SFTP door."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ingestd.app import base
from ingestd.domain import ids
from ingestd.domain.errors import NotFound
from ingestd.domain.ids import Prefix
from ingestd.domain.import_key import parse_public_key
from ingestd.settings import Settings
from ingestd.store import engine as store
from ingestd.store import import_keys
from ingestd.store.accounts import Account
from ingestd.store.import_keys import ImportKey

app = typer.Typer(help="Import keys: SSH public keys that open the SFTP door.", no_args_is_help=True)


@app.callback()
def keys() -> None:
    """Import keys: SSH public keys that open the SFTP door."""


@app.command("add")
def add(
    account: Annotated[str, typer.Argument(help="The account's id, acc_….")],
    public_key: Annotated[Path, typer.Argument(help="The file that ends in .pub.", exists=True, dir_okay=False)],
    name: Annotated[str, typer.Option(help="What the key is called, unique in the account; default: the file's.")] = "",
) -> None:
    """Register an SSH public key.

    Example: ingestd keys add acc_01k9… ~/.ssh/id_ed25519.pub --name warehouse
    """
    public = parse_public_key(public_key.read_text())
    with base(Settings()) as ground, store.committing(ground.database_url) as session:
        found = session.get(Account, ids.read(Prefix.ACCOUNT, account))
        if found is None:
            raise NotFound("There is no such account.")
        key = ImportKey(
            id=store.new_id(),
            account_id=found.id,
            name=name or public_key.stem,
            public_key=public.line,
            fingerprint=public.fingerprint,
            created_at=store.utc_now(),
        )
        import_keys.add(session, key)
    typer.echo(f"registered {public.fingerprint}")
