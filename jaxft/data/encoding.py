"""Encoding: rendered examples to token ids, with everything that was cut or left out counted.

A decoder-only example is `tokens(prompt) + tokens(completion) + eos`; an encoder-decoder one feeds `tokens(prompt)` to
the encoder and learns `tokens(completion) + eos`. Prompt and completion are tokenised apart, so that generation sees
exactly the prompt ids of training.

Long examples (`on_long`): "error" refuses, "skip" leaves them out, "truncate" cuts. A completion is cut on the right
and loses its end token, so that the model does not learn to stop in mid-sentence; a prompt loses its *middle*, so that
the start token, the instruction before the text and the words before the answer all stay. Where scores are compared,
set `max_prompt`: without it, a decoder-only prompt is cut by as much as its own completion needs.

    examples, report = encode(rows, format, tokenizer, max_length=512, on_long="truncate")
    print(report)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxft.data.cleaning import distinct
from jaxft.data.rows import Rows
from jaxft.data.templates import AbsentField, BadRow, Format, Rendered, render
from jaxft.data.tokens import Tokens, encode_texts
from jaxft.errors import UsageError, nearest


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One example: int32 ids of the prompt, and of the completion with its end token; what it is scored against.

    `task` and `template` say where it comes from, `choices` the answers that there are, `choice_tokens` their ids as
    the completion writes them, without an end token. `metrics` and `stop` are the task's. `counted` (bool, as long as
    the completion) marks the tokens that are learnt, where not all are: of a conversation the assistant's turns.
    """

    id: str
    prompt: np.ndarray
    completion: np.ndarray
    references: tuple[str, ...] = ()
    task: str = ""
    template: str = ""
    choices: tuple[str, ...] = ()
    counted: np.ndarray | None = None
    choice_tokens: tuple[tuple[int, ...], ...] = ()
    metrics: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class EncodeReport:
    """What became of the rows of a split; `first_bad` and `first_long` name a place and a reason."""

    rows: int
    examples: int
    bad_rows: int
    skipped: int
    truncated_prompts: int
    truncated_completions: int
    mean_prompt: float
    max_prompt: int
    mean_completion: float
    max_completion: int
    first_bad: str = ""
    first_long: str = ""
    dropped_shots: int = 0
    repeats: int = 0

    def __str__(self) -> str:
        text = (
            f"{self.examples} examples; tokens in the prompt: mean {self.mean_prompt:.0f}, max {self.max_prompt}; "
            f"in the completion: mean {self.mean_completion:.0f}, max {self.max_completion}"
        )
        if self.truncated_prompts or self.truncated_completions:
            text += f"; cut {self.truncated_prompts} prompts and {self.truncated_completions} completions"
        if self.dropped_shots:
            text += f"; left out {self.dropped_shots} worked examples that did not fit or were not there"
        if self.repeats:
            text += f"; left out {self.repeats} that repeat others"
        if self.skipped:
            text += f"; left out {self.skipped} too long"
        if self.first_long:
            text += f" (first: {self.first_long})"
        return text + (f"; left out {self.bad_rows} bad rows (first: {self.first_bad})" if self.bad_rows else "")


def encode(
    rows: Rows | Sequence[Mapping[str, Any]],
    format: Format,
    tokenizer: Any,
    *,
    max_length: int,
    max_prompt: int | None = None,
    max_completion: int | None = None,
    encoder_decoder: bool = False,
    on_long: str = "error",
    on_bad: str = "error",
    eos_token_ids: Sequence[int] = (),
    deduplicate: float | None = None,
) -> tuple[list[Encoded], EncodeReport]:
    """Return the encoded examples of a split, in order, and the report of what was cut or left out.

    `max_length` bounds prompt + completion (decoder-only) or each of the two (encoder-decoder); `max_prompt` and
    `max_completion` bound them further. `on_long` is "error", "skip" or "truncate"; `on_bad`, for a null or empty
    prompt or completion, "error" or "skip". `eos_token_ids`: the model's end tokens beside the tokenizer's own.
    `deduplicate` leaves out rows that are so similar to an earlier one, or for 1 the same (`jaxft.data.cleaning`).
    """
    limits = Limits(max_length, max_prompt, max_completion, encoder_decoder)
    limits.check(on_long, on_bad)
    rows, repeats = distinct(rows if isinstance(rows, Rows) else Rows(rows), deduplicate)
    rendered, bad = render_rows(rows, lambda i: render(format, rows[i]))
    tokens = encode_texts([r for _, r in rendered], tokenizer, format.chat, encoder_decoder, eos_token_ids)
    encoded, report = encode_rendered(rows, rendered, tokens, limits, bad=bad, on_long=on_long, on_bad=on_bad)
    return encoded, dataclasses.replace(report, repeats=repeats)


def encode_rendered(
    rows: Rows,
    rendered: Sequence[tuple[int, Rendered]],
    tokens: Sequence[Tokens],
    limits: Limits,
    *,
    bad: Sequence[tuple[int, str]] = (),
    on_long: str = "error",
    on_bad: str = "error",
) -> tuple[list[Encoded], EncodeReport]:
    """Return what `encode` does, of rows that have been rendered and tokenised.

    `rendered` pairs a row's position with its texts, `bad` with what is the matter with it; `tokens` are those of
    `rendered`, as `encode_texts` makes them.
    """
    bad = [*bad, *((i, "the completion has no tokens") for (i, _), t in zip(rendered, tokens, strict=True)
                   if not t.completion)]  # fmt: skip
    if bad and on_bad == "error":
        where = f"{len(bad)} of {len(rows)} rows are bad (first: {_first(rows, bad)})"
        raise UsageError(f"{where}; mend them, or set on_bad to 'skip'")
    examples: list[Encoded] = []
    long: _Noted = []
    cuts = np.zeros(2, int)
    for (i, text), one in zip(rendered, tokens, strict=True):
        sizes = len(one.prompt), len(one.completion)
        room = limits.room(*sizes)
        if room != sizes:
            long.append((i, f"{sizes[0]} prompt and {sizes[1]} completion tokens"))
        if one.completion and (room == sizes or on_long == "truncate"):
            example = _encoded(rows.id(i), text, one, room)
            if example.counted is None or example.counted.any():
                cuts += np.less(room, sizes)
                examples.append(example)
    if long and on_long == "error":
        where = f"{len(long)} of {len(rows)} examples are too long for {limits} (first: {_first(rows, long)})"
        raise UsageError(f"{where}; raise the limit, or set on_long to 'truncate' or 'skip'")
    if not examples:
        raise UsageError(f"no example is left of {len(rows)} rows: {len(bad)} bad, {len(long)} too long")
    report = _report(examples, len(rows), len(bad), len(rows) - len(bad) - len(examples), cuts)
    return examples, dataclasses.replace(report, first_bad=_first(rows, bad), first_long=_first(rows, long))


def _encoded(name: str, text: Rendered, tokens: Tokens, room: tuple[int, int]) -> Encoded:
    return Encoded(
        id=name,
        prompt=np.array(_cut_middle(tokens.prompt, room[0]), np.int32),
        completion=np.array(tokens.completion[: room[1]], np.int32),
        references=tuple(reference.strip() for reference in text.references),
        task=text.task,
        template=text.template,
        choices=text.choices,
        counted=None if tokens.counted is None else np.array(tokens.counted[: room[1]], bool),
        choice_tokens=tokens.choices,
    )


_Noted = list[tuple[int, str]]  # (position of a row, what is the matter with it)


class Limits(NamedTuple):
    """Bounds in tokens: of prompt + completion (encoder-decoder: of each), and of each alone."""

    length: int
    prompt: int | None
    completion: int | None
    encoder_decoder: bool

    def __str__(self) -> str:
        return ", ".join(f"{name} {bound}" for name, bound in self.bounds().items() if bound)

    def bounds(self) -> dict[str, int | None]:
        return {"max_length": self.length, "max_prompt": self.prompt, "max_completion": self.completion}

    def check(self, on_long: str, on_bad: str) -> None:
        """Raise UsageError for a bound or a policy that makes no sense."""
        policies = {"on_long": (on_long, ("error", "skip", "truncate")), "on_bad": (on_bad, ("error", "skip"))}
        for name, (value, known) in policies.items():
            if value not in known:
                raise UsageError(f"{name}: unknown policy {value!r}{nearest(value, known)}")
        for name, bound in self.bounds().items():
            if bound is not None and bound < 2:
                raise UsageError(f"{name}: {bound} leaves no room; use at least 2")

    def room(self, prompt: int, completion: int) -> tuple[int, int]:
        """Return how many tokens of a prompt and a completion may stay."""
        prompt = min(prompt, self.prompt or self.length, self.length)
        completion = min(completion, self.completion or self.length, self.length)
        if not self.encoder_decoder and prompt + completion > self.length:
            # The completion is what is learnt: it may take half of the length before it is cut.
            completion = min(completion, max(self.length // 2, self.length - prompt))
            prompt = self.length - completion
        return prompt, completion


def render_rows(rows: Rows, render_row: Callable[[int], Rendered]) -> tuple[list[tuple[int, Rendered]], _Noted]:
    """Return what `render_row` makes of each position, and the positions of bad rows with what is the matter.

    A field that a row lacks and others have makes it a bad row; one that none has is the template's fault: UsageError.
    """
    rendered: list[tuple[int, Rendered]] = []
    bad: _Noted = []
    columns: set[str] = set()
    for i in range(len(rows)):
        try:
            rendered.append((i, render_row(i)))
        except BadRow as error:
            bad.append((i, str(error)))
        except AbsentField as error:
            columns = columns or set().union(*rows)
            if error.field not in columns:
                raise
            bad.append((i, f"the field {error.field!r} is missing"))
        except UsageError as error:
            raise UsageError(f"{rows.place(i)}: {error}") from None
    return rendered, bad


def _cut_middle(ids: list[int], size: int) -> list[int]:
    head = size // 2
    return ids if len(ids) <= size else ids[:head] + ids[len(ids) - (size - head) :]


def _first(rows: Rows, noted: Sequence[tuple[int, str]]) -> str:
    if not noted:
        return ""
    i, matter = min(noted)
    return f"{rows.place(i)}, {matter}"


def _report(examples: Sequence[Encoded], rows: int, bad_rows: int, skipped: int, cuts: np.ndarray) -> EncodeReport:
    prompts = [len(example.prompt) for example in examples]
    completions = [len(example.completion) for example in examples]
    return EncodeReport(
        rows=rows,
        examples=len(examples),
        bad_rows=bad_rows,
        skipped=skipped,
        truncated_prompts=int(cuts[0]),
        truncated_completions=int(cuts[1]),
        mean_prompt=sum(prompts) / len(prompts),
        max_prompt=max(prompts),
        mean_completion=sum(completions) / len(completions),
        max_completion=max(completions),
    )
