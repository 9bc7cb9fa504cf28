"""Numbers of a task x stage matrix of scores; the package says what they are.

>>> scores = np.array([[0.2, 0.3], [0.8, 0.4], [0.6, 0.9]])     # before, after stage 1, after stage 2
>>> round(average_forgetting(scores), 2), round(backward_transfer(scores), 2), round(forward_transfer(scores), 2)
(0.2, -0.2, 0.1)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxft.errors import UsageError


def average_forgetting(scores: Sequence[Sequence[float]] | np.ndarray) -> float:
    """Return F of `scores` [T + 1, T]: the mean fall of the tasks before the last from their best; 0 for one stage."""
    scores = _checked(scores)
    stages = scores.shape[1]
    if stages == 1:
        return 0.0
    return float((scores[1:stages, :-1].max(axis=0) - scores[-1, :-1]).mean())


def backward_transfer(scores: Sequence[Sequence[float]] | np.ndarray) -> float:
    """Return BWT of `scores` [T + 1, T]: the mean change of a task since its own stage; 0 for one stage."""
    scores = _checked(scores)
    stages = scores.shape[1]
    return float((scores[-1] - np.diagonal(scores[1:]))[:-1].mean()) if stages > 1 else 0.0


def forward_transfer(scores: Sequence[Sequence[float]] | np.ndarray) -> float:
    """Return FWT of `scores` [T + 1, T]: the mean gain of a task just before its own stage; 0 for one stage."""
    scores = _checked(scores)
    stages = scores.shape[1]
    return float(np.mean([scores[j, j] - scores[0, j] for j in range(1, stages)])) if stages > 1 else 0.0


def _checked(scores: Any) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or scores.shape[1] < 1 or scores.shape[0] != scores.shape[1] + 1:
        raise UsageError(f"scores: {scores.shape} is no matrix of stages x tasks: give a row for the model before, and "
                         "one after each task")  # fmt: skip
    return scores
