"""Length buckets: the few padded shapes that a set of examples is batched in.

Every shape costs a compilation, every token of padding costs time. The boundaries are those that pad least, found
exactly by dynamic programming over the distinct (rounded) lengths, and no more of them are used than bring something.

>>> bucket_shapes(np.array([[10], [12], [100], [110], [120]]), num_buckets=2, multiple=32)
((32,), (128,))
"""

from __future__ import annotations

import numpy as np

Shape = tuple[int, ...]


def bucket_shapes(lengths: np.ndarray, num_buckets: int = 4, multiple: int = 32) -> tuple[Shape, ...]:
    """Return at most `num_buckets` shapes, ascending in every column, the last of which holds every example.

    `lengths` is `[examples, columns]`: one column (tokens) for a decoder, two (encoder, decoder) for an
    encoder-decoder, whose buckets follow the first. Padded lengths are multiples of `multiple`, those of the later
    columns of 8 at most: completions are often a few tokens, and add no shape.
    """
    multiples = np.array([multiple] + [min(multiple, 8)] * (lengths.shape[1] - 1))
    rounded = -(-np.maximum(lengths, 1) // multiples) * multiples
    bounds = _bounds(rounded[:, 0], num_buckets)
    shapes: list[Shape] = []
    for bound in bounds:
        inside = rounded[rounded[:, 0] <= bound, 1:]
        # The few examples with a short prompt and a long completion go to a larger bucket instead of widening this one.
        others = inside.max(axis=0) if bound == bounds[-1] else np.percentile(inside, 95, axis=0, method="higher")
        others = np.maximum(others, shapes[-1][1:]) if shapes else others
        shapes.append((int(bound), *(int(other) for other in others)))
    return tuple(shapes)


def assign(lengths: np.ndarray, shapes: tuple[Shape, ...]) -> np.ndarray:
    """Return for each example the index of the first shape that holds it; ValueError if none does."""
    fits = np.all(lengths[:, None, :] <= np.array(shapes)[None], axis=-1)  # [examples, shapes]
    if not np.any(fits, axis=1).all():
        longest = lengths[~np.any(fits, axis=1)][0].tolist()
        raise ValueError(f"an example of {longest} tokens is longer than every shape of {shapes}")
    return fits.argmax(axis=1)


def _bounds(lengths: np.ndarray, num_buckets: int, worth: float = 0.03) -> list[int]:
    values, counts = np.unique(lengths, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])
    # cost[j]: least padded total of the values before j; one round per further bucket.
    cost = below * np.concatenate([[0], values])
    previous: list[np.ndarray] = []
    best = [int(values[-1])]
    best_cost = cost[-1]
    for _ in range(1, min(num_buckets, len(values))):
        step = cost[:, None] + (below[None, 1:] - below[:, None]) * values[None]  # [i, j]: last bucket holds i..j
        step = np.where(
            np.arange(len(values) + 1)[:, None] <= np.arange(len(values))[None], step, np.iinfo(np.int64).max
        )
        previous.append(step.argmin(axis=0))
        cost = np.concatenate([[0], step.min(axis=0)])
        if cost[-1] < best_cost * (1 - worth):
            best_cost, best = cost[-1], _trace(values, previous)
    return best


def _trace(values: np.ndarray, previous: list[np.ndarray]) -> list[int]:
    bounds, j = [int(values[-1])], len(values) - 1
    for choice in reversed(previous):
        j = int(choice[j]) - 1
        if j < 0:
            break
        bounds.append(int(values[j]))
    return bounds[::-1]
