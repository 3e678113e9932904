"""The data-plane processes: niced, warm, and each dead one is one task's misfortune only.

What they run are the plain functions of `ingest.checking` and `ingest.applying`; a task's arguments and result cross
as small values. They are forked from a process that has imported most of what they need, has no threads and does
nothing else; all end with the service. Each is replaced now and then so that its memory is given back.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from pebble import ProcessExpired, ProcessPool

from ingestd.domain.errors import IngestdError, Unavailable

TASKS_BEFORE_REPLACED: Final = 64
LOOK_SECONDS: Final = 1.0
"""How often to look whether a pool still works: Pebble leaves running tasks without an answer when it stops."""

NICENESS: Final = 10
"""The API's process goes first: its answers stay quick while a file is being loaded."""

FIRST_TO_DIE: Final = "1000"
"""Linux takes a data-plane process when memory runs out, so that it costs one ingestion a repeat, and no other."""

ALLOCATION: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
    "MALLOC_ARENA_MAX": "1",  # else what one thread gives back no other is given
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "_RJEM_MALLOC_CONF": "narenas:1,dirty_decay_ms:2000,muzzy_decay_ms:0",  # Polars' allocator
    "OPENBLAS_NUM_THREADS": "1",  # NumPy starts no threads when it is imported: see FORKED_WITH
}
"""The buffers of a chunk are kept for the next one, rather than asked of the system anew, page by page.

Polars gives back by itself what was not used for two seconds; the C library does at the end of a task, where it is told
to (KEPT_BYTES).
"""

KEPT_BYTES: Final = 400 * 1024 * 1024
"""A process that has more in memory after a task gives back what is free; one that applies parts stays below it.

To give it back after each part, and to have it given again page by page, was an eighth of a first load's time.
"""

FORKED_WITH: Final = ("numpy", "ingestd.ingest.tell")
"""What all processes have in common, and so do not import: each starts in a third of the time and has 30 MB less.

Nothing that starts a thread, as Polars and PyArrow do when they are imported: a fork has none but its own.
"""

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

P = ParamSpec("P")
R = TypeVar("R")


class WorkerDied(IngestdError):
    """A data-plane process died at its task."""

    code = "worker_died"


class PoolClosed(IngestdError):
    """The pool is going down."""

    code = "pool_closed"


class Pool:
    """A small pool of processes; `run` may be called from any thread.

    Each process begins with `warm`, and so has imported what that needs before it takes a task: Pebble's processes take
    theirs one at a time, and whoever had to import at its task would keep the others waiting.
    """

    def __init__(self, processes: int, *, threads: int, warm: Callable[[], None]) -> None:
        os.environ |= ALLOCATION | {"POLARS_MAX_THREADS": str(threads)}
        self._new = partial(_new, processes, warm)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._pool = self._new()
        self._whole()  # starts the processes

    def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function in one of the processes and wait.

        Raises WorkerDied if that process died, Unavailable if the task was not at fault, PoolClosed on shutdown.
        """
        pool = self._whole()
        try:
            future = pool.schedule(_task, args=[function, *args], kwargs=dict(kwargs))
            while not wait([future], LOOK_SECONDS).done:
                if not pool.active:
                    raise CancelledError  # noqa: TRY301 -- as Pebble should have done
            result: R = future.result()
        except Exception as error:
            if self._closed.is_set():
                raise PoolClosed from None
            if isinstance(error, ProcessExpired):
                raise WorkerDied(f"A data-plane process ended with exit code {error.exitcode}.") from None
            if isinstance(error, BrokenProcessPool | CancelledError):
                raise Unavailable("The data-plane processes are being replaced.") from None
            raise
        return result

    def _whole(self) -> ProcessPool:
        """The processes; new ones where Pebble has given the pool up, as it does when an idle one dies."""
        with self._lock:
            if not self._closed.is_set() and not self._pool.active:
                _end(self._pool)
                self._pool = self._new()
            return self._pool

    def close(self) -> None:
        """Kill the processes: tasks change nothing until they commit, and are taken up again."""
        with self._lock:
            self._closed.set()
            _end(self._pool)


def _new(processes: int, warm: Callable[[], None]) -> ProcessPool:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(FORKED_WITH))
    return ProcessPool(
        max_workers=processes,
        max_tasks=TASKS_BEFORE_REPLACED,
        initializer=_prepare,
        initargs=(warm,),
        context=context,
    )


def _end(pool: ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    pool.join()


def _prepare(warm: Callable[[], None]) -> None:
    """Make this process a good neighbour, let it end with the service, and warm it."""
    os.nice(NICENESS)
    with suppress(OSError):  # only Linux has it
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_DIE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, daemon=True).start()
    warm()


def _task(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a task in this process, and give back the memory that it no longer needs, if that is much."""
    try:
        return function(*args, **kwargs)
    finally:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only the GNU C library has it
        if trim and _resident_bytes() > KEPT_BYTES:
            trim(0)


def _resident_bytes() -> int:
    """What this process has in memory, as Linux says it."""
    _, pages, *_ = Path("/proc/self/statm").read_text().split()
    return int(pages) * _PAGE_BYTES


def _watch() -> None:
    """End this process when the service ends, or the one that it was forked from, by which the service knows of it."""
    service, origin = multiprocessing.parent_process(), os.getppid()
    while service is not None and service.is_alive() and os.getppid() == origin:
        time.sleep(1)
    os._exit(1)
