"""Prefetching: a thread prepares the next batches while the current step runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from typing import Any, Protocol


class HasBatch(Protocol):
    """Whatever gives the batch of a step."""

    def batch(self, step: int) -> Any: ...


def prefetch(
    batches: HasBatch, start: int, stop: int, depth: int = 2, place: Callable[[Any], Any] | None = None
) -> Generator[tuple[int, Any], None, None]:
    """Yield `(step, batch)` for the steps from `start` to before `stop`, at most `depth` of them ahead.

    `place` (say, a copy to the device) is applied in the thread. What the thread raises is raised here, at its step.
    The thread ends when the generator does: close it when the loop may break off.
    """
    ready: queue.Queue[tuple[int, Any, BaseException | None]] = queue.Queue(maxsize=depth)
    ended = threading.Event()

    def work() -> None:
        for step in range(start, stop):
            item: tuple[int, Any, BaseException | None]
            try:
                batch = batches.batch(step)
                item = (step, batch if place is None else place(batch), None)
            except BaseException as error:
                item = (step, None, error)
            while not ended.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if ended.is_set() or item[2] is not None:
                return

    thread = threading.Thread(target=work, name="jaxft-prefetch", daemon=True)
    thread.start()
    try:
        for _ in range(start, stop):
            step, batch, error = ready.get()
            if error is not None:
                raise error
            yield step, batch
    finally:
        ended.set()
        thread.join()
