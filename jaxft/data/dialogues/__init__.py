"""Dialogues and their summaries, made up here: the data of `jaxft quickstart`, and of tests.

Two people arrange something: a scene draws who, what, when and why, lets them talk (with small talk, changes of mind
and corrections), and tells the outcome in one or two sentences of a fixed style. What is agreed is spread over several
turns and said in the first person, so copying any of them is a poor summary.

>>> example = dialogues(seed=0, count=1)[0]
>>> sorted(example)
['dialogue', 'id', 'summary']

Example `i` depends on (seed, i) alone. No text of others is used.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

from jaxft.data.dialogues.affairs import AFFAIRS
from jaxft.data.dialogues.favours import FAVOURS
from jaxft.data.dialogues.occasions import OCCASIONS
from jaxft.data.dialogues.plans import PLANS
from jaxft.data.dialogues.talk import Talk
from jaxft.data.dialogues.troubles import TROUBLES

SCENES: tuple[Callable[[Talk], str], ...] = (*PLANS, *OCCASIONS, *FAVOURS, *TROUBLES, *AFFAIRS)
TURNS = range(6, 13)
WORDS = range(80, 161)


def dialogues(seed: int, count: int) -> list[dict[str, str]]:
    """Return `count` examples with the fields id, dialogue (a line `Name: text` per turn) and summary.

    Seeds give independent sets: train on one, test on another.
    """
    return [_example(seed, i) for i in range(count)]


def _example(seed: int, i: int) -> dict[str, str]:
    scene = random.Random(f"{seed}/{i}").choice(SCENES)
    for attempt in itertools.count():
        talk = Talk(random.Random(f"{seed}/{i}/{attempt}"))
        summary = scene(talk)
        text = "\n".join(f"{who}: {said}" for who, said in talk.turns)
        if len(talk.turns) in TURNS and len(text.split()) in WORDS:
            return {"id": f"{seed}-{i}", "dialogue": text, "summary": summary}
    raise AssertionError("unreachable")
