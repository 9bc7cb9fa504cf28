"""Contamination: evaluation examples of which a stretch of words stands in the training texts.

As for GPT-3 (Brown et al. 2020, arXiv:2005.14165, appendix C) two texts overlap if they share 13 words in a row, in
lower case and without punctuation. A text of 8 to 12 words overlaps if the whole of it stands in the other; a shorter
one says too little and is not tested.

    for task, found in contamination(train_texts, {"test": test_texts}).items():
        print(task, found.contaminated, "of", found.tested)

Give texts without the template around them, whose words all examples share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxft.data.ngrams import Words, chunks, grams, hash_words, words
from jaxft.errors import UsageError

SHORTEST = 8


class Shared(NamedTuple):
    """Positions of an evaluation and a training text, and the words in a row that both have."""

    evaluation: int
    training: int
    words: str


@dataclasses.dataclass(frozen=True)
class Contamination:
    """Of `texts` evaluation texts, `tested` were long enough and `contaminated` overlap: at `positions`."""

    texts: int
    tested: int
    contaminated: int
    positions: tuple[int, ...] = ()
    examples: tuple[Shared, ...] = ()

    @property
    def share(self) -> float:
        """Contaminated texts among those tested."""
        return self.contaminated / self.tested if self.tested else 0.0


def contamination(
    training: Sequence[str], evaluation: Mapping[str, Sequence[str]], n: int = 13, examples: int = 3
) -> dict[str, Contamination]:
    """Return for each evaluation task how many of its texts share `n` words in a row with a training text.

    Memory grows with the evaluation texts (about 200 bytes a word) and not with the training texts, which are read in
    pieces. Each example names the first training text that has the n-gram.
    """
    if n < SHORTEST:
        raise UsageError(f"n: {n} words in a row say too little; use at least {SHORTEST}")
    texts = [text for part in evaluation.values() for text in part]
    hashed = hash_words(texts)
    indexes = [index for size in range(SHORTEST, n + 1) if len((index := _Index(hashed, size, n)).keys)]
    for start, part in chunks(training):
        found = hash_words(part)
        for index in indexes:
            index.look_up(found, start)
    hits = [hit for index in indexes for hit in index.hits()]
    return _by_task(training, evaluation, hashed, hits, n, examples)


class _Hit(NamedTuple):
    text: int
    training: int
    size: int


class _Index:
    """The evaluation texts' n-grams of one size; for each, the first training text that has it."""

    def __init__(self, evaluation: Words, size: int, n: int):
        self.size, self.longest = size, size == n
        found = grams(evaluation, size)
        self.keys, where = np.unique(found.hashes, return_inverse=True)
        self.where, self.texts, self.whole_text = where.astype(np.int32), found.texts.astype(np.int32), found.whole
        # Two records: n-grams that count for every evaluation text, and those that count where they are the whole text.
        self.anywhere = np.full(len(self.keys), -1, np.int32)
        self.whole = np.full(len(self.keys), -1, np.int32)
        self.is_whole = np.zeros(len(self.keys), bool)
        self.is_whole[self.where[self.whole_text]] = True
        # Most words of the training texts are nowhere in the evaluation texts: a small table tells it at once.
        self.table = np.zeros(1 << 22, bool)
        self.table[self.keys >> np.uint64(42)] = True

    def look_up(self, training: Words, start: int) -> None:
        if not self.longest and not self.is_whole.any() and not (training.counts == self.size).any():
            return
        other = grams(training, self.size)
        maybe = np.flatnonzero(self.table[other.hashes >> np.uint64(42)])
        at = np.minimum(np.searchsorted(self.keys, other.hashes[maybe]), len(self.keys) - 1)
        same = self.keys[at] == other.hashes[maybe]
        at, maybe = at[same], maybe[same]
        everywhere = other.whole[maybe] | self.longest
        self._note(self.anywhere, at[everywhere], other.texts[maybe[everywhere]] + start)
        partly = ~everywhere & self.is_whole[at]
        self._note(self.whole, at[partly], other.texts[maybe[partly]] + start)

    @staticmethod
    def _note(record: np.ndarray, keys: np.ndarray, texts: np.ndarray) -> None:
        # From the last to the first, so that the first stays.
        fresh = record[keys] < 0
        record[keys[fresh][::-1]] = texts[fresh][::-1]

    def hits(self) -> list[_Hit]:
        training = self.anywhere[self.where]
        only_whole = np.where(self.whole_text, self.whole[self.where], -1)
        training = np.where((training < 0) | ((only_whole >= 0) & (only_whole < training)), only_whole, training)
        at = np.flatnonzero(training >= 0)
        first = at[np.unique(self.texts[at], return_index=True)[1]]
        return [_Hit(int(self.texts[i]), int(training[i]), self.size) for i in first]


def _by_task(
    training: Sequence[str],
    evaluation: Mapping[str, Sequence[str]],
    hashed: Words,
    hits: Sequence[_Hit],
    n: int,
    examples: int,
) -> dict[str, Contamination]:
    longest = {hit.text: hit for hit in sorted(hits, key=lambda hit: hit.size)}
    result, start = {}, 0
    for task, part in evaluation.items():
        found = [longest[i] for i in range(start, start + len(part)) if i in longest]
        shown = []
        for hit in found[:examples]:
            common = _common_words(part[hit.text - start], training[hit.training], hit.size)
            shown.append(Shared(hit.text - start, hit.training, common))
        result[task] = Contamination(
            texts=len(part),
            tested=int((hashed.counts[start : start + len(part)] >= SHORTEST).sum()),
            contaminated=len(found),
            positions=tuple(hit.text - start for hit in found),
            examples=tuple(shown),
        )
        start += len(part)
    return result


def _common_words(one: str, other: str, size: int) -> str:
    """Return the first `size` words in a row that both texts have, and what follows in both."""
    left, right = words(one), words(other)
    places = {tuple(right[i : i + size]): i for i in reversed(range(len(right) - size + 1))}
    for i in range(len(left) - size + 1):
        j = places.get(tuple(left[i : i + size]))
        if j is not None:
            length = size
            while i + length < len(left) and j + length < len(right) and left[i + length] == right[j + length]:
                length += 1
            return " ".join(left[i : i + length])
    return ""
