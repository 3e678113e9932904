"""When to look for work: told of some, the next look is at once; untold, it is seldom."""

import threading
import time

from ingestd.ingest.pace import IDLE_SECONDS, Pace


def waited(pace, timeout):
    began = time.monotonic()
    stopped = pace.wait(timeout)
    return stopped, time.monotonic() - began


def test_an_idle_thread_is_woken_by_work_and_then_looks_often():
    pace = Pace()
    threading.Timer(0.05, pace.hurry).start()
    stopped, seconds = waited(pace, 60)
    assert (stopped, seconds < IDLE_SECONDS) == (False, True)
    assert waited(pace, 0.01)[1] < IDLE_SECONDS / 2


def test_work_that_came_during_a_look_is_not_missed():
    pace = Pace()
    pace.hurry()
    assert waited(pace, 60)[1] < IDLE_SECONDS


def test_a_stopped_thread_waits_no_more():
    pace = Pace()
    threading.Timer(0.05, pace.set).start()
    assert waited(pace, 60)[0]
    assert waited(pace, 60)[0]
