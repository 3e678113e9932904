"""Making an account: its row, with keys of its own sealed by the master key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time
from typing import Any

from ingestd.keyring import Keyring
from ingestd.store.accounts import Account
from ingestd.store.engine import new_id


def new_account(  # noqa: PLR0913 -- the fields of an account
    keyring: Keyring,
    *,
    name: str,
    time_zone: str,
    sync_time: time,
    features: dict[str, Any],
    email_domains: Sequence[str],
    now: datetime,
) -> Account:
    """The row of a new account, not yet added to a session."""
    account_id = new_id()
    sealed = keyring.new_account_keys(account_id)
    return Account(
        id=account_id,
        name=name,
        time_zone=time_zone,
        sync_time=sync_time,
        features=features,
        email_domains=list(email_domains),
        restricted_events=[],
        confirm_recipients=False,
        next_seq=1,
        data_keys=sealed.data,
        index_key=sealed.index,
        created_at=now,
    )
