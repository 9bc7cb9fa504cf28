"""Calls of many threads made into batches: HELM asks one request at a time, from as many threads as `helm-run -n` says.

>>> double = Batcher(lambda numbers: [2 * number for number in numbers], size=4, wait=0.01)
>>> double(21).value
42
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, NamedTuple, TypeVar

Asked = TypeVar("Asked")
Said = TypeVar("Said")


class Done(NamedTuple, Generic[Said]):
    """An answer, how many requests were computed with it, and the seconds that took."""

    value: Said
    batch_size: int
    seconds: float


class Batcher(Generic[Asked, Said]):
    """Collects requests and gives them to `work` together, `size` at most; safe to call from any thread.

    A batch begins with the first request and is done when it is full, or when `wait` seconds have brought no more. One
    thread of its own works, so that `work` need not be safe. A request that fails does not fail its neighbours: where a
    batch raises, its requests are done one by one, and each caller gets its own result or its own exception.
    """

    def __init__(self, work: Callable[[Sequence[Asked]], Sequence[Said]], size: int = 16, wait: float = 0.05):
        self._work, self._size, self._wait = work, size, wait
        self._asked: queue.Queue[tuple[Asked, Future[Done[Said]]]] = queue.Queue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, request: Asked) -> Done[Said]:
        """Return what `work` makes of the request, when its batch is done; raises what `work` raises for it."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jaxft batches", daemon=True)
                self._thread.start()
        future: Future[Done[Said]] = Future()
        self._asked.put((request, future))
        return future.result()

    def _run(self) -> None:
        while True:
            batch = [self._asked.get()]
            while len(batch) < self._size:
                try:
                    batch.append(self._asked.get(timeout=self._wait))
                except queue.Empty:
                    break
            self._do(batch)

    def _do(self, batch: Sequence[tuple[Asked, Future[Done[Said]]]]) -> None:
        start = time.perf_counter()
        try:
            values = self._work([request for request, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for one in batch:
                self._do([one])
            return
        seconds = time.perf_counter() - start
        for (_, future), value in zip(batch, values, strict=True):
            future.set_result(Done(value, len(batch), seconds))
