"""The data-plane processes."""

from __future__ import annotations

import ctypes
from contextlib import closing
from types import SimpleNamespace

import pytest

from ingestd.ingest import pool as pools
from ingestd.ingest.pool import Pool

done = []


def warm() -> None:
    done.append("warm")


def what_was_done() -> list[str]:
    return done


def test_a_process_is_warm_before_it_takes_a_task():
    with closing(Pool(1, threads=1, warm=warm)) as pool:
        assert pool.run(what_was_done) == ["warm"]


@pytest.mark.parametrize(("kept", "given_back"), [(0, [0]), (1 << 60, [])])
def test_memory_is_given_back_after_a_task_where_it_is_much(monkeypatch, kept, given_back):
    trimmed = []
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(malloc_trim=trimmed.append))
    monkeypatch.setattr(pools, "KEPT_BYTES", kept)
    assert pools._task(what_was_done) == done
    assert trimmed == given_back
