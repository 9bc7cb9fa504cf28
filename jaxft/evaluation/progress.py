"""What a person sees while examples are answered: how many, how fast, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from jaxft.data import Encoded


class Answering:
    """Counts answered examples, as `jaxft.evaluation.tasks.answer` reports them; `note` prints a line now and then.

    The time left is by tokens of prompts and choices, for the longest examples come first.
    """

    def __init__(self, examples: Sequence[Encoded], note: Callable[[str], None], seconds: float = 10.0):
        self._sizes = [len(one.prompt) + sum(map(len, one.choice_tokens)) for one in examples]
        self._note, self._every = note, seconds
        self._began = self._printed = time.perf_counter()
        self.count = self.tokens = self._left = 0
        self._left = sum(self._sizes)
        self._read = 0

    def __call__(self, places: Sequence[int], tokens: int) -> None:
        """Count examples that have been answered, at a cost of so many tokens (0: they were known)."""
        now, size = time.perf_counter(), sum(self._sizes[i] for i in places)
        self.count += len(places)
        self._left -= size
        if not tokens and places:
            self._note(f"{len(places):,} of {len(self._sizes):,} examples have been answered before")
            return
        self.tokens += tokens
        self._read += size
        if now - self._printed >= self._every and self._read:
            self._printed, gone = now, now - self._began
            left = _time(gone / self._read * self._left)
            self._note(
                f"{self.count:,} of {len(self._sizes):,} examples, {self.tokens / gone:,.0f} tokens/s, {left} left"
            )


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
