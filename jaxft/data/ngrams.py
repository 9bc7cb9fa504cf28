"""Word n-grams of many texts as 64-bit hashes, the same in every process.

Words are runs of letters and digits in lower case; punctuation is dropped, and a Chinese or Japanese character is a
word of its own. Two n-grams with the same hash are taken for equal: among 100 million, a chance of 1 in 4,000.

>>> words("It's 5 o'clock, here: 東京")
['its', '5', 'oclock', 'here', '東', '京']
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+")
_QUOTES = str.maketrans("", "", "'’")
_BASE = 0x9E3779B97F4A7C15  # any odd number of well mixed bits


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case and without punctuation."""
    return _WORD.findall(text.lower().translate(_QUOTES))


class Words(NamedTuple):
    """Hashes of the words of all texts, one after another; text `i` has those from `starts[i]` to `starts[i + 1]`."""

    hashes: np.ndarray
    starts: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """Number of words in each text."""
        return np.diff(self.starts)


class Grams(NamedTuple):
    """Hashes of n-grams, the index of the text each is in, and whether it is the whole text."""

    hashes: np.ndarray
    texts: np.ndarray
    whole: np.ndarray


def hash_words(texts: Sequence[str]) -> Words:
    """Return the texts' words as uint64 hashes."""
    known, counts = _WordHashes(), np.zeros(len(texts) + 1, np.int64)

    def each() -> Iterator[int]:
        for i, text in enumerate(texts):
            found = words(text)
            counts[i + 1] = len(found)
            yield from map(known.__getitem__, found)

    hashes = np.fromiter(each(), np.uint64)
    return Words(hashes, np.cumsum(counts))


def grams(found: Words, n: int, short: bool = False) -> Grams:
    """Return every n-gram of every text, in order; with `short`, a text of fewer words is one gram of all it has."""
    counts = found.counts
    per_text = np.maximum(counts - n + 1, 0)
    if short:
        per_text = np.maximum(per_text, counts > 0)
    texts = np.repeat(np.arange(len(counts)), per_text)
    first = np.arange(len(texts)) - np.repeat(np.cumsum(per_text) - per_text, per_text)
    at, end = found.starts[texts] + first, found.starts[texts + 1]
    mixed = np.zeros(len(at), np.uint64)
    padded = np.concatenate([found.hashes, np.zeros(n, np.uint64)])
    for k in range(n):
        word = padded[at + k] if not short else np.where(at + k < end, padded[at + k], np.uint64(0))
        mixed = mixed * np.uint64(_BASE) + word
    return Grams(mix(mixed), texts, counts[texts] <= n)


def mix(hashes: np.ndarray) -> np.ndarray:
    """Return uint64 numbers scattered over all 64 bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def chunks(texts: Sequence[str], characters: int = 4_000_000) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield `(index of the first, texts)` in pieces of about so many characters, which bounds the memory."""
    start = size = 0
    for i, text in enumerate(texts):
        size += len(text)
        if size >= characters:
            yield start, texts[start : i + 1]
            start, size = i + 1, 0
    if start < len(texts):
        yield start, texts[start:]


class _WordHashes(dict):
    def __missing__(self, word: str) -> int:
        # Surrogates may stand alone in what JSON decodes.
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = value = int.from_bytes(digest, "little")
        return value
