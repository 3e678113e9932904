"""`ingestd messages`: what was mailed to whom, and the mails that were kept because no mail server is set."""

from __future__ import annotations

import sys
from contextlib import closing

import typer

from ingestd.app.ground import base
from ingestd.domain import ids
from ingestd.domain.errors import NotFound
from ingestd.domain.ids import Prefix
from ingestd.keyring import SealedKeys
from ingestd.settings import Settings
from ingestd.store import accounts, messages
from ingestd.store import engine as store
from ingestd.store.accounts import Account
from ingestd.store.messages import Message


def list_all(account: str, *, at_most: int) -> None:
    """List an account's newest mails: when, what of, to whom, and what became of each."""
    with base(Settings()) as ground, store.committing(ground.database_url) as session:
        account_id = accounts.of_command(session, ids.read(Prefix.ACCOUNT, account)).id
        for message, notice in messages.all_of(session, account_id, at_most=at_most):
            shown = ids.show(Prefix.MESSAGE, message.id)
            became = "kept" if message.blob else message.state
            typer.echo(f"{notice.created_at:%F %T}  {shown}  {notice.type}  {message.address}  {became}")


def show(message: str) -> None:
    """Print a mail that was kept; NotFound where there is none."""
    with base(Settings()) as ground, store.committing(ground.database_url) as session:
        found = session.get(Message, ids.read(Prefix.MESSAGE, message))
        if found is None or found.blob is None:
            raise NotFound("There is no such mail: it was sent by a mail server, or its time is over.")
        account = session.get_one(Account, found.account_id)
        keys = ground.keyring.open(account.id, SealedKeys(account.data_keys, account.index_key))
        with closing(ground.blobs.open(found.blob, keys)) as file:
            while piece := file.read(1 << 20):
                sys.stdout.buffer.write(piece)
