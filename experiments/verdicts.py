"""Whether a claim stood: checks on the results of arms, with intervals over seeds.

    checks = [above(results, "lora", "untuned"), within(results, "lora", "full", 0.014)]
    overall(checks)             # True: all stood; False: one did not; None: too few seeds, or too much noise, to say

Arms are compared seed by seed: what is tested is the mean of their differences, by Student's t interval of 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxft.evaluation.statistics import Seeds, over_seeds

WORDS = {True: "stood", False: "did not stand", None: "open"}


class Check(NamedTuple):
    """A statement that a claim rests on, with the numbers, and whether it holds (None: not decided)."""

    text: str
    stands: bool | None


class Results:
    """The numbers of an experiment by arm and seed: `{"lora": {"0": {"rouge1": 0.3, ...}, "1": ...}}`."""

    def __init__(self, arms: Mapping[str, Mapping[str, Mapping[str, float]]], metric: str):
        self.arms, self.metric = arms, metric

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Results:
        """Return the numbers of what a results file holds, arms in the experiment's order and not as they were run."""
        runs = {arm: record["arms"][arm] for arm in record["order"] if arm in record["arms"]}
        arms = {arm: {seed: run["numbers"] for seed, run in own.items()} for arm, own in runs.items()}
        return cls(arms, record["metric"])

    def of(self, arm: str, metric: str | None = None) -> dict[str, float]:
        """Return a metric by seed; empty for an arm that has not been run."""
        name, runs = metric or self.metric, self.arms.get(arm, {})
        return {seed: numbers[name] for seed, numbers in runs.items() if numbers.get(name) is not None}

    def over(self, arm: str, metric: str | None = None) -> Seeds | None:
        """Return mean, deviation and interval over seeds; None for an arm without numbers."""
        values = list(self.of(arm, metric).values())
        return over_seeds(values) if values else None

    def mean(self, arm: str, metric: str | None = None) -> float:
        """Return the mean over seeds; NaN for an arm without numbers."""
        found = self.over(arm, metric)
        return found.mean if found else float("nan")

    def difference(self, a: str, b: str, metric: str | None = None) -> Seeds | None:
        """Return what is known of `a - b` over the seeds that both have."""
        ours, theirs = self.of(a, metric), self.of(b, metric)
        both = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        return over_seeds(both) if both else None


def above(results: Results, a: str, b: str, by: float = 0.0, metric: str | None = None) -> Check:
    """Say whether `a` is above `b` by more than `by`."""
    return _decided(results.difference(a, b, metric), f"{a} above {b}" + (f" by {by:g}" if by else ""), by)


def below(results: Results, a: str, b: str, metric: str | None = None) -> Check:
    """Say whether `a` is below `b`: for losses and costs."""
    return _decided(results.difference(b, a, metric), f"{a} below {b}", 0.0, sign=-1)


def within(results: Results, a: str, b: str, margin: float, metric: str | None = None) -> Check:
    """Say whether `a` is no more than `margin` below `b`."""
    return _decided(results.difference(a, b, metric), f"{a} at most {margin:g} below {b}", -margin)


def share(results: Results, part: str, whole: str, base: str, least: float, metric: str | None = None) -> Check:
    """Say whether `part` has at least a share of what `whole` gained over `base`, seed by seed."""
    values = [results.of(name, metric) for name in (part, whole, base)]
    seeds = [seed for seed in values[0] if seed in values[1] and seed in values[2]]
    excess = [values[0][s] - values[2][s] - least * (values[1][s] - values[2][s]) for s in seeds]
    gains = [sum(values[i][s] - values[2][s] for s in seeds) for i in (0, 1)]
    text = f"{part} has {least:.0%} of the gain of {whole} over {base}"
    if not seeds:
        return Check(f"{text}: not run", None)
    if gains[1] <= 0:
        return Check(f"{text}: {whole} gained nothing", False)
    return _decided(over_seeds(excess), text, 0.0, shown=f"{gains[0] / gains[1]:.0%}")


def at_least(value: float, least: float, text: str) -> Check:
    """Say whether a number that needs no seeds is large enough."""
    return Check(f"{text}: {value:.4g} (needed: {least:g})", None if value != value else value >= least)


def overall(checks: Sequence[Check]) -> bool | None:
    """Return whether a claim stood: False if one check failed, None if one is open, else True."""
    found = [check.stands for check in checks]
    return None if not found else False if False in found else None if None in found else True


def _decided(found: Seeds | None, text: str, bound: float, sign: int = 1, shown: str = "") -> Check:
    if found is None:
        return Check(f"{text}: not run", None)
    number = shown or f"{sign * found.mean:+.4f}"
    if found.interval is None or found.sd is None:
        return Check(f"{text}: {number}, one seed", None)
    low, high = found.interval
    stands = True if low > bound else False if high < bound or found.sd == 0 else None
    if shown:
        return Check(f"{text}: {shown}", stands)
    ends = sorted((sign * low, sign * high))
    return Check(f"{text}: {number} [{ends[0]:.4f}, {ends[1]:.4f}]", stands)


def to_json(checks: Sequence[Check]) -> dict[str, Any]:
    """Return what a results file holds of a verdict."""
    return {"stood": overall(checks), "word": WORDS[overall(checks)], "checks": [check._asdict() for check in checks]}
