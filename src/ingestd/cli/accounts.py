"""`ingestd accounts`: make, list and delete accounts, without an API key.

What is changed is noted as the API shows it; to list accounts, nobody waits for the API.
"""

from __future__ import annotations

from datetime import time
from pathlib import Path
from typing import Final

import typer
from pydantic import ValidationError

from ingestd.app.ground import Base, base
from ingestd.cli.keys import add_import_key, note
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.ingest.accounts import new_account
from ingestd.settings import Settings
from ingestd.store import accounts as store_accounts
from ingestd.store import api_keys, endings
from ingestd.store import engine as store

PARAMETERS: Final = {"name": "NAME", "time_zone": "--time-zone", "email_domains": "--email-domain"}


def create(name: str, *, time_zone: str, email_domains: list[str], admin: bool) -> None:
    """Make an account and its first API key, which is printed once; what the API would refuse is called wrongly."""
    from ingestd.api.account import AccountIn

    try:
        AccountIn(name=name, time_zone=time_zone, email_domains=email_domains)
    except ValidationError as error:
        wrong = error.errors()[0]
        hint = PARAMETERS[str(wrong["loc"][0])]
        raise typer.BadParameter(wrong["msg"].removeprefix("Value error, "), param_hint=hint) from None
    with base(Settings()) as ground:
        account_id, key = make(ground, name=name, time_zone=time_zone, email_domains=email_domains, admin=admin)
    typer.echo(f"account  {account_id}\nAPI key  {key}   (shown once)")


def delete(account: str, *, yes: bool) -> None:
    """Delete an account with all that belongs to it, for ever; Conflict while an ingestion of it waits or runs."""
    from ingestd.api.account import shown

    account_id = ids.read(Prefix.ACCOUNT, account)
    with base(Settings()) as ground:
        if not yes:
            with store.committing(ground.database_url) as session:
                name = store_accounts.of_command(session, account_id).name
            typer.confirm(f"Delete {name} ({account}) and all that belongs to it?", abort=True)
        with store.committing(ground.database_url) as session:
            found = endings.shut(session, account_id, now=store.utc_now())
            note(session, account_id, "account.deleted", before=shown(found))
        engine = store.engine(ground.database_url)
        endings.remove_all(engine)
        engine.dispose()
    typer.echo(f"deleted {account}")


def list_all() -> None:
    """List all accounts."""
    with base(Settings()) as ground, store.committing(ground.database_url) as session:
        for account in store_accounts.all_of(session):
            typer.echo(f"{ids.show(Prefix.ACCOUNT, account.id)}  {account.name}")


def make(
    ground: Base,
    *,
    name: str,
    email_domains: list[str],
    time_zone: str = "UTC",
    admin: bool = False,
    import_key: Path | None = None,
) -> tuple[str, str]:
    """Make an account with an API key of all its scopes; with `import_key`, also an SSH key pair written there.

    Gives the account's id and the API key's text.
    """
    from ingestd.api.account import shown as shown_account
    from ingestd.api.api_keys import shown as shown_api_key
    from ingestd.api.context import Scope

    now = store.utc_now()
    account = new_account(
        ground.keyring,
        name=name,
        time_zone=time_zone,
        sync_time=time(2, 0),
        features={"sftp": True, "milestone_emails": True},
        email_domains=email_domains,
        now=now,
    )
    scopes = [scope for scope in Scope if admin or scope is not Scope.ADMIN]
    key, text = api_keys.issue(account.id, name="first", scopes=scopes, now=now)
    with store.committing(ground.database_url) as session:
        session.add(account)
        session.flush()
        session.add(key)
        note(session, account.id, "account.created", after=shown_account(account))
        note(session, account.id, "api_key.created", after=shown_api_key(key))
        if import_key is not None:
            import asyncssh

            pair = asyncssh.generate_private_key("ssh-ed25519")
            import_key.touch(mode=0o600)
            pair.write_private_key(import_key)
            add_import_key(session, account.id, pair.export_public_key().decode(), name="first")
    return ids.show(Prefix.ACCOUNT, account.id), text


def any_account(ground: Base) -> bool:
    """Whether there is an account yet."""
    with store.committing(ground.database_url) as session:
        return bool(store_accounts.all_of(session))
