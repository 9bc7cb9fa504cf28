"""One seeded bootstrap for every metric.

A metric is a row of statistics for each example, `rows` [N, K], and a function `of` from sums of rows to the value:
`of(sums [R, K], n) -> [R]`. A resample draws N examples with replacement; it is a row of weights that sum to N, and
`weights [R, N] @ rows` are the sums of R resamples at once. The weights depend on (N, resamples, seed) alone, so two
systems scored on the same examples are resampled alike. What does not decompose (Spearman) is marked `whole`: its
`of(rows [R, N, K], n) -> [R]` sees the drawn rows themselves.

>>> import numpy as np
>>> interval(np.array([[0.0], [1.0], [1.0], [0.0], [1.0], [1.0], [1.0], [0.0], [1.0], [1.0]]))
(0.4, 0.9)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

Of = Callable[[np.ndarray, int], np.ndarray]
RESAMPLES = 1000
_BLOCK = 1 << 22  # numbers held at a time


def mean(sums: np.ndarray, n: int) -> np.ndarray:
    """Return the means of the first statistic: `of` of accuracy, ROUGE and all that is averaged over examples."""
    return sums[:, 0] / n


def value_of(rows: np.ndarray, of: Of = mean, whole: bool = False) -> float:
    """Return the metric's value over all examples."""
    return float(of(rows[None] if whole else rows.sum(0, keepdims=True), len(rows))[0])


def resampled(
    rows: np.ndarray, of: Of = mean, whole: bool = False, *, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Return the metric's values [resamples] over examples drawn with replacement (Efron 1979)."""
    n, k = rows.shape
    weights = _weights(n, resamples, seed)
    size = max(1, _BLOCK // (n * (k if whole else 1)))
    found = []
    for start in range(0, resamples, size):
        block = weights[start : start + size]
        if whole:
            places = np.repeat(np.tile(np.arange(n), len(block)), block.ravel()).reshape(len(block), n)
            found.append(of(rows[places], n))
        else:
            found.append(of(block.astype(np.float64) @ rows, n))
    return np.concatenate(found)


def interval(
    rows: np.ndarray,
    of: Of = mean,
    whole: bool = False,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a metric (Efron & Tibshirani 1993, chapter 13)."""
    return percentiles(resampled(rows, of, whole, resamples=resamples, seed=seed), level)


def percentiles(values: Any, level: float = 0.95) -> tuple[float, float]:
    """Return the ends of the middle `level` of values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@functools.lru_cache(maxsize=4)
def _weights(n: int, resamples: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    weights = np.empty((resamples, n), np.uint8)  # an example is drawn once on average, and hardly ten times
    size = max(1, _BLOCK // n)
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        places = random.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        weights[start : start + rows] = np.bincount(places.ravel(), minlength=rows * n).reshape(rows, n)
    return weights
