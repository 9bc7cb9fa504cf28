"""Whether a difference stands: intervals, tests on the same examples, and several seeds.

    after, before = score(texts, references, ["rouge1"])["rouge1"], score(...)["rouge1"]
    compare(after, before)      # Comparison(difference=0.031, low=0.012, high=0.050, p=0.002, test=..., stands=True)

The null hypothesis is that the two systems are worth the same on each example. Tests are two-sided and paired; none is
about other seeds of training, for which `over_seeds` is (Dietterich 1998 on what each test can say).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxft.errors import UsageError, nearest
from jaxft.evaluation.metrics.measuring import Score, is_binary, measure, wilson
from jaxft.evaluation.resampling import RESAMPLES, interval, percentiles, resampled

__all__ = ["Comparison", "Seeds", "compare", "compare_all", "holm", "interval", "mcnemar", "measure", "over_seeds",
           "paired_bootstrap", "permutation", "wilson"]  # fmt: skip
ALPHA = 0.05
_BLOCK = 1 << 22  # numbers held at a time


class Comparison(NamedTuple):
    """The difference of two scores on the same examples, its interval of 95 %, and whether it stands (p < 0.05)."""

    difference: float
    low: float
    high: float
    p: float
    test: str
    stands: bool

    def to_dict(self) -> dict[str, float | str | bool]:
        """Return what summary.json holds of it."""
        return self._asdict()


class Seeds(NamedTuple):
    """Values over seeds: mean, standard deviation (of n - 1), number, and Student's t interval of the mean."""

    mean: float
    sd: float | None
    n: int
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        return f"{self.mean:.4f}" + (f" ± {self.sd:.4f} (n={self.n})" if self.sd is not None else " (n=1)")


def compare(a: Score, b: Score, test: str | None = None, *, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Return what is known of `a - b`, two scores of one metric on the same examples in the same order.

    low and high are of the paired bootstrap. `test` is "mcnemar" (by default where examples are right or wrong),
    "permutation" (by default else) or "bootstrap". Raises UsageError for scores of other metrics or other numbers of
    examples, and for an unknown test.
    """
    rows_a, rows_b = _rows(a, b)
    if test is None:
        test = "mcnemar" if is_binary(rows_a, a.of) and is_binary(rows_b, b.of) else "permutation"
    if test not in _TESTS:
        raise UsageError(f"unknown test {test!r}{nearest(test, _TESTS)}")
    low, high = percentiles(_differences(a, b, resamples, seed))
    p = _TESTS[test](a, b, resamples=resamples, seed=seed)
    return Comparison(a.value - b.value, low, high, p, test, p < ALPHA)


def compare_all(
    a: Mapping[str, Score], b: Mapping[str, Score], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Comparison]:
    """Compare each score of which both have rows; `stands` is by Holm's adjusted p, `p` remains the test's own."""
    both = [name for name in a if name in b and a[name].rows is not None and b[name].rows is not None]
    found = {name: compare(a[name], b[name], resamples=resamples, seed=seed) for name in both}
    adjusted = holm([one.p for one in found.values()])
    return {name: one._replace(stands=p < ALPHA) for (name, one), p in zip(found.items(), adjusted, strict=True)}


def permutation(a: Score, b: Score, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Return p of the permutation test: how often a difference so large comes of swapping the two systems' outputs on
    each example by a coin (Fisher's sign-flips, for a mean; approximate randomisation, Noreen 1989, for any metric)."""
    rows_a, rows_b = _rows(a, b)
    random = np.random.default_rng(seed)
    count, n = 0, len(rows_a)
    observed = abs(a.value - b.value)
    size = max(1, _BLOCK // rows_a.size)
    for start in range(0, resamples, size):
        swap = random.integers(0, 2, (min(size, resamples - start), n)).astype(np.float64)
        if a.whole:
            swapped = swap[..., None] == 1
            drawn = a.of(np.where(swapped, rows_b, rows_a), n) - a.of(np.where(swapped, rows_a, rows_b), n)
        else:
            moved = swap @ (rows_b - rows_a)
            drawn = a.of(rows_a.sum(0) + moved, n) - a.of(rows_b.sum(0) - moved, n)
        count += int((np.abs(drawn) >= observed * (1 - 1e-9) - 1e-12).sum())
    return (count + 1) / (resamples + 1)


def paired_bootstrap(a: Score, b: Score, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Return p of the paired bootstrap: twice the share of resamples in which the worse is not worse (Koehn 2004)."""
    differences = _differences(a, b, resamples, seed)
    fewer = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (fewer + 1) / (resamples + 1)))


def mcnemar(a: Score, b: Score, *, resamples: int = 0, seed: int = 0) -> float:
    """Return p of McNemar's test (1947), exact: the binomial one of examples that only one of the two has right."""
    from scipy.stats import binomtest

    rows_a, rows_b = _rows(a, b)
    if not (is_binary(rows_a, a.of) and is_binary(rows_b, b.of)):
        raise UsageError("mcnemar is for examples that are right or wrong (0 or 1): use the permutation test")
    only_a, only_b = int((rows_a > rows_b).sum()), int((rows_b > rows_a).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that all that are below a level stand together at it (Holm 1979)."""
    order = np.argsort(ps, kind="stable")
    steps = np.asarray(ps, np.float64)[order] * np.arange(len(ps), 0, -1)
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1) if len(ps) else steps
    return adjusted.tolist()


def over_seeds(values: Sequence[float], level: float = 0.95) -> Seeds:
    """Return mean, standard deviation and Student's t interval of values of several seeds; one seed has only a mean."""
    from scipy.stats import t

    found, n = np.asarray(values, np.float64), len(values)
    if not n:
        raise UsageError("over_seeds: no values: give one for each seed")
    mean = float(found.mean())
    if n == 1:
        return Seeds(mean, None, 1, None)
    sd = float(found.std(ddof=1))
    half = float(t.ppf((1 + level) / 2, n - 1)) * sd / n**0.5
    return Seeds(mean, sd, n, (mean - half, mean + half))


def _rows(a: Score, b: Score) -> tuple[np.ndarray, np.ndarray]:
    if a.rows is None or b.rows is None:
        raise UsageError("these scores have no rows of their examples: they cannot be compared")
    if a.rows.shape != b.rows.shape:
        raise UsageError(f"scores of {a.rows.shape[0]} and {b.rows.shape[0]} examples, or of other metrics or labels: "
                         "score both on the same examples with the same settings")  # fmt: skip
    return a.rows, b.rows


def _differences(a: Score, b: Score, resamples: int, seed: int) -> np.ndarray:
    pairs = zip((a, b), _rows(a, b), strict=True)
    first, second = (resampled(rows, one.of, one.whole, resamples=resamples, seed=seed) for one, rows in pairs)
    return first - second


_TESTS: dict[str, Callable[..., float]] = {
    "permutation": permutation,
    "bootstrap": paired_bootstrap,
    "mcnemar": mcnemar,
}
