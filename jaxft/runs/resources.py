"""What a run used: memory at its peak, and how often a program was compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"


def peak_memory() -> dict[str, int | None]:
    """Return bytes at the peak: of the process, and of the first device where it keeps count."""
    import resource
    import sys

    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"host": host, "device": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")}


@contextlib.contextmanager
def count_compilations() -> Iterator[Callable[[], int]]:
    """Yield a function that returns how many programs XLA has compiled since."""
    compiled = 0

    def count(event: str, duration_secs: float, **kwargs: str | int) -> None:
        nonlocal compiled
        compiled += event == _COMPILED

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        yield lambda: compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
