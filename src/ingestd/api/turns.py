"""Turns: who may export now, so that nobody's exports keep those of others waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID
from weakref import WeakValueDictionary

EXPORTS: Final = 4
"""Exports at once: each holds a transaction, and with it a connection, until its reader has all."""


class Turns:
    """Gives turns to export, as many as `EXPORTS` and one to an account."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(EXPORTS)
        self._of_account: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, account_id: UUID) -> AsyncIterator[None]:
        """Wait for a turn of the account, and hold it."""
        mine = self._of_account.setdefault(account_id, asyncio.Lock())
        async with mine, self._all:
            yield
