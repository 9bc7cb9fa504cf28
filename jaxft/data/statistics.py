"""What a set of examples is like: lengths, scripts, repetitions and labels, per task.

    for task, found in statistics(examples, {"glue/rte": texts}).items():
        print(task, found.prompt.mean, found.completion.percentile_95, found.outside_latin)

Which script the letters belong to says much about the language, without a model that would guess at it.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxft.data.encoding import Encoded


class Lengths(NamedTuple):
    """Lengths in tokens; `counts[i]` of them lie from `edges[i]` to below `edges[i + 1]` (the last: up to it)."""

    mean: float
    median: float
    percentile_95: float
    max: int
    edges: tuple[int, ...]
    counts: tuple[int, ...]


class Characters(NamedTuple):
    """Characters of texts: their total, the share of digits, and of the letters the share outside the Latin script."""

    total: int
    digits: float
    outside_latin: float


@dataclasses.dataclass(frozen=True)
class Statistics:
    """The statistics of one task's examples. Fields about texts are None where no texts were given.

    distinct_completions: share. templates: examples of each. labels: how often each answer choice is the answer, where
    all examples have the same choices. repeated_lines: share of the non-empty lines that stand above in the same text.
    """

    examples: int
    prompt: Lengths
    completion: Lengths
    target_tokens: int
    distinct_completions: float
    templates: Mapping[str, int]
    labels: Mapping[str, int]
    characters: Characters | None = None
    repeated_lines: float | None = None


def statistics(
    examples: Sequence[Encoded], texts: Mapping[str, Sequence[str]] | None = None, bins: int = 12
) -> dict[str, Statistics]:
    """Return the statistics of each task's examples ("" where examples belong to no task), the largest first.

    `texts`: by task, what its rows say (`jaxft.data.cleaning.contents`) or its prompts.
    """
    members: dict[str, list[Encoded]] = {}
    for example in examples:
        members.setdefault(example.task, []).append(example)
    ordered = sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))
    return {task: _statistics(own, (texts or {}).get(task), bins) for task, own in ordered}


def lengths(values: Sequence[int] | np.ndarray, bins: int = 12) -> Lengths:
    """Return a summary of lengths with a histogram of at most `bins` bars whose edges are round numbers.

    >>> lengths([1, 2, 2, 9], bins=3)[3:]
    (9, (0, 5, 10), (3, 1))
    """
    array = np.asarray(values)
    if not len(array):
        return Lengths(0.0, 0.0, 0.0, 0, (0, 1), (0,))
    width = _round_up(max(int(array.max()) // bins + 1, 1))
    edges = np.arange(0, int(array.max()) + width + 1, width)
    counts = np.bincount(array // width, minlength=len(edges) - 1)[: len(edges) - 1]
    middle, high = np.percentile(array, [50, 95])
    edge_list, count_list = tuple(edges.tolist()), tuple(counts.tolist())
    return Lengths(float(array.mean()), float(middle), float(high), int(array.max()), edge_list, count_list)


def characters(texts: Sequence[str]) -> Characters:
    """Return how many characters texts have, the share of digits, and the share of letters outside the Latin script.

    >>> characters(["abc 12", "東京 a"])
    Characters(total=10, digits=0.2, outside_latin=0.3333333333333333)
    """
    counted: Counter[str] = Counter()
    for text in texts:
        counted.update(text)
    total = sum(counted.values())
    letters = {letter: count for letter, count in counted.items() if letter.isalpha()}
    foreign = sum(count for letter, count in letters.items() if not _is_latin(letter))
    digits = sum(count for letter, count in counted.items() if letter.isdigit())
    return Characters(total, digits / max(total, 1), foreign / max(sum(letters.values()), 1))


def repeated_lines(texts: Sequence[str]) -> float:
    """Return the share of non-empty lines that stand above in the same text already.

    >>> repeated_lines(["a\\nb\\na\\n", "a"])
    0.25
    """
    all_lines = repeats = 0
    for text in texts:
        lines = [line for line in map(str.strip, text.splitlines()) if line]
        all_lines += len(lines)
        repeats += len(lines) - len(set(lines))
    return repeats / max(all_lines, 1)


def _statistics(examples: Sequence[Encoded], texts: Sequence[str] | None, bins: int) -> Statistics:
    completions = [example.references[0] if example.references else "" for example in examples]
    choices = {example.choices for example in examples}
    answers = Counter(completions)
    # Choices that differ from example to example (of a multiple choice, say) have no balance.
    known = next(iter(choices)) if len(choices) == 1 else ()
    return Statistics(
        examples=len(examples),
        prompt=lengths([len(example.prompt) for example in examples], bins),
        completion=lengths([len(example.completion) for example in examples], bins),
        target_tokens=sum(target_tokens(example) for example in examples),
        distinct_completions=len(answers) / len(examples),
        templates=dict(Counter(example.template for example in examples).most_common()),
        labels={choice: answers[choice.strip()] for choice in known},
        characters=None if texts is None else characters(texts),
        repeated_lines=None if texts is None else repeated_lines(texts),
    )


def target_tokens(example: Encoded) -> int:
    """Return the number of tokens of an example that are learnt."""
    return len(example.completion) if example.counted is None else int(np.count_nonzero(example.counted))


def _is_latin(letter: str) -> bool:
    return letter.isascii() or "LATIN" in unicodedata.name(letter, "")


def _round_up(number: int) -> int:
    scale = 10 ** (len(str(number)) - 1)
    steps = (step * scale for step in (1, 1.5, 2, 2.5, 3, 4, 5, 10))
    return next(int(step) for step in steps if step >= number and step == int(step))
