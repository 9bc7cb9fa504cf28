"""A conversation in the making: two people, the words their lines are filled with, and the turns so far.

talk.days("day")
talk.play('''
a: Shall we have lunch on {day}? | How about lunch on {day}?
b: With pleasure. | Gladly!
''')
return talk.tell("{a} and {b} will have lunch on {day}.")      # the summary
"""

from __future__ import annotations

import dataclasses
import random
import re
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
    def He(self) -> str:
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

    def staff(self, title: str) -> None:
        """Make the second person one without a name, such as a clerk."""
        self.b = Person(title, "they", "them", "their")
        self.set(b=self.b)

    def pick(self, choices: Sequence[T]) -> T:
        """Draw one of `choices`."""
        return self.rng.choice(choices)

    def chance(self, probability: float) -> bool:
        """Draw whether something happens."""
        return self.rng.random() < probability

    def set(self, **words: Any) -> None:
        """Set words that lines may name."""
        self.words |= words

    def days(self, *names: str, ordered: bool = False) -> None:
        """Set different days of the week, one for each name; on request in the week's order."""
        picked = self.rng.sample(range(len(DAYS)), len(names))
        self.set(**{name: DAYS[i] for name, i in zip(names, sorted(picked) if ordered else picked, strict=True)})

    def hours(self, *names: str, among: Sequence[str] = EVENINGS) -> None:
        """Set different hours, in order of the clock, one for each name."""
        picked = sorted(self.rng.sample(range(len(among)), len(names)))
        self.set(**{name: among[i] for name, i in zip(names, picked, strict=True)})

    def busy(self, said: str, told: str, who: Person) -> None:
        """Set an excuse: how `who` says it, and how it is told about them."""
        first, third = self.pick([pair for pair in BUSY if pair[0] not in self.words.values()])
        self.set(**{said: first, told: third.format(x=who)})

    def tell(self, text: str) -> str:
        """Return a text filled in, on one line, each sentence with a capital."""
        filled = re.sub(r"\ba (?=[aeiou])", "an ", " ".join(text.format(**self.words).split()))
        return _SENTENCE.sub(lambda match: match[0].upper(), filled)

    def play(self, script: str) -> None:
        """Let the two talk: each line of the script says who (`a:` or `b:`) and, between bars, in which ways."""
        for line in re.split(r"^ *(?=[ab]: )", script.strip(), flags=re.MULTILINE):
            if line:
                who, variants = line[0], " ".join(line[2:].split())
                self._say(str(self.words[who]), self.tell(self.pick(variants.split(" | "))))

    def greet(self, chat: float = 0.7) -> None:
        """Let the first person say hello, often with some small talk, and come to the point."""
        self._say(str(self.a), self.pick(GREETINGS).format(y=self.b))
        if self.chance(chat):
            self.chat()
            if turning := self.pick(TURNING):
                self._say(str(self.a), turning)

    def chat(self) -> None:
        """Add a remark of the first person and the second's answer that have nothing to do with the matter."""
        remark, answer = self._small_talk.pop()
        self._say(str(self.a), remark)
        self._say(str(self.b), answer)

    def part(self) -> None:
        """Let them say goodbye, whoever did not speak last beginning."""
        pair = (self.a, self.b) if self.turns[-1][0] == str(self.b) else (self.b, self.a)
        for who, other, text in zip(pair, pair[::-1], self.pick(CLOSINGS), strict=True):
            self._say(str(who), text.format(y=other))

    def _say(self, who: str, text: str) -> None:
        if self.turns and self.turns[-1][0] == who:
            said = self.turns.pop()[1]
            first = re.split(r"\W", text)[0]
            if said.endswith(",") and first not in _CAPITALS:
                text = text[0].lower() + text[1:]
            text = f"{said} {text}"
        self.turns.append((who, text))


_SENTENCE = re.compile(r"(?:^|(?<=[.!?] ))[a-zé]")
_CAPITALS = {"I", *WOMEN, *MEN, *DAYS}
