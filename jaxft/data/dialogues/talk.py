"""A conversation in the making: two people, the words their lines are filled with, and the turns so far.

    talk.a_says("Shall we {do} on {day}?", "How about we {do} on {day}?")   # one of them, drawn and filled in
    return talk.tell("{a} and {b} will {do} on {day}.")                        # the summary
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any, TypeVar

from jaxft.data.dialogues.words import (
    BUSY,
    CLOSINGS,
    DAYS,
    EVENINGS,
    GREETINGS,
    MEN,
    SMALL_TALK,
    TURNING,
    WOMEN,
)

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Person:
    """A name with its pronouns; a template writes `{a}`, `{a.He}`, `{a.his}`."""

    name: str
    he: str
    him: str
    his: str

    def __str__(self) -> str:
        return self.name

    @property
    def He(self) -> str:  # noqa: N802
        return self.he.capitalize()


class Talk:
    """The turns of one dialogue between `a` and `b`; `c` is somebody they talk about."""

    def __init__(self, rng: random.Random):
        women = [Person(name, "she", "her", "her") for name in WOMEN]
        men = [Person(name, "he", "him", "his") for name in MEN]
        self.rng = rng
        self.a, self.b, self.c = rng.sample(women + men, 3)
        self.words: dict[str, Any] = {"a": self.a, "b": self.b, "c": self.c}
        self.turns: list[tuple[str, str]] = []
        self._small_talk = rng.sample(SMALL_TALK, 3)

    def pick(self, choices: Sequence[T]) -> T:
        """Draw one of `choices`."""
        return self.rng.choice(choices)

    def chance(self, probability: float) -> bool:
        """Draw whether something happens."""
        return self.rng.random() < probability

    def set(self, **words: Any) -> None:
        """Set words that lines may name."""
        self.words |= words

    def days(self, *names: str) -> None:
        """Set different days of the week, one for each name."""
        self.set(**dict(zip(names, self.rng.sample(DAYS, len(names)), strict=True)))

    def hours(self, *names: str, among: Sequence[str] = EVENINGS) -> None:
        """Set different hours, in order of the clock, one for each name."""
        picked = sorted(self.rng.sample(range(len(among)), len(names)))
        self.set(**{name: among[i] for name, i in zip(names, picked, strict=True)})

    def busy(self, said: str, told: str, who: Person) -> None:
        """Set an excuse: how `who` says it, and how it is told about them."""
        first, third = self.pick([pair for pair in BUSY if pair[0] not in self.words.values()])
        self.set(**{said: first, told: third.format(x=who)})

    def tell(self, *variants: str) -> str:
        """Return one of the variants, filled in; a sentence begins with a capital."""
        text = self.pick(variants).format(**self.words)
        return text[0].upper() + text[1:]

    def a_says(self, *variants: str) -> None:
        """Add what the first person says; two turns of one person in a row become one."""
        self._say(str(self.words["a"]), self.tell(*variants))

    def b_says(self, *variants: str) -> None:
        """Add what the second person says."""
        self._say(str(self.words["b"]), self.tell(*variants))

    def greet(self, chat: float = 0.7) -> None:
        """Let the first person say hello, often with some small talk, and come to the point."""
        self._say(str(self.a), self.pick(GREETINGS).format(y=self.b))
        if self.chance(chat):
            self.chat()
            self._say(str(self.a), self.pick(TURNING))

    def chat(self) -> None:
        """Add a remark of the first person and the second's answer that have nothing to do with the matter."""
        remark, answer = self._small_talk.pop()
        self._say(str(self.a), remark)
        self._say(str(self.b), answer)

    def part(self) -> None:
        """Let them say goodbye, with the first person beginning."""
        first, second = self.pick(CLOSINGS)
        self._say(str(self.a), first.format(y=self.b))
        self._say(str(self.b), second)

    def _say(self, who: str, text: str) -> None:
        if not text:
            return
        if self.turns and self.turns[-1][0] == who:
            said = self.turns.pop()[1]
            lower = said.endswith(",") and not text.startswith(("I ", "I'"))
            text = f"{said} {text[0].lower() + text[1:] if lower and text.split()[0] not in _NAMES else text}"
        self.turns.append((who, text))


_NAMES = {*WOMEN, *MEN, *DAYS}
