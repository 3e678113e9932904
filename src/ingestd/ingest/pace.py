"""When to look for work: at once when told that there is some, often while there is, seldom otherwise.

The job engine's threads look at their queues at fixed times, and each look is several questions to the database: often
enough for small files it costs a tenth of a core, for nothing. So we give them an event to wait on that knows better.
"""

from __future__ import annotations

import threading
import time
from typing import Final

IDLE_SECONDS: Final = 2.0
"""Between two looks while nobody has told us of work: a wake-up can be lost with its connection."""

BUSY_SECONDS: Final = 3.0
"""How long we look often after work came or ended: what ends may let the account's next file begin."""


class Pace(threading.Event):
    """What one thread of the engine waits on; `set` stops the thread."""

    def __init__(self) -> None:
        super().__init__()
        self._wake = threading.Event()
        self._busy_until = 0.0

    def hurry(self) -> None:
        """Look now, and often for a while."""
        idle = time.monotonic() > self._busy_until
        self._busy_until = time.monotonic() + BUSY_SECONDS
        if idle:
            self._wake.set()

    def set(self) -> None:
        """Stop the thread."""
        super().set()
        self._wake.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the time while there is work, or else until there is; whether the thread has to stop."""
        self._wake.wait(timeout if time.monotonic() < self._busy_until else IDLE_SECONDS)
        self._wake.clear()
        return self.is_set()
