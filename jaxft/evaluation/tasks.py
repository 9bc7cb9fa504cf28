"""A task's own score: choices are ranked by their likelihood, other answers generated, cut at its stops, and measured.

    found = evaluate_examples(model, variables, examples, settings={"max_new_tokens": 32})
    found.scores["accuracy"], found.tasks["glue/rte"], found.templates["glue/rte"]["follows"]

Examples say themselves how they are scored (`Encoded.choices`, `metrics`, `stop`: see `jaxft.data.tasks`). Those of
several tasks may come together: then `scores` holds what can be pooled over them, which is all that is a mean over
examples, and what has the same settings everywhere; the rest stands task by task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from jaxft.data import Encoded
from jaxft.errors import UsageError
from jaxft.evaluation.answers import Answers
from jaxft.evaluation.choices import By, Done, is_ranked, rank
from jaxft.evaluation.metrics import NUMBERS, ROUGE, Score, calibration, check_fit, check_metrics, measure, score
from jaxft.evaluation.resampling import RESAMPLES, mean

Part = tuple[list[int], dict[str, Score]]  # positions of examples, and their scores in that order


class Given(NamedTuple):
    """What a model says to an example; where it chose, the probability of each choice among them."""

    text: str
    probabilities: tuple[float, ...] = ()


class TaskScores(NamedTuple):
    """Scores over n examples, of each task and of each of its phrasings; `rows`: each example and its prediction."""

    n: int
    scores: dict[str, Score]
    rows: list[dict[str, Any]]
    tasks: dict[str, dict[str, Score]] = {}  # noqa: RUF012 (never changed)
    templates: dict[str, dict[str, dict[str, Score]]] = {}  # noqa: RUF012


def evaluate_examples(
    model: Any,
    variables: Any,
    examples: Sequence[Encoded],
    *,
    metrics: Sequence[str] | None = None,
    settings: Mapping[str, Any] = {},
    answers: Answers | None = None,
    key: jax.Array | None = None,
    by: By = "sum",
    done: Done | None = None,
    **options: Any,
) -> TaskScores:
    """Return what the model's answers to the examples are worth.

    Examples whose reference is one of their choices are ranked: accuracy, the task's metrics, and calibration of the
    choices' probabilities. To the others a text is generated: the task's metrics, or `metrics` (by default ROUGE) where
    it has none. `settings` are `generate`'s, `options` those of `jaxft.evaluation.metrics.score`; for the rest see
    `answer`. Raises UsageError for metrics that do not exist or do not fit, before anything is computed.
    """
    check_scoring(examples, metrics)
    given = answer(model, variables, examples, settings, answers=answers, key=key, by=by, done=done)
    return score_given(examples, given, metrics, **options)


def answer(
    model: Any,
    variables: Any,
    examples: Sequence[Encoded],
    settings: Mapping[str, Any],
    *,
    answers: Answers | None = None,
    key: jax.Array | None = None,
    by: By = "sum",
    done: Done | None = None,
) -> list[Given]:
    """Return what the model says to each example: the choice it makes (`by`, see `rank`), or the text it writes.

    What `answers` has is not computed again, and the rest is the same to the bit; each batch is added to it as it is
    there. `done` is called with the positions of each batch's examples and the number of their tokens, of prompts and
    of what was ranked or written (0: they were known). With a temperature `key` is needed.
    """
    ranked = [i for i, example in enumerate(examples) if is_ranked(example)]
    written = [i for i, example in enumerate(examples) if not is_ranked(example)]
    answers = answers if answers is not None else Answers(None, {})
    given: dict[int, Given] = {}
    if ranked:
        of_ranked = [examples[i] for i in ranked]
        chosen = rank(model, variables, of_ranked, by=by, batch_size=settings.get("batch_size", 16), answers=answers,
                      done=_at(done, ranked))  # fmt: skip
        for i, choice in zip(ranked, chosen, strict=True):
            given[i] = Given(examples[i].choices[choice.best], choice.probabilities)
    if written:
        of_written = [examples[i] for i in written]
        texts = _texts(model, variables, of_written, settings, answers, key, _at(done, written))
        given |= {i: Given(cut_at(text, examples[i].stop)) for i, text in zip(written, texts, strict=True)}
    return [given[i] for i in range(len(examples))]


def score_given(
    examples: Sequence[Encoded], given: Sequence[Given], metrics: Sequence[str] | None = None, **options: Any
) -> TaskScores:
    """Return the scores of answers that have been given; `options` are those of `jaxft.evaluation.metrics.score`."""
    parts = [
        (places, _measured([examples[i] for i in places], [given[i] for i in places], names, options))
        for (_, names, _), places in _alike(examples, metrics).items()
    ]
    resampling = {name: options[name] for name in ("resamples", "seed") if name in options}
    tasks: dict[str, dict[str, Score]] = {}
    templates: dict[str, dict[str, dict[str, Score]]] = {}
    for name, places in _places(examples, lambda example: example.task).items():
        if not name:
            continue
        tasks[name] = pooled(parts, places, **resampling)
        of_template = _places([examples[i] for i in places], lambda example: example.template)
        templates[name] = {one: pooled(parts, [places[i] for i in inside], **resampling)
                           for one, inside in of_template.items()}  # fmt: skip
    rows = [prediction_row(example, one) for example, one in zip(examples, given, strict=True)]
    return TaskScores(len(examples), pooled(parts, range(len(examples)), **resampling), rows, tasks, templates)


def check_scoring(examples: Sequence[Encoded], metrics: Sequence[str] | None = None) -> None:
    """Raise UsageError, naming the task, for metrics that do not exist or that its references do not fit."""
    if not examples:
        raise UsageError("there are no examples to score")
    for (task, names, _), places in _alike(examples, metrics).items():
        some = [examples[i] for i in places]
        try:
            check_metrics(names)
            check_fit([example.references for example in some], names, choices=[example.choices for example in some])
        except UsageError as error:
            raise UsageError(f"{task}: {error}" if task else str(error)) from None


def cut_at(text: str, stops: Sequence[str]) -> str:
    """Return a text up to the first of `stops`, without white space around; one before the answer begins ends nothing.

    >>> cut_at("\\n Paris\\nQ: And", ["\\n", "Q:"])
    'Paris'
    """
    text = text.strip()
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(ends)].strip() if ends else text


def pooled(parts: Sequence[Part], wanted: Sequence[int], *, resamples: int = RESAMPLES, seed: int = 0) -> dict:
    """Return the scores over the `wanted` examples of what can be pooled over the parts that have them."""
    inside = set(wanted)
    found: dict[str, list[tuple[list[int], Score]]] = {}
    for places, scores in parts:
        kept = [row for row, i in enumerate(places) if i in inside]
        for name, one in scores.items() if kept else ():
            if one.rows is not None:
                own = one if len(kept) == len(places) else one._replace(rows=one.rows[kept])
                found.setdefault(name, []).append(([places[row] for row in kept], own))
    return {name: _pooled(some, resamples, seed) for name, some in found.items() if _can_be_pooled(name, some)}


def _can_be_pooled(name: str, some: Sequence[tuple[list[int], Score]]) -> bool:
    scores = [one for _, one in some]
    if len(scores) == 1 or all(one.of is mean and one.rows is not None and one.rows.shape[1] == 1 for one in scores):
        return True
    # The numbers of two tasks have two scales: their correlation over both would be about that.
    return name not in NUMBERS and len({one.provenance for one in scores}) == 1


def _pooled(some: Sequence[tuple[list[int], Score]], resamples: int, seed: int) -> Score:
    first = some[0][1]
    rows = np.concatenate([cast(np.ndarray, one.rows) for _, one in some])
    if len(some) == 1 and len(rows) == first.n:  # the whole of one part
        return first
    rows = rows[np.argsort(np.concatenate([places for places, _ in some]), kind="stable")]
    provenance = " and ".join(dict.fromkeys(one.provenance for _, one in some))
    return measure(rows, provenance, first.of, whole=first.whole, resamples=resamples, seed=seed)


def _measured(
    examples: Sequence[Encoded], given: Sequence[Given], names: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Score]:
    texts, references = [one.text for one in given], [example.references for example in examples]
    scores = score(texts, references, names, choices=[example.choices for example in examples], **options)
    if not given[0].probabilities:
        return scores
    right = [example.choices.index(example.references[0]) for example in examples]
    resampling = {name: options[name] for name in ("resamples", "seed") if name in options}
    return scores | calibration([one.probabilities for one in given], right, **resampling)


def _alike(examples: Sequence[Encoded], metrics: Sequence[str] | None) -> dict[Any, list[int]]:
    """The positions of examples that are scored together: of one task, by the same metrics, ranked or not."""

    def kind(example: Encoded) -> tuple[str, tuple[str, ...], bool]:
        if is_ranked(example):
            return example.task, tuple(dict.fromkeys([*example.metrics, "accuracy"])), True
        return example.task, example.metrics or tuple(metrics or ROUGE), False

    return _places(examples, kind)


def _places(examples: Sequence[Encoded], kind: Callable[[Encoded], Any]) -> dict[Any, list[int]]:
    places: dict[Any, list[int]] = {}
    for i, example in enumerate(examples):
        places.setdefault(kind(example), []).append(i)
    return places


def _texts(model, variables, examples, settings, answers, key, done) -> list[str]:
    from jaxft.generation import Sampling
    from jaxft.generation.generate import decoded, stream

    settings = {"max_new_tokens": 64, "batch_size": 16, **settings}
    chosen = {name: value for name, value in settings.items() if name in Sampling._fields}
    lengths = {name: value for name, value in settings.items() if name not in Sampling._fields}
    sampling = Sampling(**chosen)
    drawn = [] if not sampling.temperature or key is None else jax.random.key_data(key).tolist()
    about = [sampling._asdict(), lengths["max_new_tokens"], drawn]
    # A row that is drawn depends on its number.
    keys = [Answers.key("text", one.prompt, about, i if drawn else 0) for i, one in enumerate(examples)]
    known = {i for i, one in enumerate(keys) if one in answers}
    if done and known:
        done(sorted(known), 0)
    prompts = [example.prompt.tolist() for example in examples]
    for batch in stream(model, variables, prompts, sampling, key=key, known=known, **cast(Any, lengths)):
        texts = decoded(model, batch.tokens)
        answers.add_all((keys[i], text) for i, text in zip(batch.prompts, texts, strict=True) if i not in known)
        if done:
            pairs = [(i, tokens) for i, tokens in zip(batch.prompts, batch.tokens, strict=True) if i not in known]
            done([i for i, _ in pairs], sum(len(prompts[i]) + len(tokens) for i, tokens in pairs))
    return [answers[one] for one in keys]


def _at(done: Done | None, places: Sequence[int]) -> Done | None:
    return None if done is None else lambda numbers, tokens: done([places[i] for i in numbers], tokens)


def prediction_row(example: Encoded, given: Given) -> dict[str, Any]:
    """Return what a file of predictions holds of an example."""
    row: dict[str, Any] = {"id": example.id}
    row |= {"task": example.task, "template": example.template} if example.task else {}
    row |= {"references": list(example.references), "prediction": given.text}
    if given.probabilities:
        row |= {"choices": list(example.choices), "probabilities": list(given.probabilities)}
    return row
