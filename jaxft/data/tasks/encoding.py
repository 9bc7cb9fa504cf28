"""Tasks to token ids: `jaxft.data.encoding` for rendered examples, and worked examples that have to fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxft.data.chat import plain_prompt
from jaxft.data.cleaning import distinct
from jaxft.data.encoding import Encoded, EncodeReport, Limits, encode_rendered, render_rows
from jaxft.data.rows import Rows
from jaxft.data.sources import split_name
from jaxft.data.tasks.rendering import Example, Renderer, follow
from jaxft.data.tasks.task import Task
from jaxft.data.templates import Rendered
from jaxft.data.tokens import Tokens, encode_texts


def encode_task(
    task: Task,
    split: str,
    tokenizer: Any,
    *,
    max_length: int,
    max_prompt: int | None = None,
    max_completion: int | None = None,
    encoder_decoder: bool = False,
    chat: bool = False,
    seed: int = 0,
    shots: int | Mapping[int, float] = 0,
    rationale: bool | float = False,
    held_out: bool = False,
    pool: Rows | None = None,
    limit: int | None = None,
    on_long: str = "error",
    on_bad: str = "error",
    eos_token_ids: Sequence[int] = (),
    deduplicate: float | None = None,
) -> tuple[list[Encoded], EncodeReport]:
    """Return the encoded examples of a task's split, in order, and the report of what was cut or left out.

    Limits and policies are those of `jaxft.data.encode`, the rest those of `render_task`. Worked examples that do not
    fit into the prompt are left out from the last one on; these, and those of a task that has no rows for them, are
    counted (`dropped_shots`). Of conversations the training
    split learns every turn of the assistant (decoder-only); other splits have the last one as what is to be written.
    """
    limits = Limits(max_length, max_prompt, max_completion, encoder_decoder)
    limits.check(on_long, on_bad)
    rows, repeats = distinct(task.rows(split, limit, on_bad="skip"), deduplicate)
    renderer = Renderer.of(task, seed, shots, rationale, held_out, pool, lenient=True)
    examples: dict[int, Example] = {}

    def render_row(i: int) -> Rendered:
        examples[i] = renderer.example(rows, i)
        return examples[i].joined()

    rendered, bad = render_rows(rows, render_row)

    def tokens_of(positions: Sequence[int], counts: Mapping[int, int]) -> list[Tokens]:
        texts = [examples[i].joined(counts[i]) for i in positions]
        texts = texts if chat or encoder_decoder else [_spaced(text) for text in texts]
        every_turn = split_name(split) == "train"
        return encode_texts(texts, tokenizer, chat, encoder_decoder, eos_token_ids, every_turn)

    # A worked example is left out from the end until the prompt fits.
    counts = {i: len(examples[i].shots) for i, _ in rendered}
    tokens = dict(zip(counts, tokens_of(list(counts), counts), strict=True))
    while too_long := [i for i, one in tokens.items() if counts[i] and _too_long(one, limits)]:
        counts |= {i: counts[i] - 1 for i in too_long}
        tokens |= dict(zip(too_long, tokens_of(too_long, counts), strict=True))
    dropped = sum(examples[i].wanted - count for i, count in counts.items())
    encoded, report = encode_rendered(
        rows, rendered, [tokens[i] for i in counts], limits, bad=bad, on_long=on_long, on_bad=on_bad
    )
    encoded = [dataclasses.replace(example, metrics=task.metrics, stop=task.stop) for example in encoded]
    return encoded, dataclasses.replace(report, dropped_shots=dropped, repeats=repeats)


def _too_long(tokens: Tokens, limits: Limits) -> bool:
    prompt, completion = len(tokens.prompt), len(tokens.completion)
    return limits.room(prompt, completion)[0] < prompt


def _spaced(text: Rendered) -> Rendered:
    # Without a chat template nothing but their own text separates the prompt and what follows it.
    prompt, first = follow(plain_prompt(text.prompt, text.system, text.turns), text.references[0])
    if text.turns:
        return text._replace(references=(first, *text.references[1:]))
    return text._replace(prompt=prompt, system=None, references=(first, *text.references[1:]))
