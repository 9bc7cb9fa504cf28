"""Mixtures: how much of each task an epoch holds, and which examples.

A task's rate is its size up to a cap ("proportional": Wei et al. 2021, arXiv:2109.01652, who cap at 3,000), that number
to the power 1/T ("temperature": Raffel et al. 2020, arXiv:1910.10683), the same for all ("equal"), or a weight that is
given. An epoch's share of a task is its rate of the epoch's size, to rounding, and at least one example.

Each task is a deck of cards that is dealt on from epoch to epoch and shuffled anew, by (seed, task, pass), when it is
used up: every example is seen before one is seen twice, and what an epoch holds is a function of (seed, epoch) alone.

>>> mixture = Mixture({"long": 9000, "short": 1000}, cap=3000)
>>> mixture.quotas, mixture.size
({'long': 3000, 'short': 1000}, 4000)
>>> len(set(mixture.draw(0)) & set(mixture.draw(1)))  # of "long" the next 3,000, of "short" all again
1000
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxft.data.shuffling import permutation
from jaxft.errors import UsageError, nearest

SCHEMES = ("proportional", "temperature", "equal")


class Mixture:
    """A mixture of tasks whose examples lie one task after another, `counts[name]` of each, in that order.

    Args:
        counts: The number of examples of each task.
        rates: "proportional", "temperature", "equal", or a weight for each task; 0 leaves a task out.
        cap: What a task counts for at most, in "proportional", in "temperature" and in the size of an epoch; None: no
            cap.
        temperature: T of "temperature": 1 is proportional, large values come near to equal.
        factors: What a task's rate is multiplied by, 1 where it is not named.
        size: Examples in an epoch; by default the capped sizes of the tasks that are drawn from, added up.
        seed: Of the order within tasks.

    Raises UsageError for weights that are negative, not finite or all zero, tasks that are unknown or without a weight,
    and sizes that leave no room for each task.
    """

    def __init__(
        self,
        counts: Mapping[str, int],
        rates: str | Mapping[str, float] = "proportional",
        *,
        cap: int | None = 3000,
        temperature: float = 2.0,
        factors: Mapping[str, float] | None = None,
        size: int | None = None,
        seed: int = 0,
    ):
        _check_counts(counts, cap, temperature)
        self.counts = dict(counts)
        self.seed = seed
        weights = _weights(self.counts, rates, cap, temperature)
        for name, factor in _checked("factor", factors or {}, self.counts).items():
            weights[name] *= factor
        whole = sum(weights.values())
        if not whole > 0:
            raise UsageError("mixture: all weights are zero: give at least one task a positive one")
        self.rates = {name: weight / whole for name, weight in weights.items()}
        self.size = size if size is not None else sum(_capped(self.counts[n], cap) for n, w in weights.items() if w)
        self.quotas = _quotas(self.rates, self.size)

    def draw(self, epoch: int) -> np.ndarray:
        """Return the positions `[size]` of an epoch's examples, task by task: a function of the seed and the epoch."""
        parts, start = [], 0
        for name, count in self.counts.items():
            quota = self.quotas[name]
            first, last = epoch * quota, (epoch + 1) * quota  # among all that are ever dealt of this task
            for deck in range(first // count, -(-last // count)):
                order = permutation(self.seed, count, deck, stream=_stream(name))
                parts.append(start + order[max(first - deck * count, 0) : last - deck * count])
            start += count
        return np.concatenate(parts)

    def __repr__(self) -> str:
        return f"Mixture(counts={self.counts}, quotas={self.quotas}, seed={self.seed})"


def _weights(
    counts: Mapping[str, int], rates: str | Mapping[str, float], cap: int | None, temperature: float
) -> dict[str, float]:
    if not isinstance(rates, str):
        missing = [name for name in counts if name not in rates]
        given = _checked("weight", rates, counts)
        if missing:
            raise UsageError(f"mixture: the task {missing[0]!r} has no weight: give it one, 0 to leave it out")
        return {name: given[name] for name in counts}
    if rates not in SCHEMES:
        raise UsageError(f"mixture: unknown scheme {rates!r}{nearest(rates, SCHEMES)}, or give a weight for each task")
    power = {"proportional": 1.0, "temperature": 1 / temperature, "equal": 0.0}[rates]
    return {name: _capped(count, cap) ** power for name, count in counts.items()}


def _check_counts(counts: Mapping[str, int], cap: int | None, temperature: float) -> None:
    if not counts:
        raise UsageError("mixture: there are no tasks")
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"mixture: the task {name!r} has no examples")
    if cap is not None and cap < 1:
        raise UsageError(f"mixture: a cap of {cap} leaves nothing; use at least 1, or null for none")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise UsageError(f"mixture: the temperature is {temperature}; use a positive number")


def _checked(kind: str, given: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, float]:
    for name, value in given.items():
        if name not in counts:
            raise UsageError(f"mixture: a {kind} for the unknown task {name!r}{nearest(name, counts)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise UsageError(f"mixture: the {kind} of {name!r} is {value!r}; use a number of at least 0")
    return {name: float(value) for name, value in given.items()}


def _capped(count: int, cap: int | None) -> int:
    return count if cap is None else min(count, cap)


def _quotas(rates: Mapping[str, float], size: int) -> dict[str, int]:
    drawn = [name for name, rate in rates.items() if rate > 0]
    if size < len(drawn):
        raise UsageError(f"mixture: an epoch of {size} examples has no room for {len(drawn)} tasks")
    quotas = {name: max(math.floor(rates[name] * size + 1e-9), 1) if rates[name] else 0 for name in rates}
    # The largest remainders are rounded up; where one for each of many small tasks is too much, the largest give.
    by_rest = sorted(drawn, key=lambda name: quotas[name] - rates[name] * size)
    for i in range(size - sum(quotas.values())):
        quotas[by_rest[i % len(by_rest)]] += 1
    while sum(quotas.values()) > size:
        quotas[max(drawn, key=lambda name: quotas[name])] -= 1
    return quotas


def _stream(name: str) -> int:
    # By name: a task's order does not change with the tasks beside it. Small streams are other uses of chance.
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "little") + 1000
