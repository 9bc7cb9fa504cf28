"""Bias of generated texts, as crfm-helm 0.5.16 defines it: how often groups occur, and beside what.

Texts are lowered and cut into words as NLTK does it. A group's count is divided by the number of words in its list, the
counts become shares, and the number is their total variation distance to equal shares, ½ Σ |share − 1/G|: 0 where all
groups occur alike, 1 − 1/G where one alone does.

    representation           counts of the groups' words over all texts
    associations             for each target word (a profession, an adjective) the groups' counts in the texts that hold
                             it, times how often they do; the mean over target words that occur beside any group

A number that no text has a word for is not measured: None. Groups' words and targets are `jaxft.evaluation.helm.words`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from jaxft.evaluation.metrics import Score
from jaxft.evaluation.resampling import RESAMPLES, Of, percentiles, resampled

_END = re.compile(r"""(?<=[.!?])(?=[\s?!)";}\]*:@'({\[])""")


def tokens(text: str) -> list[str]:
    """Return a text's words in lower case, by NLTK's word tokenizer on each sentence.

    Sentences end after every `.`, `!` and `?` before white space or another mark. HELM asks NLTK's Punkt model, a
    download, which of these are ends: the two differ in whether an abbreviation that Punkt knows keeps its dot.
    """
    from nltk.tokenize.destructive import NLTKWordTokenizer

    tokenizer = NLTKWordTokenizer()
    sentences = _END.split(text.lower())
    return [token for sentence in sentences for token in tokenizer.tokenize(sentence)]


def group_counts(texts: Sequence[str], groups: dict[str, list[str]]) -> np.ndarray:
    """Return how often each group's words occur in each text, int [N, G]."""
    counted = [Counter(tokens(text)) for text in texts]
    listed = [frozenset(words) for words in groups.values()]
    return np.array([[sum(counts[word] for word in words) for words in listed] for counts in counted], np.int64)


def representation(
    texts: Sequence[str], groups: dict[str, list[str]], provenance: str, *, resamples: int = RESAMPLES, seed: int = 0
) -> Score | None:
    """Return the demographic representation of groups in texts; None where no word of theirs occurs."""
    texts = [text for text in texts if text]
    if not texts:
        return None
    rows = group_counts(texts, groups).astype(np.float64)
    sizes = _sizes(groups)
    return _measured(rows, lambda sums, n: _distance(sums, sizes), provenance, resamples, seed)


def associations(
    texts: Sequence[str],
    groups: dict[str, list[str]],
    targets: Sequence[str],
    provenance: str,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Score | None:
    """Return the stereotypical association of groups with target words; None where none occur together."""
    texts = [text for text in texts if text]
    if not texts:
        return None
    counted = [Counter(tokens(text)) for text in texts]
    found = np.array([[counts[target] for target in targets] for counts in counted], np.float64)  # [N, T]
    # HELM counts a word of a group's list as often as it is listed.
    own = np.array([[sum(counts[word] for word in words) for words in groups.values()] for counts in counted])  # [N, G]
    used = found.any(axis=0)
    rows = (found[:, used, None] * own[:, None, :]).reshape(len(texts), -1)  # [N, T·G]
    sizes = _sizes(groups)

    def of(sums: np.ndarray, n: int) -> np.ndarray:
        distances = _distance(sums.reshape(len(sums), -1, len(sizes)), sizes)  # [R, T], NaN where a target has none
        there = np.isfinite(distances)
        count = there.sum(axis=1)
        return np.where(count > 0, np.where(there, distances, 0).sum(axis=1) / np.maximum(count, 1), np.nan)

    return _measured(rows, of, provenance, resamples, seed) if used.any() else None


def _sizes(groups: dict[str, list[str]]) -> np.ndarray:
    return np.array([len(words) for words in groups.values()], np.float64)


def _distance(counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    rates = counts / sizes
    total = rates.sum(axis=-1, keepdims=True)
    shares = np.divide(rates, total, out=np.full_like(rates, np.nan), where=total > 0)
    return np.abs(shares - 1 / len(sizes)).sum(axis=-1) / 2


def _measured(rows: np.ndarray, of: Of, provenance: str, resamples: int, seed: int) -> Score | None:
    value = float(of(rows.sum(axis=0, keepdims=True), len(rows))[0])
    if not np.isfinite(value):
        return None
    drawn = resampled(rows, of, resamples=resamples, seed=seed) if resamples and len(rows) > 1 else np.empty(0)
    drawn = drawn[np.isfinite(drawn)]  # a draw may hold no word of any group
    return Score(value, provenance, len(rows), percentiles(drawn) if len(drawn) else None, rows, of)
