"""`ingestd messages`: what was mailed to whom, and the mails that were kept because no mail server is set."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Annotated

import typer

from ingestd.app import base
from ingestd.domain import ids
from ingestd.domain.errors import NotFound
from ingestd.domain.ids import Prefix
from ingestd.keyring import SealedKeys
from ingestd.settings import Settings
from ingestd.store import engine as store
from ingestd.store import messages
from ingestd.store.accounts import Account
from ingestd.store.messages import Message

app = typer.Typer(help="E-mails: what was sent to whom, and those that were kept.", no_args_is_help=True)


@app.command("list")
def list_all(
    account: Annotated[str, typer.Argument(help="The account's id, acc_….")],
    at_most: Annotated[int, typer.Option(help="How many, the newest first.", min=1)] = 50,
) -> None:
    """List an account's newest mails: when, what of, to whom, and what became of each.

    Example: ingestd messages list acc_01k9…
    """
    with base(Settings()) as ground, store.committing(ground.database_url) as session:
        for message, notice in messages.all_of(session, ids.read(Prefix.ACCOUNT, account), at_most=at_most):
            shown = ids.show(Prefix.MESSAGE, message.id)
            became = "kept" if message.blob else message.state
            typer.echo(f"{notice.created_at:%F %T}  {shown}  {notice.type}  {message.address}  {became}")


@app.command("show")
def show(message: Annotated[str, typer.Argument(help="The message's id, msg_….")]) -> None:
    """Print a mail that was kept, as a mail program reads it (.eml).

    Example: ingestd messages show msg_01k9… > mail.eml
    """
    with base(Settings()) as ground, store.committing(ground.database_url) as session:
        found = session.get(Message, ids.read(Prefix.MESSAGE, message))
        if found is None or found.blob is None:
            raise NotFound("There is no such mail: it was sent by a mail server, or its time is over.")
        account = session.get_one(Account, found.account_id)
        keys = ground.keyring.open(account.id, SealedKeys(account.data_keys, account.index_key))
        with closing(ground.blobs.open(found.blob, keys)) as file:
            while piece := file.read(1 << 20):
                sys.stdout.buffer.write(piece)
