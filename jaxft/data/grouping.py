"""Examples of several tasks, told apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from jaxft.data.encoding import Encoded


def by_task(examples: Sequence[Encoded]) -> dict[str, list[int]]:
    """Return the positions of each task's examples; nothing where examples are of no task."""
    places: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        if example.task:
            places.setdefault(example.task, []).append(i)
    return places


def spread(examples: Sequence[Encoded], count: int) -> list[Encoded]:
    """Return `count` examples in order: the first ones; of several tasks the first of each, then the second of each.

    >>> one, two = (Encoded("x", None, None, task=name) for name in "ab")
    >>> [example.task for example in spread([one, one, one, two, two], 3)]
    ['a', 'a', 'b']
    """
    places = list(by_task(examples).values()) or [list(range(len(examples)))]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*places))
    kept = sorted(itertools.islice((i for i in turns if i is not None), count))
    return [examples[i] for i in kept]
