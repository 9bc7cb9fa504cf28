"""Duplicates: texts that say the same twice, word for word or nearly.

Exact duplicates agree after white space and case are made equal. Near duplicates share most of their word 5-grams: the
Jaccard similarity of two texts' sets of 5-grams is at least a threshold (0.8 in Lee et al. 2022, arXiv:2107.06499).
Candidates come from MinHash signatures (Broder 1997) cut into bands (Leskovec et al., Mining of Massive Datasets, ch.
3); each is then compared in full, so what is called a duplicate is one. A pair right at the threshold is missed with a
probability below 1 %, a closer pair far more seldom.

    kept, report = deduplicate(contents(rows), near=0.8)
    rows = rows.take(kept.tolist())

The first of the texts that agree is kept. Give texts without the template around them: two examples with a long common
instruction are near duplicates by their words.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxft.data.ngrams import grams, hash_words, mix
from jaxft.data.rows import Rows
from jaxft.errors import UsageError

WORDS, HASHES = 5, 128
NAMES = frozenset(("id", "idx", "index", "uid", "guid", "key", "fname", "url"))


class Duplicate(NamedTuple):
    """Text `dropped` repeats text `kept` (positions); `similarity` is 1.0 where they agree word for word."""

    dropped: int
    kept: int
    similarity: float


@dataclasses.dataclass(frozen=True)
class DuplicateReport:
    """How many of `texts` repeat another one, exactly or nearly; `found` are all of them, by position."""

    texts: int
    exact: int
    near: int
    found: tuple[Duplicate, ...] = ()

    def __str__(self) -> str:
        return self.describe()

    def describe(self, place: Callable[[int], str] = lambda i: f"text {i + 1}", count: int = 3) -> str:
        """Return one line, with the first `count` duplicates by the names that `place` gives to positions."""
        text = f"{self.exact} exact and {self.near} near duplicates in {self.texts} texts"
        first = [f"{place(f.dropped)} repeats {place(f.kept)} ({f.similarity:.0%})" for f in self.found[:count]]
        return text + (f" (first: {'; '.join(first)})" if first else "")


def deduplicate(texts: Sequence[str], near: float | None = None) -> tuple[np.ndarray, DuplicateReport]:
    """Return the ascending positions of the texts to keep, and what the others repeat.

    `near`: drop a text too whose 5-grams have at least this Jaccard similarity (in (0, 1]) to those of a kept text;
    None or 0: exact duplicates only. A function of the texts alone; memory is about 60 bytes a word.
    """
    report = _find(texts, near, 0)
    kept = np.ones(len(texts), bool)
    kept[[found.dropped for found in report.found]] = False
    return np.flatnonzero(kept), report


def distinct(rows: Rows, similarity: float | None) -> tuple[Rows, int]:
    """Return the rows that repeat no earlier one, and how many do: to this Jaccard similarity, or exactly for 1."""
    if similarity is None:
        return rows, 0
    kept, _ = deduplicate(contents(rows), None if similarity == 1 else similarity)
    return rows.take(kept.tolist()), len(rows) - len(kept)


def repeated(texts: Sequence[str], of: Sequence[str], near: float | None = None) -> DuplicateReport:
    """Return which of `texts` repeat one of the texts `of` (`kept` is a position there); `near` as `deduplicate`."""
    if not of:
        return DuplicateReport(len(texts), 0, 0)
    report = _find([*of, *texts], near, len(of))
    found = tuple(one._replace(dropped=one.dropped - len(of)) for one in report.found)
    return dataclasses.replace(report, texts=len(texts), found=found)


def contents(rows: Rows | Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what each row says: its texts, but for names (`id`, `url` ...), labels, and what all rows have in common.

    >>> contents([{"id": "1", "how": "Add.", "q": ["1", "1"]}, {"id": "2", "how": "Add.", "q": ["2"]}])
    ['1\\n1', '2']
    """
    texts = [{name: _text(value) for name, value in row.items() if name.lower() not in NAMES} for row in rows]
    values: dict[str, set[str]] = {}
    for row in texts:
        for name, text in row.items():
            values.setdefault(name, set()).add(text)
    told = {name for name, own in values.items() if len(own) > 1 and not _labels(own, len(texts))}
    # Where nothing differs, everything is content. A field may be there twice, under a task's own name.
    names = told or set(values)
    parts = [dict.fromkeys(text for name, text in row.items() if text and name in names) for row in texts]
    return ["\n".join(own) for own in parts]


def _labels(values: set[str], rows: int) -> bool:
    return 10 * len(values) <= rows and all(len(value.split()) <= 3 for value in values)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return "\n".join(filter(None, map(_text, parts)))


def _find(texts: Sequence[str], near: float | None, reference: int) -> DuplicateReport:
    # The first `reference` texts are not compared with each other; what comes behind is compared with them alone.
    if near is not None and not 0 <= near <= 1:
        raise UsageError(f"near: {near} is no Jaccard similarity; use a number between 0 and 1, such as 0.8")
    unique, found = _exact(texts, reference)
    exact = len(found)
    if near:
        found += _near([texts[i] for i in unique], unique, near, reference)
    return DuplicateReport(len(texts), exact, len(found) - exact, tuple(sorted(found)))


def _exact(texts: Sequence[str], reference: int) -> tuple[list[int], list[Duplicate]]:
    first: dict[bytes, int] = {}
    unique, found = [], []
    for i, text in enumerate(texts):
        same = " ".join(text.casefold().split()).encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(same, digest_size=16).digest()
        kept = first.get(digest)
        if kept is None:
            unique.append(i)
            if not reference or i < reference:
                first[digest] = i
        elif i >= reference:
            found.append(Duplicate(i, kept, 1.0))
    return unique, found


def _near(texts: Sequence[str], positions: Sequence[int], threshold: float, reference: int) -> list[Duplicate]:
    found_words = hash_words(texts)
    shingles, owners, _ = grams(found_words, WORDS, short=True)
    starts = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(texts)))])
    keys = _band_keys(_signatures(shingles, starts), _rows_per_band(threshold))
    keys[np.diff(starts) == 0] = -1  # a text without a word is like no other
    shelves: list[dict[int, list[int]]] = [{} for _ in range(keys.shape[1])]
    sets: dict[int, frozenset[int]] = {}

    def shingle_set(i: int) -> frozenset[int]:
        if i not in sets:
            sets[i] = frozenset(shingles[starts[i] : starts[i + 1]].tolist())
        return sets[i]

    found = []
    for i in np.flatnonzero((keys >= 0).any(axis=1)).tolist():
        mine = [(shelf, key) for shelf, key in zip(shelves, keys[i].tolist(), strict=True) if key >= 0]
        compared = not reference or positions[i] >= reference
        candidates = sorted({j for shelf, key in mine for j in shelf.get(key, ())}) if compared else []
        match = next(((j, s) for j in candidates if (s := _jaccard(shingle_set(i), shingle_set(j))) >= threshold), None)
        if match is not None:
            found.append(Duplicate(positions[i], positions[match[0]], match[1]))
        elif not reference or not compared:
            for shelf, key in mine:
                shelf.setdefault(key, []).append(i)
    return found


def _jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def _rows_per_band(threshold: float) -> int:
    """The more rows a band has, the fewer candidates: the most with which a pair at the threshold is still found."""
    missed = {rows: (1 - threshold**rows) ** (HASHES // rows) for rows in range(1, HASHES + 1)}
    return max((rows for rows, chance in missed.items() if chance < 0.01), default=1)


def _signatures(shingles: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return `[texts, HASHES]` uint32: the least of each text's shingles under so many random orders."""
    multipliers = mix(np.arange(1, HASHES + 1, dtype=np.uint64)) | np.uint64(1)
    signatures = np.full((len(starts) - 1, HASHES), np.iinfo(np.uint32).max, np.uint32)
    full = np.flatnonzero(np.diff(starts))
    begins = starts[full]
    # So few at a time that the numbers stay in the processor's cache.
    for block in np.split(np.arange(len(full)), np.flatnonzero(np.diff(begins // 32768)) + 1):
        if not len(block):
            continue
        here = begins[block]
        part = shingles[here[0] : starts[full[block[-1]] + 1]]
        for column, multiplier in enumerate(multipliers):
            order = ((part * multiplier) >> np.uint64(32)).astype(np.uint32)
            signatures[full[block], column] = np.minimum.reduceat(order, here - here[0])
    return signatures


def _band_keys(signatures: np.ndarray, rows: int) -> np.ndarray:
    """Return `[texts, bands]` numbers, equal where two texts' bands are; -1 for a band that no other text has."""
    keys = np.empty((len(signatures), HASHES // rows), np.int64)
    for band in range(keys.shape[1]):
        hashes = np.zeros(len(signatures), np.uint64)
        for column in signatures.T[band * rows : (band + 1) * rows]:
            hashes = mix(hashes * np.uint64(3) + column)
        _, key, count = np.unique(hashes, return_inverse=True, return_counts=True)
        keys[:, band] = np.where(count[key] > 1, key, -1)
    return keys
