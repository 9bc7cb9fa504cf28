"""How many members memory holds at once, as the compiler counts it."""

from __future__ import annotations

from typing import Any

import jax

from jaxft.errors import Error

_SHARE = 0.8  # of free memory: evaluation, batches under way and the allocator need some


def fitting(lower: Any, count: int, free: int | None = None) -> int:
    """Return `count`, halved until the program that `lower(count)` gives needs no more than `free` bytes.

    `lower` returns a lowered program and the bytes of its arguments that are there already. The program that fits
    is compiled then, and jit finds it again. `free` is by default what the device, or the host, says.
    Raises Error if one alone does not fit.
    """
    free = free_bytes() if free is None else free
    while True:
        lowered, there = lower(count)
        needed = _bytes(lowered.compile().memory_analysis()) - there
        if needed <= _SHARE * free:
            return count
        if count == 1:
            raise Error(
                f"out of memory: one member needs {needed / 1e9:.2f} GB of {free / 1e9:.2f} GB that are free: "
                f"lower train.batch_size, or set model.remat=full or train.accumulate"
            )
        count = -(-count // 2)


def free_bytes() -> int:
    """Return the free bytes of the first device, or of the host where the device keeps no count."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    import psutil

    return psutil.virtual_memory().available


def _bytes(analysis: Any) -> int:
    return (
        analysis.argument_size_in_bytes
        + analysis.temp_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
    )
