"""`ingestd keys rotate-master`: another master key, in three steps that can be broken off and run again (T111).

Between the first and the last step the master key holds the old key and the new one, so everything opens at any moment.
"""

from __future__ import annotations

import typer

from ingestd.app.ground import Base, base, master_key_file
from ingestd.cli.step import Step
from ingestd.domain import ids
from ingestd.domain.errors import Conflict
from ingestd.domain.ids import Prefix
from ingestd.domain.submission import COMMAND
from ingestd.keyring import SealedKeys, add_master_key, drop_old_master_keys, replace_master_file
from ingestd.settings import Settings
from ingestd.store import accounts, audit
from ingestd.store import engine as store


def rotate(step: Step) -> None:
    """Do one step; each ends by saying what is next."""
    settings = Settings()
    with base(settings) as ground:
        match step:
            case Step.ADD:
                _keep(settings, add_master_key(ground.master))
                typer.echo("Restart the service, then: ingestd keys rotate-master seal", err=True)
            case Step.SEAL:
                typer.echo(f"accounts whose keys are now sealed by the new master key: {_seal_all(ground)}")
            case Step.DROP:
                _refuse_unsealed(ground)
                _keep(settings, drop_old_master_keys(ground.master))
                typer.echo("The old master key is needed for older backups only.", err=True)


def _keep(settings: Settings, master: str) -> None:
    if settings.master_key is None:
        replace_master_file(master_key_file(settings), master)
    else:
        typer.echo(master)


def _seal_all(ground: Base) -> int:
    """Seal each account's keys by the newest master key, in a transaction of its own; gives how many were not yet."""
    with store.committing(ground.database_url) as session:
        found = [account.id for account in accounts.all_of(session)]
    done = 0
    for account_id in found:
        with store.committing(ground.database_url) as session:
            connection = session.connection()
            sealed = accounts.keys_for_sealing(connection, account_id)
            if sealed is None:
                continue  # it was deleted meanwhile
            anew = ground.keyring.rewrap(account_id, sealed)
            if anew is not sealed:
                accounts.keep_keys(connection, account_id, anew)
                target = ids.show(Prefix.ACCOUNT, account_id)
                session.add(audit.entry(account_id, COMMAND, "account.master_key_rotated", target))
                done += 1
    return done


def _refuse_unsealed(ground: Base) -> None:
    """Conflict "master_key_in_use" where an account's keys are sealed by an older key than the newest."""
    with store.committing(ground.database_url) as session:
        old = sum(_is_old(ground, account) for account in accounts.all_of(session))
    if old:
        raise Conflict(
            f"The old master key still seals the keys of {old} accounts. Run: ingestd keys rotate-master seal",
            code="master_key_in_use",
        )


def _is_old(ground: Base, account: accounts.Account) -> bool:
    sealed = SealedKeys(account.data_keys, account.index_key)
    return ground.keyring.rewrap(account.id, sealed) is not sealed
