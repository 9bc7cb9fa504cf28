"""Text metrics with their provenance: ROUGE by `rouge-score`, BLEU and chrF by `sacrebleu`.

A number without its settings cannot be compared, so each `Score` carries them: ROUGE says whether it stemmed and how
lines were split, BLEU and chrF give sacrebleu's signature. Where an example has several references, `rouge1` takes the
best of them and `rouge1_mean` their average, example by example; `bleu` and `chrf` let an n-gram match any reference,
and their `_mean` is the average of the corpus score against the first, the second ... reference of every example.
ROUGE is an F-measure in 0..1 (the plain mean over examples), BLEU and chrF are in 0..100. `exact_match` is the share of
predictions that are one of their references, white space around them aside.

>>> print(score(["the man bit the dog"], [["the dog bit the man"]], ["rouge2"])["rouge2"])
0.7500 (rouge-score|F1|stemmer:yes|newlines:as given|references:best of 1)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxft.errors import UsageError, nearest

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
SACREBLEU = ("bleu", "chrf")
METRICS = (*(name + over for name in (*ROUGE, *SACREBLEU) for over in ("", "_mean")), "exact_match")


class Score(NamedTuple):
    """A number and the settings that it was computed with."""

    value: float
    provenance: str

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.provenance})"


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
) -> dict[str, Score]:
    """Score predictions against one or more references each.

    `stemmer` applies Porter's stemmer before ROUGE compares words. rougeLsum compares line by line: lines are split at
    newlines as the texts have them, or with `sentences` after every `.`, `!` and `?`.
    Raises UsageError for an unknown metric, lists of different length, and an example without a reference.
    """
    check_metrics(metrics)
    check_texts(predictions, references)
    scores: dict[str, Score] = {}
    if any(name.removesuffix("_mean") in ROUGE for name in metrics):
        scores |= _rouge(predictions, references, stemmer, sentences)
    if any(name.removesuffix("_mean") in SACREBLEU for name in metrics):
        scores |= _sacrebleu(predictions, references)
    if "exact_match" in metrics:
        pairs = zip(predictions, references, strict=True)
        share = _mean(text.strip() in {reference.strip() for reference in texts} for text, texts in pairs)
        scores["exact_match"] = Score(share, f"exact match|stripped|references:any of {_reference_count(references)}")
    return {name: scores[name] for name in metrics}


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


def _rouge(predictions, references, stemmer: bool, sentences: bool) -> dict[str, Score]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGE), use_stemmer=stemmer)
    split = _sentence_lines if sentences else str
    table = [
        [scorer.score(split(reference), split(prediction)) for reference in texts]
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    policy = f"rouge-score|F1|stemmer:{'yes' if stemmer else 'no'}|newlines:{'sentences' if sentences else 'as given'}"
    count = _reference_count(references)
    scores = {}
    for name in ROUGE:
        rows = [[result[name].fmeasure for result in row] for row in table]
        best, mean = _mean(max(row) for row in rows), _mean(_mean(row) for row in rows)
        scores[name] = Score(best, f"{policy}|references:best of {count}")
        scores[f"{name}_mean"] = Score(mean, f"{policy}|references:mean of {count}")
    return scores


def _sacrebleu(predictions, references) -> dict[str, Score]:
    from sacrebleu.metrics import BLEU, CHRF

    predictions = [text.strip() for text in predictions]
    width = max(len(texts) for texts in references)
    streams: Any = [[texts[i] if i < len(texts) else None for texts in references] for i in range(width)]
    shortest = min(len(texts) for texts in references)
    scores = {}
    for name, new in (("bleu", BLEU), ("chrf", CHRF)):
        metric = new()
        scores[name] = Score(metric.corpus_score(predictions, streams).score, str(metric.get_signature()))
        # Only streams that every example has: a corpus score over some of the examples is another corpus.
        each = [new().corpus_score(predictions, [stream]).score for stream in streams[:shortest]]
        scores[f"{name}_mean"] = Score(_mean(each), f"{metric.get_signature()}|references:mean of {shortest}")
    return scores


def _sentence_lines(text: str) -> str:
    return re.sub(r"(?<=[.!?])\s+", "\n", text.strip())


def _reference_count(references) -> str:
    counts = sorted({len(texts) for texts in references})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


def _mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def values(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Return `{name: number}`: what a log line holds."""
    return {name: result.value for name, result in scores.items()}
