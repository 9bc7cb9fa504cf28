"""Calibration: whether a model is right as often as it is sure, as crfm-helm 0.5.16 defines it.

    max_prob    the probability of the chosen answer: softmax over the answers of their log-probability by token, as in
                HELM's `multiple_choice_separate_original` (`jaxft.evaluation.tasks.answer`, `by="token"`); HELM itself
                shows calibration where an answer's letter is generated, with that letter's probability
    ece_10_bin  Σ_b |Σ confidence − Σ right| / N over ten bins that hold equally many examples; needs some 300 of them
    ece_1_bin   |mean confidence − share of right answers|
    selective_cov_acc_area   mean accuracy of the k surest answers over k = 1 .. N (El-Yaniv & Wiener 2010)
    selective_acc@10         accuracy of the tenth that is surest: of int(0.1 N) + 1 answers
    platt_*     a logistic regression of right on logit(confidence) (Platt 1999), its coefficient and intercept, and the
                two errors after it; 0 where all or no answers are right

>>> round(calibration([0.9, 0.8, 0.6, 0.55], [1, 1, 0, 1], resamples=0)["ece_1_bin"].value, 4)
0.0375
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxft.errors import UsageError
from jaxft.evaluation.metrics import Score
from jaxft.evaluation.resampling import RESAMPLES, percentiles, resampled

METRICS = ("ece_10_bin", "ece_1_bin", "selective_cov_acc_area", "selective_acc@10", "platt_coef", "platt_intercept",
           "platt_ece_10_bin", "platt_ece_1_bin")  # fmt: skip
_EPSILON = 1e-12  # confidences are held so far from 0 and 1


def calibration(
    confidence: Sequence[float] | np.ndarray,
    right: Sequence[int] | np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    provenance: str = "crfm-helm 0.5.16",
) -> dict[str, Score]:
    """Return HELM's calibration metrics of confidences [N] in 0..1 and whether each answer is right [N], 0 or 1.

    Intervals draw examples with replacement and bin anew; as errors cannot be negative, those of drawn examples lie
    rather high, and the interval is widened to hold the value. Raises UsageError for lengths that differ, no examples,
    and confidences out of range.
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    if confidence.shape != right.shape or confidence.ndim != 1 or not len(right):
        raise UsageError(f"{confidence.size} confidences but {right.size} answers: give one each, and at least one")
    if not ((confidence >= 0) & (confidence <= 1)).all() or not np.isin(right, (0, 1)).all():
        raise UsageError("confidences lie in 0..1, and an answer is right (1) or not (0)")
    rows = np.stack([confidence, right], axis=1)
    values = _all(rows[None], len(rows))[0]
    drawn = resampled(rows, _all, whole=True, resamples=resamples, seed=seed) if resamples and len(rows) > 1 else None
    found = {}
    for i, name in enumerate(METRICS):
        kept = np.empty(0) if drawn is None else drawn[:, i][np.isfinite(drawn[:, i])]
        between = _holding(values[i], percentiles(kept)) if len(kept) else None
        if np.isfinite(values[i]):  # there is no coefficient where all or no answers are right
            found[name] = Score(float(values[i]), provenance, len(rows), between, rows, _column(i), True)
    return found


def _holding(value: float, between: tuple[float, float]) -> tuple[float, float]:
    return min(between[0], float(value)), max(between[1], float(value))


def _all(rows: np.ndarray, n: int) -> np.ndarray:
    return np.array([list(_metrics(draw[:, 0], draw[:, 1]).values()) for draw in rows])  # [R, 8]


def _column(i: int) -> Callable[[np.ndarray, int], np.ndarray]:
    return lambda rows, n: _all(rows, n)[:, i]


def _metrics(confidence: np.ndarray, right: np.ndarray) -> dict[str, float]:
    accuracy = _selective(confidence, right)
    found = {
        "ece_10_bin": _ece_equal(confidence, right),
        "ece_1_bin": _ece_one(confidence, right),
        "selective_cov_acc_area": float(accuracy.mean()),
        "selective_acc@10": float(accuracy[int(0.1 * len(right))]),
    }
    if right.min() == right.max():
        return found | {
            "platt_coef": np.nan,
            "platt_intercept": np.nan,
            "platt_ece_10_bin": 0.0,
            "platt_ece_1_bin": 0.0,
        }
    slope, start = platt(confidence, right)
    scaled = 1 / (1 + np.exp(-np.clip(slope * _logit(confidence) + start, -500, 500)))
    found |= {"platt_coef": slope, "platt_intercept": start}
    return found | {"platt_ece_10_bin": _ece_equal(scaled, right), "platt_ece_1_bin": _ece_one(scaled, right)}


def _ece_equal(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    # An example lies in the bin whose upper edge is the first that is not below it; edges halve the gap between parts.
    parts = np.array_split(np.sort(confidence), min(bins, len(confidence)))
    edges = [*((left[-1] + following[0]) / 2 for left, following in itertools.pairwise(parts)), 1.0]
    which = np.searchsorted(np.unique(edges), confidence)
    return float(np.abs(np.bincount(which, confidence - right)).sum() / len(right))


def _ece_one(confidence: np.ndarray, right: np.ndarray) -> float:
    return float(abs((confidence - right).mean()))


def _selective(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    order = np.argsort(-confidence)
    return np.cumsum(right[order]) / np.arange(1, len(right) + 1)


def platt(confidence: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Return coefficient and intercept of the logistic regression of `right` on logit(confidence)."""
    from scipy.optimize import minimize

    x = _logit(confidence)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = w[0] * x + w[1]
        gap = 1 / (1 + np.exp(-np.clip(z, -500, 500))) - right
        # HELM's C is 1e10: a penalty of 0.5e-10, without which separable answers have no optimum.
        value = np.logaddexp(0, z).sum() - (right * z).sum() + 0.5e-10 * w[0] ** 2
        return float(value), np.array([(gap * x).sum() + 1e-10 * w[0], gap.sum()])

    found: Any = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", options={"gtol": 1e-8, "ftol": 1e-14})
    return float(found.x[0]), float(found.x[1])


def _logit(confidence: np.ndarray) -> np.ndarray:
    clipped = np.clip(confidence, _EPSILON, 1 - _EPSILON)
    return np.log(clipped / (1 - clipped))
