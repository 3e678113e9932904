"""How much memory the service takes: its proportional share, so that pages common to its processes count once."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Final, Self

import psutil  # type: ignore[import-untyped]

SAMPLE_SECONDS: Final = 1.0


class PeakPss:
    """While entered, looks every second at a process and its children that run the same program; `mb` is the most seen.

    For the service these are its own process and its data-plane processes; PostgreSQL is another program.
    """

    def __init__(self, pid: int) -> None:
        self._service = psutil.Process(pid)
        self._program = self._service.exe()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.mb = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.mb = max(self.mb, self._now() / 1e6)
            if self._left.wait(SAMPLE_SECONDS):
                return

    def _now(self) -> int:
        total = 0
        for process in (self._service, *self._service.children(recursive=True)):
            try:
                if process.exe() == self._program:
                    total += _pss(process.pid)
            except (psutil.Error, OSError):  # it has ended since
                continue
        return total


def _pss(pid: int) -> int:
    """The proportional set size of a process in bytes."""
    found = re.search(r"^Pss:\s+(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return 1024 * int(found[1]) if found else 0
