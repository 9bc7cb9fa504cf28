"""Probes: small questions of several kinds, made up here, that show whether tuning for one thing costs another.

Each has its answers to choose from, so that a model is asked by log-likelihood alone: cheap, and the same for models
that were never instructed. They are no benchmark: a pretrained model can do most of them in part, which is what makes
a change visible.

>>> row = probes(seed=0, count=1)[0]
>>> row["probe"], row["question"], row["options"], row["answer"]
('arithmetic', 'What is 9 plus 4?', ['14', '13'], '13')

Example `i` of a kind depends on (seed, kind, i) alone. No text of others is used. `jaxft.data.probes.texts` holds plain
English and neutral prompts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxft.data.probes.words import (
    AGREEMENTS,
    CAPITALS,
    DULL,
    FALSE,
    LIKED,
    NOUNS,
    OPPOSITES,
    THINGS,
    TRUE,
)


class Question(NamedTuple):
    """What is asked, the right answer and wrong ones."""

    question: str
    answer: str
    wrong: tuple[str, ...]


def arithmetic(rng: random.Random) -> Question:
    """Sums and differences of numbers up to 20."""
    a, b = rng.randrange(2, 15), rng.randrange(2, 10)
    word, right = rng.choice((("plus", a + b), ("minus", a - b))) if a > b else ("plus", a + b)
    return Question(f"What is {a} {word} {b}?", str(right), (str(right + rng.choice((1, -1, 2))),))


def reversing(rng: random.Random) -> Question:
    """Three words in the opposite order."""
    one, two, three = rng.sample(NOUNS, 3)
    wrong = rng.choice(((one, three, two), (two, one, three), (one, two, three)))
    return Question(f"Say these words in reverse order: {one}, {two}, {three}.", f"{three}, {two}, {one}",
                    (", ".join(wrong),))  # fmt: skip


def sorting(rng: random.Random) -> Question:
    """Three numbers from small to large."""
    numbers = rng.sample(range(1, 60), 3)
    right = sorted(numbers)
    wrong = right[::-1] if numbers == right else numbers
    asked = ", ".join(map(str, numbers))
    return Question(f"Sort these numbers from small to large: {asked}.", ", ".join(map(str, right)),
                    (", ".join(map(str, wrong)),))  # fmt: skip


def facts(rng: random.Random) -> Question:
    """Statements about the world, true or false."""
    true = rng.random() < 0.5
    statement = rng.choice(TRUE if true else FALSE)
    return Question(f"Is this true? {statement}", *(("yes", ("no",)) if true else ("no", ("yes",))))


def capitals(rng: random.Random) -> Question:
    """Capital cities among those of other countries."""
    country, city = rng.choice(list(CAPITALS.items()))
    others = rng.sample([other for other in CAPITALS.values() if other != city], 2)
    return Question(f"What is the capital of {country}?", city, tuple(others))


def sentiment(rng: random.Random) -> Question:
    """The mood of a sentence."""
    good = rng.random() < 0.5
    text = f"The {rng.choice(THINGS)} was {rng.choice(LIKED if good else DULL)}."
    asked = f'Does the writer of "{text}" sound pleased or disappointed?'
    return Question(asked, *(("pleased", ("disappointed",)) if good else ("disappointed", ("pleased",))))


def grammar(rng: random.Random) -> Question:
    """The form of a verb that agrees with its subject."""
    subject, right, wrong = rng.choice(AGREEMENTS)
    return Question(f'Which word fits: "{subject} ..."?', right, (wrong,))


def opposites(rng: random.Random) -> Question:
    """The opposite of a word."""
    pair, other = rng.sample(OPPOSITES, 2)
    word, right = rng.sample(pair, 2)
    return Question(f"What is the opposite of {word}?", right, (rng.choice(other),))


KINDS: dict[str, Callable[[random.Random], Question]] = {
    "arithmetic": arithmetic,
    "reversing": reversing,
    "sorting": sorting,
    "facts": facts,
    "capitals": capitals,
    "sentiment": sentiment,
    "grammar": grammar,
    "opposites": opposites,
}


def probes(seed: int, count: int) -> list[dict[str, Any]]:
    """Return at most `count` different examples of each kind: id, probe, question, options and answer."""
    return [row for kind in KINDS for row in _rows(kind, seed, count)]


def _rows(kind: str, seed: int, count: int) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for i in range(3 * count):  # some kinds have few questions: what comes again is left out
        rng = random.Random(f"{seed}/{kind}/{i}")
        question, answer, wrong = KINDS[kind](rng)
        options = rng.sample((answer, *wrong), 1 + len(wrong))
        row = {"id": f"{kind}-{seed}-{i}", "probe": kind, "question": question, "options": options, "answer": answer}
        rows.setdefault(question, row)
        if len(rows) == count:
            break
    return list(rows.values())
