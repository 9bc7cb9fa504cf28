"""Metrics with their provenance: what a model's texts, labels and probabilities are worth, and how sure that is.

A number without its settings cannot be compared, so each `Score` carries them: ROUGE says whether it stemmed and how
lines were split, BLEU and chrF give sacrebleu's signature, F1 its labels and which is positive. It also carries the
number of examples, an interval of 95 % and what it is compared by (`jaxft.evaluation.statistics`).

Where an example has several references, `rouge1` takes the best of them and `rouge1_mean` their average, example by
example; `bleu` and `chrf` let an n-gram match any reference, and their `_mean` is the average of the corpus score
against the first, the second ... reference of every example. ROUGE is an F-measure in 0..1 (the plain mean over
examples), BLEU and chrF are in 0..100, correlations in -1..1, all others in 0..1. `exact_match` is the share of
predictions that are one of their references, white space around them aside; labels, numbers, SQuAD and entities have
rules of their own, stated in `labels` and `spans`. `calibration` and `perplexity` score probabilities.

>>> print(score(["the man bit the dog"], [["the dog bit the man"]], ["rouge2"])["rouge2"])
0.7500 n=1 (rouge-score|F1|stemmer:yes|newlines:as given|references:best of 1)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxft.errors import UsageError, nearest
from jaxft.evaluation.metrics.labels import LABELS, NUMBERS, accuracy, aligned, classified, correlated, exact_match
from jaxft.evaluation.metrics.measuring import Score, measure
from jaxft.evaluation.metrics.overlap import ROUGE, SACREBLEU, WORDS, Counted, rouge, sacrebleu
from jaxft.evaluation.metrics.probabilities import calibration, perplexity
from jaxft.evaluation.metrics.spans import SQUAD, entity_f1, squad
from jaxft.evaluation.resampling import RESAMPLES

TEXTS = (*(name + over for name in (*ROUGE, *SACREBLEU) for over in ("", "_mean")), "exact_match")
METRICS = (*TEXTS, *LABELS, *NUMBERS, *SQUAD, "entity_f1")

__all__ = ["METRICS", "ROUGE", "TEXTS", "Score", "calibration", "check_metrics", "check_texts", "measure", "perplexity",
           "score", "values"]  # fmt: skip


def check_metrics(names: Sequence[str]) -> None:
    """Raise UsageError for the first of `names` that is no metric."""
    for name in names:
        if name not in METRICS:
            raise UsageError(f"unknown metric {name!r}{nearest(name, METRICS)}")


def score(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str] = ROUGE,
    *,
    stemmer: bool = True,
    sentences: bool = False,
    words: str = "ascii",
    labels: Sequence[str] | None = None,
    choices: Sequence[Sequence[str]] | None = None,
    positive: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Score]:
    """Score predictions against one or more references each.

    `stemmer` applies Porter's stemmer before ROUGE compares words. rougeLsum compares line by line: lines are split at
    newlines as the texts have them, or with `sentences` after every `.`, `!` and `?`. `words` "unicode" lets ROUGE see
    other scripts. `labels` are what classifications are about (by default all that references have); or `choices` are
    each example's labels in its own words, in one order. `positive` is the label of f1 (by default of two labels yes,
    true, 1 or another that affirms, else the last). `resamples` draws of the examples by `seed` give the intervals; 0:
    no intervals.
    Raises UsageError for an unknown metric, lists of different length, an example without a reference, and references
    that a metric cannot use.
    """
    check_metrics(metrics)
    check_texts(predictions, references)
    if words not in WORDS:
        raise UsageError(f"words: {words!r} is neither 'ascii' nor 'unicode'")
    counted: dict[str, Counted] = {}
    if any(name.removesuffix("_mean") in ROUGE for name in metrics):
        counted |= rouge(predictions, references, stemmer, sentences, words)
    if any(name.removesuffix("_mean") in SACREBLEU for name in metrics):
        counted |= sacrebleu(predictions, references)
    if any(name in ("f1", "macro_f1", "matthews") for name in metrics):
        texts = (predictions, references, labels) if labels else aligned(predictions, references, choices)
        counted |= classified(*texts, positive)
        if "f1" in metrics and "f1" not in counted:
            raise UsageError("f1 is about one of two labels and there are more: use macro_f1, or name the positive one")
    if any(name in NUMBERS for name in metrics):
        counted |= correlated(predictions, references)
    if any(name in SQUAD for name in metrics):
        counted |= squad(predictions, references)
    for name, count in (("accuracy", accuracy), ("exact_match", exact_match), ("entity_f1", entity_f1)):
        if name in metrics:
            counted[name] = count(predictions, references)
    return {name: _measured(counted[name], resamples, seed) for name in metrics}


def check_texts(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raise UsageError unless every prediction has at least one reference and no reference is empty."""
    if len(predictions) != len(references):
        raise UsageError(f"{len(predictions)} predictions but {len(references)} lists of references: give one each")
    if not predictions:
        raise UsageError("no predictions to score: give at least one")
    for i, texts in enumerate(references):
        if isinstance(texts, str):
            raise UsageError(f"references of example {i} are one text: give a list of texts, [{texts[:20]!r}...]")
        if not texts or not all(text.strip() for text in texts):
            raise UsageError(f"example {i} has an empty reference or none: remove it or complete its references")


def check_fit(references: Sequence[Sequence[str]], metrics: Sequence[str], **options: Any) -> None:
    """Raise the UsageError that `score` would for references that a metric cannot use, before there are predictions."""
    fitting = [name for name in metrics if name not in TEXTS]
    if fitting and references:
        score([texts[0] for texts in references], references, fitting, resamples=0, **options)


def values(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Return `{name: number}`: what a log line holds."""
    return {name: result.value for name, result in scores.items()}


def _measured(counted: Counted, resamples: int, seed: int) -> Score:
    rows, provenance, of, whole = counted
    return measure(rows, provenance, of, whole=whole, resamples=resamples, seed=seed)
