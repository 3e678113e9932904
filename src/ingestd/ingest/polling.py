"""When to look for work: at once when told that there is some, then less and less often.

The job engine's threads look at their queues at fixed times, and a look costs up to 10 milliseconds of processor time:
often enough for small files that is a tenth of a core for each queue, for nothing. So we give them an event to wait on
that knows better.
"""

from __future__ import annotations

import threading
import time
from typing import Final

IDLE_SECONDS: Final = 2.0
"""Between two looks while nobody has told us of work: a wake-up can be lost with its connection."""

GROWTH: Final = 2.0
"""How much longer than the last each wait is. The first look can come a moment too early: what ends says so before the
next one of its account may begin, and another replica may hold the queue just then."""


class Polling(threading.Event):
    """What one thread of the engine waits on; `set` stops the thread."""

    def __init__(self) -> None:
        super().__init__()
        self._wake = threading.Event()
        self._pause = IDLE_SECONDS

    def hurry(self) -> None:
        """Look now, and again soon."""
        self._wake.set()

    def set(self) -> None:
        """Stop the thread."""
        super().set()
        self._wake.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until there may be work, and for `timeout` at least; whether the thread has to stop."""
        shortest = IDLE_SECONDS if timeout is None else min(timeout, IDLE_SECONDS)
        began = time.monotonic()
        if not self.is_set() and self._wake.wait(self._pause):
            self._wake.clear()
            super().wait(shortest - (time.monotonic() - began))
            self._pause = shortest
        else:
            self._pause = min(GROWTH * self._pause, IDLE_SECONDS)
        return self.is_set()
