"""The limit of exports at once: who may export now, so that nobody's exports keep those of others waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from uuid import UUID
from weakref import WeakValueDictionary

from ingestd.api.problems import Refused

EXPORTS: Final = 4
"""Exports at once: each holds a transaction, and with it a connection, until its reader has all."""

PATIENCE_SECONDS: Final = 20.0
"""How long an export waits to begin: no longer than a proxy waits for the head of an answer."""


class ExportLimit:
    """Lets as many export at once as `EXPORTS`, and one of an account."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(EXPORTS)
        self._of_account: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def hold(self, account_id: UUID) -> AsyncIterator[None]:
        """Wait until the account may export, and hold that; 429 where it may not for too long."""
        mine = self._of_account.setdefault(account_id, asyncio.Lock())
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await held.enter_async_context(mine)
                    await held.enter_async_context(self._all)
            except TimeoutError:
                raise Refused("too_many_exports", headers={"Retry-After": str(round(PATIENCE_SECONDS))}) from None
            yield
