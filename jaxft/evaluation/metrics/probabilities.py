"""Scores of probabilities: calibration of a choice among answers, perplexity of texts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxft.errors import UsageError
from jaxft.evaluation.metrics.measuring import Score, measure
from jaxft.evaluation.resampling import RESAMPLES

_FLOOR = 1e-12


def calibration(
    probabilities: Sequence[Sequence[float]] | np.ndarray,
    labels: Sequence[int] | np.ndarray,
    *,
    bins: int = 10,
    mass: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Score]:
    """Return ece, brier and nll of probabilities [N, C] (rows may differ in C) of classes, and the right classes [N].

    ece: Σ_b |Σ right − Σ confidence| / N over bins of the top class's confidence (Guo et al. 2017); bins are
    (0, 0.1], (0.1, 0.2] ... wide, or with `mass` hold equally many examples, which is HELM's `ece_10_bin`; its interval
    resamples examples in the bins as they are, and as errors cannot be negative, it lies rather high.
    brier: the mean of Σ_c (p_c − [c is right])², 0..2 (Brier 1950). nll: the mean of −log p of the right class, nats,
    p at least 1e-12.
    Raises UsageError for lengths that differ, classes that do not exist, and probabilities that do not sum to 1.
    """
    chances = [np.asarray(row, np.float64) for row in probabilities]
    _check(chances, labels)
    confidence = np.array([row.max() for row in chances])
    right = np.array([row.argmax() == label for row, label in zip(chances, labels, strict=True)], np.float64)
    own = np.array([row[label] for row, label in zip(chances, labels, strict=True)])
    brier = np.array([(row**2).sum() for row in chances]) - 2 * own + 1
    which = np.searchsorted(_edges(confidence, bins, mass)[:-1], confidence, side="left")
    gaps = np.zeros((len(chances), bins))
    gaps[np.arange(len(chances)), which] = right - confidence
    settings: Any = {"resamples": resamples, "seed": seed}
    kind = "equally many each" if mass else "equally wide"
    return {
        "ece": measure(gaps, f"ECE|top label|bins:{bins}, {kind}", _sum_of_gaps, **settings),
        "brier": measure(brier, "Brier|all classes, 0..2", **settings),
        "nll": measure(-np.log(np.maximum(own, _FLOOR)), "NLL|nats|p at least 1e-12", **settings),
    }


def perplexity(
    log_probs: Sequence[float],
    tokens: Sequence[int],
    texts: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Score]:
    """Return the perplexity of texts from the log-probabilities (nats) of each and their numbers of scored tokens.

    perplexity: exp(−Σ log p / Σ tokens). With the texts also word_perplexity, per part between white space,
    byte_perplexity and bits_per_byte (log2 of it), per byte of UTF-8: these compare models of different tokenizers, and
    are lm-eval's. Examples are resampled as whole texts. Raises UsageError for lengths that differ and empty texts.
    """
    counts = {"perplexity": ("token", tokens)}
    if texts is not None:
        bytes_ = [len(text.encode("utf-8")) for text in texts]
        words = [len(re.split(r"\s+", text)) for text in texts]
        counts["word_perplexity"] = ("word", words)
        counts |= dict.fromkeys(("byte_perplexity", "bits_per_byte"), ("byte", bytes_))
    found = {}
    for name, (unit, numbers) in counts.items():
        if len(numbers) != len(log_probs):
            raise UsageError(f"{len(log_probs)} log-probabilities but {len(numbers)} texts: give one each")
        if not all(number > 0 for number in numbers):
            raise UsageError(f"perplexity: text {[number > 0 for number in numbers].index(False)} has no {unit}")
        rows = np.stack([np.asarray(log_probs, np.float64), np.asarray(numbers, np.float64)], axis=1)
        of = _bits if name == "bits_per_byte" else _perplexity
        found[name] = measure(rows, f"{name.replace('_', ' ')}|per {unit}", of, resamples=resamples, seed=seed)
    return found


def _check(chances: Sequence[np.ndarray], labels: Any) -> None:
    if len(chances) != len(labels):
        raise UsageError(f"{len(chances)} rows of probabilities but {len(labels)} labels: give one each")
    for i, (row, label) in enumerate(zip(chances, labels, strict=True)):
        if not (row >= 0).all() or abs(row.sum() - 1) > 1e-3:
            raise UsageError(f"the probabilities of example {i} sum to {row.sum():.4g} or are negative: normalise them")
        if not 0 <= label < len(row):
            raise UsageError(f"the label {label} of example {i} is none of its {len(row)} classes, 0 to {len(row) - 1}")


def _edges(confidence: np.ndarray, bins: int, mass: bool) -> np.ndarray:
    if not mass:
        return np.arange(1, bins + 1) / bins
    parts = [part for part in np.array_split(np.sort(confidence), bins) if len(part)]
    between = [(left[-1] + right[0]) / 2 for left, right in itertools.pairwise(parts)]
    return np.array([*between, 1.0])


def _sum_of_gaps(sums: np.ndarray, n: int) -> np.ndarray:
    return np.abs(sums).sum(axis=1) / n


def _perplexity(sums: np.ndarray, n: int) -> np.ndarray:
    return np.exp(-sums[:, 0] / sums[:, 1])


def _bits(sums: np.ndarray, n: int) -> np.ndarray:
    return -sums[:, 0] / sums[:, 1] / np.log(2)
