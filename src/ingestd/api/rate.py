"""Rate limits: so many requests a minute for each key, so many wrong keys a minute from each address (T53).

And so many requests of an account at a time, streams, uploads and visits among them: nobody keeps others out (T14).

Each replica counts for itself, in memory. An address that sends wrong keys is answered 429 instead of 401; a good key
from there still works, or else one stranger behind a proxy could lock everybody out.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from functools import partial
from typing import Final
from uuid import UUID

from fastapi import Request
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from ingestd.api.problems import Refused

WINDOW_SECONDS: Final = 60

AT_ONCE: Final = 250
"""A quarter of the requests that a replica takes at a time (`app.protocol`)."""


class Rate:
    """The counters of one replica."""

    def __init__(self, *, per_key: int, wrong_keys: int) -> None:
        self.per_key = RateLimitItemPerMinute(per_key, namespace="key")
        self._wrong_keys = RateLimitItemPerMinute(wrong_keys, namespace="address")
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._under_way: Counter[UUID] = Counter()

    async def count(self, request: Request, key_id: str) -> None:
        """Count a request of a key; 429 where it was one too many. The answer's headers say what is left."""
        within = await self._limiter.hit(self.per_key, key_id)
        reset, left = await self._limiter.get_window_stats(self.per_key, key_id)
        wait = _seconds_until(reset)
        request.state.rate_headers = {
            "RateLimit-Policy": f'"key";q={self.per_key.amount};w={WINDOW_SECONDS}',
            "RateLimit": f'"key";r={left};t={wait}',
        }
        if not within:
            raise Refused("too_many_requests", headers={"Retry-After": str(wait)})

    def enter(self, request: Request, account_id: UUID) -> None:
        """Count a request of an account until its answer has ended (`edge`); 429 where it has too many of them."""
        if self._under_way[account_id] >= AT_ONCE:
            detail = f"The account has {AT_ONCE} requests under way. Wait until some have ended."
            raise Refused("too_many_requests", detail, headers={"Retry-After": "1"})
        self._under_way[account_id] += 1
        request.state.leave = partial(self._leave, account_id)

    def _leave(self, account_id: UUID) -> None:
        self._under_way -= Counter([account_id])

    async def count_wrong_key(self, request: Request) -> None:
        """Count a wrong key of an address; 429 where it was one too many."""
        address = request.client.host if request.client else ""
        if not await self._limiter.hit(self._wrong_keys, address):
            reset, _ = await self._limiter.get_window_stats(self._wrong_keys, address)
            raise Refused("too_many_requests", headers={"Retry-After": str(_seconds_until(reset))})


def _seconds_until(moment: float) -> int:
    return max(1, math.ceil(moment - time.time()))
