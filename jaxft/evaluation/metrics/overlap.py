"""Words and letters in common with references: ROUGE by `rouge-score`, BLEU and chrF by `sacrebleu`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from jaxft.evaluation.resampling import Of, mean

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
SACREBLEU = ("bleu", "chrf")
WORDS = ("ascii", "unicode")
_SINGLE = r"\p{Han}\p{Hiragana}\p{Katakana}"
_WORD = rf"[{_SINGLE}]|[[\p{{L}}\p{{M}}\p{{N}}]--[{_SINGLE}]]+"

References = Sequence[Sequence[str]]


class Counted(NamedTuple):
    """What a metric counts in examples: rows [N, K], the settings, and the function from sums to the value."""

    rows: np.ndarray
    provenance: str
    of: Of = mean
    whole: bool = False


def rouge(
    predictions: Sequence[str], references: References, stemmer: bool, sentences: bool, words: str
) -> Mapping[str, Counted]:
    """Count ROUGE's F-measures (Lin 2004), of the best reference and of all of them.

    `words`: "ascii" is rouge-score's own tokenizer, which drops all but a-z and 0-9 and so scores other scripts 0 (the
    provenance says how many references have no word left); "unicode" takes runs of letters, marks and digits, and each
    Chinese or Japanese character as a word.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGE), use_stemmer=stemmer, tokenizer=_Unicode(stemmer) if words == "unicode" else None)
    split = _sentence_lines if sentences else str
    table = [
        [scorer.score(split(reference), split(prediction)) for reference in texts]
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    policy = f"rouge-score|F1|stemmer:{'yes' if stemmer else 'no'}|newlines:{'sentences' if sentences else 'as given'}"
    policy += _words_policy(references, words)
    count = reference_count(references)
    found = {}
    for name in ROUGE:
        rows = [[result[name].fmeasure for result in row] for row in table]
        best, average = [max(row) for row in rows], [sum(row) / len(row) for row in rows]
        found[name] = Counted(np.array(best)[:, None], f"{policy}|references:best of {count}")
        found[f"{name}_mean"] = Counted(np.array(average)[:, None], f"{policy}|references:mean of {count}")
    return found


def sacrebleu(predictions: Sequence[str], references: References) -> Mapping[str, Counted]:
    """Count BLEU's and chrF's n-grams (Papineni et al. 2002, Popović 2015, Post 2018).

    sacrebleu makes the statistics of the examples and the score of their sums; its corpus scores are these.
    """
    from sacrebleu.metrics import BLEU, CHRF

    predictions = [text.strip() for text in predictions]
    width = max(len(texts) for texts in references)
    streams: Any = [[texts[i] if i < len(texts) else None for texts in references] for i in range(width)]
    shortest = min(len(texts) for texts in references)
    found = {}
    for name, metric in (("bleu", cast(Any, BLEU())), ("chrf", cast(Any, CHRF()))):
        rows = metric._extract_corpus_statistics(predictions, streams)
        signature = str(metric.get_signature())
        found[name] = Counted(np.array(rows, np.float64), signature, _mean_of_parts(metric, 1))
        # Only streams that every example has: a corpus score over some of the examples is another corpus.
        parts = [metric._extract_corpus_statistics(predictions, [stream]) for stream in streams[:shortest]]
        rows = np.concatenate(parts, axis=1, dtype=np.float64)
        policy = f"{signature}|references:mean of {shortest}"
        found[f"{name}_mean"] = Counted(rows, policy, _mean_of_parts(metric, shortest))
    return found


def reference_count(references: References) -> str:
    """Return how many references examples have: "3", or "1-3"."""
    counts = sorted({len(texts) for texts in references})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


def _mean_of_parts(metric: Any, parts: int) -> Of:
    def of(sums: np.ndarray, n: int) -> np.ndarray:
        scores = [
            [metric._compute_score_from_stats(part).score for part in row]
            for row in sums.reshape(len(sums), parts, -1).tolist()
        ]
        return np.array(scores).mean(axis=1)

    return of


def _words_policy(references: References, words: str) -> str:
    if words == "unicode":
        return "|words:unicode"
    lost = sum(not any(re.search("[a-z0-9]", text.lower()) for text in texts) for texts in references)
    return f"|words:ascii, none in {lost} of {len(references)} references" if lost else ""


def _sentence_lines(text: str) -> str:
    return re.sub(r"(?<=[.!?])\s+", "\n", text.strip())


class _Unicode:
    def __init__(self, stemmer: bool):
        from nltk.stem.porter import PorterStemmer

        self._stem = PorterStemmer().stem if stemmer else None

    def tokenize(self, text: str) -> list[str]:
        import regex

        words = regex.findall(_WORD, text.lower(), regex.VERSION1)
        # As rouge-score does: short words are left as they are, and the stemmer is for English.
        return [self._stem(word) if self._stem and len(word) > 3 and word.isascii() else word for word in words]
