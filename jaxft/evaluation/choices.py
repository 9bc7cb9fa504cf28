"""Choosing among given answers by their likelihood, which is how multiple-choice tasks score a model.

The score of an answer is the log-probability of its tokens after the prompt, without an end token: `log p`. By "sum" it
is taken as it is (lm-eval's `acc`), by "token" and by "byte" it is divided by the answer's length (the latter is
lm-eval's `acc_norm`), so that long answers are not at a disadvantage. The default is "sum": the probabilities, which
are the softmax of the scores over the answers, are then those of the model's given that it writes one of them.

>>> best, probabilities = chosen(np.log([0.2, 0.1]), ["no", "certainly"], [1, 3])
>>> best, [round(one, 3) for one in probabilities]
(0, [0.667, 0.333])
>>> chosen(np.log([0.2, 0.1]), ["no", "certainly"], [1, 3], by="token").best
1
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxft.data import Encoded
from jaxft.errors import UsageError, nearest
from jaxft.evaluation.answers import Answers

Done = Callable[[Sequence[int], int], None]
By = Literal["sum", "token", "byte"]
BY = ("sum", "token", "byte")


class Choice(NamedTuple):
    """The best answer's number, and the probability of each among them."""

    best: int
    probabilities: tuple[float, ...]


def is_ranked(example: Encoded) -> bool:
    """Say whether an example is answered by choosing: its first reference is one of its choices."""
    return bool(example.choices) and bool(example.references) and example.references[0] in example.choices


def rank(
    model: Any,
    variables: Any,
    examples: Sequence[Encoded],
    *,
    by: By = "sum",
    batch_size: int = 16,
    answers: Answers | None = None,
    done: Done | None = None,
) -> list[Choice]:
    """Return what the model chooses in each example among its `choices`.

    The choices of an example, and examples that are the same, share what they have in common (see
    `jaxft.generation.likelihood`). What `answers` has is not computed again; each batch is added to it. `done` is
    called with the numbers of the examples that a batch has completed, and of their tokens (0: they were known).
    """
    check_by(by)
    tokens = [choice_tokens(model, example) for example in examples]
    answers = answers if answers is not None else Answers(None, {})
    sums = _log_likelihoods(model, variables, examples, tokens, batch_size, answers, done)
    return [
        chosen(found, example.choices, [len(ids) for ids in own], by)
        for found, example, own in zip(sums, examples, tokens, strict=True)
    ]


def chosen(log_likelihoods: Sequence[float], choices: Sequence[str], tokens: Sequence[int], by: By = "sum") -> Choice:
    """Return the choice that log-likelihoods make; `tokens` are the numbers of tokens of each."""
    lengths = {"sum": [1] * len(choices), "token": tokens, "byte": [max(1, len(c.encode())) for c in choices]}[by]
    scores = np.asarray(log_likelihoods, np.float64) / np.asarray(lengths)
    weights = np.exp(scores - scores.max())
    return Choice(int(scores.argmax()), tuple((weights / weights.sum()).tolist()))


def check_by(by: str) -> None:
    """Raise UsageError for a way to compare choices that does not exist."""
    if by not in BY:
        raise UsageError(f"choices are compared by {', '.join(BY)}, not by {by!r}{nearest(by, BY)}")


def choice_tokens(model: Any, example: Encoded) -> list[list[int]]:
    """Return the ids of an example's choices: those that were encoded with it, else of the texts after a space."""
    if example.choice_tokens:
        return [list(ids) for ids in example.choice_tokens]
    lead = "" if hasattr(model.config, "decoder_start_token_id") else " "
    return model.tokenizer([lead + choice for choice in example.choices], add_special_tokens=False)["input_ids"]


def _log_likelihoods(model, variables, examples, tokens, batch_size, answers, done) -> list[list[float]]:
    from jaxft.generation.likelihood import stream

    keys = [Answers.key("choices", one.prompt, ids) for one, ids in zip(examples, tokens, strict=True)]
    requests = [(i, c) for i, ids in enumerate(tokens) for c in range(len(ids))]
    known = {number for number, (i, _) in enumerate(requests) if keys[i] in answers}
    there = {i for i, key in enumerate(keys) if key in answers}
    if done and there:
        done(sorted(there), 0)
    found = [[None] * len(ids) for ids in tokens]
    prompts = [example.prompt.tolist() for example in examples]
    given, wanted = [prompts[i] for i, _ in requests], [tokens[i][c] for i, c in requests]
    for batch in stream(model, variables, given, wanted, batch_size=batch_size, known=known):
        touched = dict.fromkeys(requests[number][0] for number in batch.requests)
        for number, value in zip(batch.requests, batch.sums.tolist(), strict=True):
            i, c = requests[number]
            found[i][c] = value
        complete = [i for i in touched if None not in found[i] and i not in there]
        answers.add_all((keys[i], found[i]) for i in complete)
        if done:
            done(complete, sum(len(prompts[i]) + sum(map(len, tokens[i])) for i in complete))
    return [answers[key] for key in keys]
