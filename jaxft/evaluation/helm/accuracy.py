"""Accuracy of each example, by crfm-helm 0.5.16's names and definitions; of several references the best counts.

    exact_match         the prediction is the reference, white space around both aside; of an answer that was chosen,
                        the choice that is most probable by token (HELM's `multiple_choice_separate_original`)
    quasi_exact_match   the same in lower case, without punctuation and articles
    f1_score            F1 of the two *sets* of such words (SQuAD's, in `jaxft.evaluation.metrics`, counts repeats)
    rouge_1, _2, _l     F1 of ROUGE with Porter's stemmer

>>> per_example("f1_score", ["The cat, a cat"], [["cat and dog"]])
array([0.5])
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxft.errors import UsageError, nearest
from jaxft.evaluation.metrics import check_texts, score
from jaxft.evaluation.metrics.spans import normalised

# HELM's name: ours.
_SAME = {"exact_match": "exact_match", "rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
METRICS = (*_SAME, "quasi_exact_match", "f1_score")


def check_helm_metrics(names: Sequence[str]) -> None:
    """Raise UsageError for the first of `names` that is none of HELM's metrics here, and for no name at all."""
    if not names:
        raise UsageError(f"metrics: name one or more of {', '.join(METRICS)}")
    for name in names:
        if name not in METRICS:
            raise UsageError(f"unknown metric {name!r} of HELM's{nearest(name, METRICS)}")


def helm_name(name: str) -> str | None:
    """Return what HELM calls one of our metrics; None for one that it has not."""
    ours = {own: theirs for theirs, own in _SAME.items()} | {"accuracy": "exact_match", "squad_em": "quasi_exact_match"}
    return name if name in METRICS else ours.get(name)


def per_example(name: str, texts: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return a metric's value for each text, [N] in 0..1; UsageError for an unknown one and for empty references."""
    check_helm_metrics([name])
    check_texts(texts, references)
    if name in _SAME:
        rows = score(texts, references, [_SAME[name]], resamples=0)[_SAME[name]].rows
        assert rows is not None
        return rows[:, 0]
    pair = _quasi if name == "quasi_exact_match" else _f1
    return np.array([max(pair(text, one) for one in some) for text, some in zip(texts, references, strict=True)])


def _quasi(text: str, reference: str) -> float:
    return float(bool(text.strip()) and normalised(text) == normalised(reference))


def _f1(text: str, reference: str) -> float:
    words, wanted = set(normalised(text).split()), set(normalised(reference).split())
    return 2 * len(words & wanted) / (len(words) + len(wanted)) if words and wanted else 0.0
