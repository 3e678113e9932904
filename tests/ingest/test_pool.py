"""The data-plane processes."""

from __future__ import annotations

from contextlib import closing

from ingestd.ingest.pool import Pool

done = []


def warm() -> None:
    done.append("warm")


def what_was_done() -> list[str]:
    return done


def test_a_process_is_warm_before_it_takes_a_task():
    with closing(Pool(1, threads=1, warm=warm)) as pool:
        assert pool.run(what_was_done) == ["warm"]
