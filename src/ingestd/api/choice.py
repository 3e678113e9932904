"""Webhooks chosen for something: they are told of what becomes of its files, whatever else they want (S136)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from pydantic import Field

from ingestd.api.context import Principal, Tx
from ingestd.api.ids import WebhookId
from ingestd.domain.errors import Invalid, Problem
from ingestd.store import accounts, webhooks

Chosen = Annotated[
    list[WebhookId],
    Field(max_length=20, description="Webhooks of the account that are told what becomes of its files."),
]


async def chosen(tx: Tx, caller: Principal, webhook_ids: Sequence[UUID]) -> list[UUID]:
    """The chosen webhooks, once each, or Invalid where one is none of the account's.

    The account is held, so that none is deleted before it is chosen: ask before anything else is held.
    """
    await accounts.lock(tx, caller.account_id)
    if await webhooks.unknown(tx, caller.account_id, webhook_ids):
        problem = Problem("/body/webhooks", "webhook_unknown", "Must be ids of webhooks that the account has.")
        raise Invalid("There is no such webhook.", problems=(problem,))
    return list(dict.fromkeys(webhook_ids))
