"""Robustness and fairness: what is left of the accuracy when texts are perturbed, as crfm-helm 0.5.16 defines it.

For each example the worst of its unperturbed and its perturbed versions counts:

    worst               mean over examples of the worst over all perturbations of the kind and the original
    x/before            mean accuracy on the original of those examples that perturbation x changed
    x/perturbed         the same on what it made of them
    x/worst             mean of the worse of the two

An example that a perturbation leaves as it is does not count for it (HELM's `should_skip_unchanged_eval`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxft.errors import UsageError
from jaxft.evaluation.metrics import Score, measure
from jaxft.evaluation.resampling import RESAMPLES

NOTHING_CHANGED = "no example has a text that this perturbation changes"


def worst_case(
    original: np.ndarray,
    perturbed: Mapping[str, np.ndarray],
    provenance: Mapping[str, str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Score | str]:
    """Return the scores of accuracies on the original [N] and on each perturbation's texts [N].

    An accuracy is NaN where the perturbation changed nothing; a text in place of a score says that it changed no
    example. `provenance` is of each perturbation, and "" of the worst of all.
    """
    original = np.asarray(original, np.float64)
    found: dict[str, Score | str] = {}
    settings: Any = {"resamples": resamples, "seed": seed}
    for name, rows in perturbed.items():
        if rows.shape != original.shape:
            raise UsageError(f"{name}: {len(rows)} perturbed examples, but {len(original)} original ones")
        there = np.isfinite(rows)
        if not there.any():
            found[name] = NOTHING_CHANGED
            continue
        before, after = original[there], rows[there]
        parts = {"before": before, "perturbed": after, "worst": np.minimum(before, after)}
        found |= {f"{name}/{part}": measure(one, provenance[name], **settings) for part, one in parts.items()}
    lowest = np.fmin.reduce([original, *perturbed.values()])
    worst: dict[str, Score | str] = {"worst": measure(lowest, provenance[""], **settings)}
    return worst | found
