"""`ingestd keys`: import keys, the SSH public keys that open an account's SFTP door.

What is changed is noted as the API shows it; to list keys, nobody waits for the API.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import typer
from sqlalchemy.orm import Session

from ingestd.app.ground import base
from ingestd.domain import ids
from ingestd.domain.errors import NotFound
from ingestd.domain.ids import Prefix
from ingestd.domain.import_key import parse_public_key
from ingestd.domain.submission import COMMAND
from ingestd.settings import Settings
from ingestd.store import accounts, audit, import_keys
from ingestd.store import engine as store
from ingestd.store.import_keys import ImportKey

if TYPE_CHECKING:
    from ingestd.api.model import Out


def list_all(account: str) -> None:
    """List an account's import keys: name, fingerprint, and when it was last used or revoked."""
    with base(Settings()) as ground, store.committing(ground.database_url) as session:
        account_id = accounts.of_command(session, ids.read(Prefix.ACCOUNT, account)).id
        for key in import_keys.all_of(session, account_id):
            ended = f"revoked {key.revoked_at:%F}" if key.revoked_at else ""
            used = f"last used {key.last_used_at:%F}" if key.last_used_at else "never used"
            typer.echo(f"{key.name}  {key.fingerprint}  {ended or used}")


def revoke(account: str, fingerprint: str) -> None:
    """Revoke an import key; NotFound where none in force has the fingerprint."""
    from ingestd.api.import_keys import shown

    with base(Settings()) as ground, store.committing(ground.database_url) as session:
        for key in import_keys.all_of(session, ids.read(Prefix.ACCOUNT, account)):
            if key.fingerprint == fingerprint and key.revoked_at is None:
                before = shown(key)
                key.revoked_at = store.utc_now()
                note(session, key.account_id, "import_key.revoked", before=before)
                typer.echo(f"revoked {fingerprint}")
                return
    raise NotFound("The account has no such key in force.")


def add(account: str, public_key: Path, name: str) -> None:
    """Register an SSH public key under a name, or that of its file."""
    with base(Settings()) as ground, store.committing(ground.database_url) as session:
        account_id = accounts.of_command(session, ids.read(Prefix.ACCOUNT, account)).id
        key = add_import_key(session, account_id, public_key.read_text(errors="replace"), name=name or public_key.stem)
    typer.echo(f"registered {key.fingerprint}")


def add_import_key(session: Session, account_id: UUID, line: str, *, name: str) -> ImportKey:
    """Register an SSH public key for an account."""
    from ingestd.api.import_keys import shown

    public = parse_public_key(line)
    key = ImportKey(
        id=store.new_id(),
        account_id=account_id,
        name=name,
        public_key=public.line,
        fingerprint=public.fingerprint,
        created_at=store.utc_now(),
    )
    import_keys.add(session, key)
    note(session, account_id, "import_key.created", after=shown(key))
    return key


def note(
    session: Session, account_id: UUID, action: str, *, before: Out | None = None, after: Out | None = None
) -> None:
    """Write into the account's audit trail what a command does to something that the API shows so (T116)."""
    target = after or before
    assert target is not None
    old, new = (None if each is None else each.model_dump(mode="json") for each in (before, after))
    session.add(audit.entry(account_id, COMMAND, action, target.id, before=old, after=new))
