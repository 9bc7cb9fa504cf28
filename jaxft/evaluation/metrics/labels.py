"""Answers out of a set, and numbers: accuracy, F1, Matthews, Pearson, Spearman.

Labels are compared with white space around, case and a full stop at the end left aside. A prediction that is none of
the labels is wrong: it misses its reference's label and counts for no other. Of several references the first is the
label.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from jaxft.errors import UsageError, nearest
from jaxft.evaluation.metrics.overlap import Counted, References, reference_count

LABELS = ("accuracy", "f1", "macro_f1", "matthews")
NUMBERS = ("pearson", "spearman")
# Which of two labels F1 is about, where nobody says: the one that affirms, else the last.
_POSITIVE = ("yes", "true", "1", "positive", "entailment", "equivalent", "acceptable", "duplicate")


def plain(text: str) -> str:
    """Return a label as it is compared.

    >>> plain(" Yes.\\n")
    'yes'
    """
    return text.strip().rstrip(".").casefold()


def exact_match(predictions: Sequence[str], references: References) -> Counted:
    """Count the predictions that are one of their references, white space around them aside."""
    pairs = zip(predictions, references, strict=True)
    rows = [text.strip() in {reference.strip() for reference in texts} for text, texts in pairs]
    policy = f"exact match|stripped|references:any of {reference_count(references)}"
    return Counted(np.array(rows, np.float64)[:, None], policy)


def accuracy(predictions: Sequence[str], references: References) -> Counted:
    """Count the predictions that are one of their references' labels."""
    pairs = zip(predictions, references, strict=True)
    rows = [plain(text) in {plain(reference) for reference in texts} for text, texts in pairs]
    policy = f"accuracy|case and full stop aside|references:any of {reference_count(references)}"
    return Counted(np.array(rows, np.float64)[:, None], policy)


def classified(
    predictions: Sequence[str], references: References, labels: Sequence[str] | None, positive: str | None
) -> Mapping[str, Counted]:
    """Count F1 of the positive label, the mean of all labels' F1, and Matthews' correlation.

    `labels` are those of the references by default. F1 of a label that is neither predicted nor true is 0, and so is
    Matthews' correlation where all predictions or all references are one label; with more than two labels, or
    predictions outside them, it is Gorodkin's R_K (2004). f1 is there for two labels, or with `positive`.
    Raises UsageError for labels that are the same when compared, and a reference or `positive` outside them.
    """
    truth = [plain(texts[0]) for texts in references]
    names = _names(labels, truth)
    true = np.array([[label == name for name in names] for label in truth], np.float64)
    guess = np.array([[plain(text) == name for name in names] for text in predictions], np.float64)
    other = 1 - guess.sum(1, keepdims=True)
    counts = np.concatenate([true * guess, guess, true], axis=1)
    policy = f"case and full stop aside|labels:{', '.join(names)}|others: wrong"
    against = np.concatenate([guess, other, true, 0 * other, true * guess], axis=1)
    found = {
        "macro_f1": Counted(counts, f"F1, mean of labels|{policy}", _macro_f1),
        "matthews": Counted(against, f"Matthews|{policy}", _mcc),
    }
    place = _positive(names, positive)
    if place is not None:
        rows = counts[:, [place, place + len(names), place + 2 * len(names)]]
        found["f1"] = Counted(rows, f"F1|positive:{names[place]}|{policy}", _macro_f1)
    return found


def aligned(
    predictions: Sequence[str], references: References, choices: Sequence[Sequence[str]] | None
) -> tuple[Sequence[str], References, Sequence[str] | None]:
    """Return texts in the words of the first example's choices, and these; as they are where choices differ in number.

    >>> aligned(["true", "maybe"], [["yes"], ["False"]], [["no", "yes"], ["False", "True"]])
    (['true', 'maybe'], [['yes'], ['no']], ['no', 'yes'])
    """
    if not choices or len({len(one) for one in choices}) > 1 or not choices[0]:
        return predictions, references, None
    words = [{plain(choice): label for choice, label in zip(one, choices[0], strict=True)} for one in choices]
    texts = [own.get(plain(text), text) for text, own in zip(predictions, words, strict=True)]
    truth = [[own.get(plain(text), text) for text in some] for some, own in zip(references, words, strict=True)]
    return texts, truth, choices[0]


def correlated(predictions: Sequence[str], references: References) -> Mapping[str, Counted]:
    """Count Pearson's and Spearman's correlation of the first numbers in the texts.

    A prediction without one is taken as the references' mean, which adds nothing to the correlation; the provenance
    says how many are. Where all numbers are equal the correlation is 0. Raises UsageError for a reference without one.
    """
    truth = [_number(texts[0]) for texts in references]
    if None in truth:
        i = truth.index(None)
        raise UsageError(f"pearson and spearman: the reference {references[i][0][:40]!r} of example {i} has no number")
    y = np.array(truth, np.float64)
    guess = [_number(text) for text in predictions]
    x = np.array([y.mean() if number is None else number for number in guess])
    policy = f"first number in a text|none in {guess.count(None)} of {len(guess)}: the references' mean"
    pairs = np.stack([x, y], axis=1)
    # Centred and scaled, sums of squares keep their digits.
    scaled = (pairs - pairs.mean(0)) / np.maximum(pairs.std(0), np.finfo(np.float64).tiny)
    products = np.stack([*scaled.T, *(scaled**2).T, scaled[:, 0] * scaled[:, 1]], axis=1)
    return {
        "pearson": Counted(products, f"Pearson|{policy}", _pearson),
        "spearman": Counted(pairs, f"Spearman|{policy}", _spearman, whole=True),
    }


def _names(labels: Sequence[str] | None, truth: Sequence[str]) -> list[str]:
    if labels is None:
        return sorted(set(truth))
    names = [plain(label) for label in labels]
    if len(set(names)) < len(names):
        raise UsageError(f"labels: two of {', '.join(map(repr, labels))} are the same but for case or a full stop")
    for i, label in enumerate(truth):
        if label not in names:
            raise UsageError(f"the reference {label!r} of example {i} is none of the labels{nearest(label, names)}")
    return names


def _positive(names: Sequence[str], positive: str | None) -> int | None:
    if positive is not None:
        if plain(positive) not in names:
            raise UsageError(f"positive: {positive!r} is none of the labels{nearest(positive, names)}")
        return names.index(plain(positive))
    affirming = [name for name in _POSITIVE if name in names]
    return None if len(names) > 2 else names.index(affirming[0]) if affirming else len(names) - 1


def _macro_f1(sums: np.ndarray, n: int) -> np.ndarray:
    both, guess, true = np.split(sums, 3, axis=1)
    return _divided(2 * both, guess + true).mean(axis=1)


def _mcc(sums: np.ndarray, n: int) -> np.ndarray:
    labels = (sums.shape[1] - 2) // 3
    guess, true = sums[:, : labels + 1], sums[:, labels + 1 : 2 * labels + 2]
    right = sums[:, 2 * labels + 2 :].sum(1)
    spread = (n**2 - (guess**2).sum(1)) * (n**2 - (true**2).sum(1))
    return _divided(right * n - (guess * true).sum(1), np.sqrt(spread))


def _pearson(sums: np.ndarray, n: int) -> np.ndarray:
    x, y, xx, yy, xy = sums.T / n
    spread = np.maximum(xx - x**2, 0) * np.maximum(yy - y**2, 0)
    return _divided(xy - x * y, np.sqrt(spread), tiny=1e-12)


def _spearman(rows: np.ndarray, n: int) -> np.ndarray:
    from scipy.stats import rankdata

    ranks = rankdata(rows, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    products = (ranks[..., 0] * ranks[..., 1]).sum(1)
    return _divided(products, np.sqrt((ranks**2).sum(1).prod(1)))


def _divided(over: np.ndarray, under: np.ndarray, tiny: float = 0.0) -> np.ndarray:
    return np.where(under > tiny, over / np.where(under > tiny, under, 1), 0.0)


def _number(text: str) -> float | None:
    found = re.search(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", text)
    return float(found[0]) if found else None
