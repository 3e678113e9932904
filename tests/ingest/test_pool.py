"""The data-plane processes."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from contextlib import closing
from types import SimpleNamespace

import psutil
import pytest

from ingestd.domain.errors import Unavailable
from ingestd.ingest import pool as pools
from ingestd.ingest.pool import FORKED_WITH, Pool, WorkerDied

done = []


def warm() -> None:
    done.append("warm")


def what_was_done() -> list[str]:
    return done


def test_a_process_is_warm_before_it_takes_a_task():
    with closing(Pool(1, threads=1, warm=warm)) as pool:
        assert pool.run(what_was_done) == ["warm"]


def what_it_was_forked_with() -> tuple[int, list[str]]:
    imported = [name for name in (*FORKED_WITH, "polars") if name in sys.modules]
    return psutil.Process(os.getppid()).num_threads(), imported


def test_a_process_is_forked_from_one_that_has_no_threads_and_has_imported_what_all_have_in_common():
    with closing(Pool(1, threads=1, warm=warm)) as pool:
        assert pool.run(what_it_was_forked_with) == (1, list(FORKED_WITH))


def lose_what_it_was_forked_from() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    threading.Event().wait()


def test_the_process_that_others_are_forked_from_is_made_anew_when_it_dies():
    with closing(Pool(1, threads=1, warm=warm)) as pool:
        with pytest.raises((WorkerDied, Unavailable)):
            pool.run(lose_what_it_was_forked_from)
        assert pool.run(what_was_done) == ["warm"]


@pytest.mark.parametrize(("kept", "given_back"), [(0, [0]), (1 << 60, [])])
def test_memory_is_given_back_after_a_task_where_it_is_much(monkeypatch, kept, given_back):
    trimmed = []
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(malloc_trim=trimmed.append))
    monkeypatch.setattr(pools, "KEPT_BYTES", kept)
    assert pools._task(what_was_done) == done
    assert trimmed == given_back
