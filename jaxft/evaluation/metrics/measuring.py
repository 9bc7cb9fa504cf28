"""A score: a number, what it was computed with, over how many examples, and how sure it is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxft.errors import UsageError
from jaxft.evaluation.resampling import RESAMPLES, Of, interval, mean, value_of


class Score(NamedTuple):
    """A number and the settings that it was computed with.

    n: examples. interval: of 95 %, None where there is none. rows [n, K]: the examples' statistics, and `of` the
    function from their sums to the value (see `jaxft.evaluation.resampling`): what scores are compared by.
    """

    value: float
    provenance: str
    n: int = 0
    interval: tuple[float, float] | None = None
    rows: np.ndarray | None = None
    of: Of = mean
    whole: bool = False

    def __str__(self) -> str:
        interval = "" if self.interval is None else f" [{self.interval[0]:.4f}, {self.interval[1]:.4f}]"
        return f"{self.value:.4f}{interval}{f' n={self.n}' if self.n else ''} ({self.provenance})"

    def __repr__(self) -> str:
        return f"Score({self})"

    def to_dict(self) -> dict[str, float | None]:
        """Return what a summary holds of it: value, low and high."""
        low, high = self.interval or (None, None)
        return {"value": self.value, "low": low, "high": high}


def measure(
    rows: np.ndarray,
    provenance: str,
    of: Of = mean,
    *,
    whole: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Score:
    """Return the score of examples' statistics `rows` [N, K] or, for a mean, [N]; `resamples=0`: without an interval.

    The interval is the percentile bootstrap's; for a mean of zeros and ones it is Wilson's (1927), which is not empty
    where all examples are right. One example alone has none, unless it is a zero or a one.
    """
    rows = np.asarray(rows, np.float64)
    rows = rows[:, None] if rows.ndim == 1 else rows
    n = len(rows)
    if not n:
        raise UsageError("no examples to score: give at least one")
    value = value_of(rows, of, whole)
    found = None
    if resamples and is_binary(rows, of):
        found = wilson(int(rows.sum()), n)
    elif resamples and n > 1:
        found = interval(rows, of, whole, resamples=resamples, seed=seed)
    return Score(value, provenance, n, found, rows, of, whole)


def is_binary(rows: np.ndarray, of: Of = mean) -> bool:
    """Return whether the metric is the mean of zeros and ones."""
    return of is mean and rows.shape[1] == 1 and bool(((rows == 0) | (rows == 1)).all())


def wilson(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval (1927) of the share `count / n`."""
    from scipy.stats import binomtest

    low, high = binomtest(count, n).proportion_ci(level, "wilson")
    return float(low), float(high)
