"""When to look for work: told of some, the next look is at once; untold, they are less and less often."""

import threading
import time

from ingestd.ingest.polling import IDLE_SECONDS, Polling


def waited(polling, timeout):
    began = time.monotonic()
    stopped = polling.wait(timeout)
    return stopped, time.monotonic() - began


def test_an_idle_thread_is_woken_by_work_and_then_looks_less_and_less_often():
    polling = Polling()
    threading.Timer(0.05, polling.hurry).start()
    stopped, seconds = waited(polling, 0.02)
    assert (stopped, seconds < IDLE_SECONDS) == (False, True)
    assert all(waited(polling, 0.02)[1] >= shortest for shortest in (0.02, 0.04, 0.08, 0.16))


def test_work_that_came_during_a_look_is_not_missed_and_looks_are_not_without_a_pause():
    polling = Polling()
    polling.hurry()
    assert 0.05 <= waited(polling, 0.05)[1] < IDLE_SECONDS


def test_a_stopped_thread_waits_no_more():
    polling = Polling()
    threading.Timer(0.05, polling.set).start()
    assert waited(polling, 60)[0]
    assert waited(polling, 60)[0]
