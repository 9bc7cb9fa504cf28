"""Prefetching gives the same batches in the same order, passes errors on, and leaves no thread behind."""

import threading
import time

import pytest

from jaxft.data.prefetching import prefetch


class Source:
    def __init__(self, broken=None):
        self.asked, self.broken = [], broken

    def batch(self, step):
        self.asked.append(step)
        if step == self.broken:
            raise ValueError(f"step {step}")
        return step * 10


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "jaxft-prefetch"]


def test_the_batches_come_in_order_and_the_thread_ends():
    assert list(prefetch(Source(), 3, 8)) == [(step, step * 10) for step in range(3, 8)]
    assert list(prefetch(Source(), 5, 5)) == []
    assert list(prefetch(Source(), 0, 3, place=str)) == [(0, "0"), (1, "10"), (2, "20")]
    assert not threads()


def test_at_most_depth_batches_are_prepared_ahead():
    source = Source()
    ready = prefetch(source, 0, 100, depth=2)
    next(ready)
    time.sleep(0.1)
    assert 2 <= len(source.asked) <= 4  # one given, two waiting, one in the thread's hand
    ready.close()
    assert not threads()


def test_an_error_is_raised_at_its_step():
    ready = prefetch(Source(broken=2), 0, 5)
    assert [next(ready), next(ready)] == [(0, 0), (1, 10)]
    with pytest.raises(ValueError, match="step 2"):
        next(ready)
    assert not threads()


def test_the_thread_ends_when_the_loop_breaks_off():
    with pytest.raises(KeyError):
        for _ in prefetch(Source(), 0, 100):
            raise KeyError
    deadline = time.monotonic() + 5
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not threads()
