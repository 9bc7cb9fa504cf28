"""What a run's model is worth: its loss and the scores of its texts, over all examples and task by task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxft.data import Batches, Encoded
from jaxft.data.grouping import by_task
from jaxft.errors import UsageError
from jaxft.evaluation.answers import Answers
from jaxft.evaluation.choices import Done
from jaxft.evaluation.metrics import Score, measure, values
from jaxft.evaluation.resampling import RESAMPLES
from jaxft.evaluation.statistics import compare_all
from jaxft.evaluation.tasks import Given, answer, check_scoring, score_given
from jaxft.models import Model
from jaxft.recipe import Recipe
from jaxft.runs.folder import SUMMARY_VERSION, known_predictions
from jaxft.runs.parts import Parts, in_order
from jaxft.training.journal import write_lines

_FEW_BATCHES = 8


class Scores(NamedTuple):
    """Numbers over all examples, by task (where examples have one), and how they were made.

    `measured` and `measured_tasks` are the same with n, intervals and what they are compared by; `measured_templates`
    are of each task's phrasings.
    """

    values: dict[str, float]
    tasks: dict[str, dict[str, float]]
    provenance: dict[str, str] = {}  # noqa: RUF012 (never changed)
    measured: dict[str, Score] = {}  # noqa: RUF012 (never changed)
    measured_tasks: dict[str, dict[str, Score]] = {}  # noqa: RUF012 (never changed)
    measured_templates: dict[str, dict[str, dict[str, Score]]] = {}  # noqa: RUF012 (never changed)

    def beside(self, other: Scores) -> Scores:
        """Return these numbers and the other ones."""
        return Scores(
            {**self.values, **other.values},
            _merged(self.tasks, other.tasks),
            {**self.provenance, **other.provenance},
            {**self.measured, **other.measured},
            _merged(self.measured_tasks, other.measured_tasks),
            self.measured_templates | other.measured_templates,
        )

    def row(self, prefix: str) -> dict[str, Any]:
        """Return what a line of metrics.jsonl holds, each name after `prefix`."""
        row: dict[str, Any] = {f"{prefix}{name}": value for name, value in self.values.items()}
        if self.tasks:
            row["tasks"] = {
                task: {f"{prefix}{name}": value for name, value in found.items()} for task, found in self.tasks.items()
            }
        return row


def evidence(before: Scores, after: Scores) -> dict[str, Any]:
    """Return what summary.json holds beside the numbers: n, intervals, and whether what changed stands."""
    compared = compare_all(after.measured, before.measured)
    return {
        "version": SUMMARY_VERSION,
        "n": max((one.n for one in after.measured.values()), default=0),
        "intervals": {"before": intervals(before.measured), "after": intervals(after.measured)},
        "comparison": {name: one.to_dict() for name, one in compared.items()},
    }


def task_evidence(before: Scores, after: Scores) -> dict[str, dict[str, Any]]:
    """Return `evidence` of each task; p-values are adjusted (Holm) over the tasks, metric by metric."""
    both = {task: before.measured_tasks.get(task, {}) for task in after.measured_tasks}
    pairs = {(name, task): one for task, found in after.measured_tasks.items() for name, one in found.items()}
    compared: dict[str, dict[str, Any]] = {task: {} for task in both}
    for metric in dict.fromkeys(name for name, _ in pairs):
        tasks = [task for name, task in pairs if name == metric and metric in both[task]]
        found = compare_all({task: pairs[metric, task] for task in tasks}, {task: both[task][metric] for task in tasks})
        for task, one in found.items():
            compared[task][metric] = one.to_dict()
    return {
        task: {
            "n": max((one.n for one in after.measured_tasks[task].values()), default=0),
            "intervals": {"before": intervals(both[task]), "after": intervals(after.measured_tasks[task])},
            "comparison": compared[task],
            "templates": {"before": phrasings(before, task), "after": phrasings(after, task)},
        }
        for task in both
    }


def phrasings(scores: Scores, task: str) -> dict[str, dict[str, Any]]:
    """Return the scores of each of a task's phrasings: n, and value, low and high of each metric."""
    return {
        template: {
            "n": max((one.n for one in found.values()), default=0),
            "scores": {name: one.to_dict() for name, one in found.items()},
        }
        for template, found in scores.measured_templates.get(task, {}).items()
    }


def intervals(measured: Mapping[str, Score]) -> dict[str, list[float]]:
    """Return [low, high] of each score that has an interval."""
    return {name: list(one.interval) for name, one in measured.items() if one.interval is not None}


def scored(parts: Parts) -> list[Encoded]:
    """Return the examples that a run is scored on: the test split, or else the validation split."""
    return parts.examples.get("test") or parts.examples.get("validation") or []


def predictions(
    recipe: Recipe,
    parts: Parts,
    variables: Any,
    examples: Sequence[Encoded],
    answers: Answers | None = None,
    done: Done | None = None,
) -> list[Given]:
    """Return what the model says to the examples: the texts that it writes, or the choices that it makes."""
    settings = dataclasses.asdict(recipe.generate)
    by = recipe.evaluate.choices_by
    return answer(parts.model, variables, examples, settings, answers=answers, key=parts.key, by=by, done=done)


def loss_scores(
    model: Model, examples: Sequence[Encoded], batch_size: int, total_of: Callable[[Batches], Any]
) -> Scores:
    """Return the mean loss of the examples' target tokens; `total_of` says their sum and number, in all or [B, 2].

    Batches are what is resampled for its interval: fewer than eight give none.
    """
    shapes = in_order(model, examples, batch_size).shapes  # the same for each task: programs are compiled once
    parts: dict[str, Score] = {}
    rows = []
    for name, places in (by_task(examples) or {"": list(range(len(examples)))}).items():
        batches = in_order(model, [examples[i] for i in places], batch_size, shapes)
        rows.append(np.atleast_2d(np.asarray(total_of(batches), np.float64)))
        parts[name] = _loss_score(rows[-1], len(places))
    whole = _loss_score(np.concatenate(rows), len(examples))
    tasks = {name: {"loss": one} for name, one in parts.items() if name}
    return _scores({"loss": whole}, tasks)._replace(provenance={})


def text_scores(
    recipe: Recipe, examples: Sequence[Encoded], texts: Sequence[str | Given], resamples: int = RESAMPLES
) -> Scores:
    """Return what each task's own metrics, or the recipe's, say of the answers; `resamples=0`: without intervals."""
    options = recipe.evaluate
    given = [one if isinstance(one, Given) else Given(one) for one in texts]
    rules: dict[str, Any] = {name: getattr(options, name) for name in ("stemmer", "sentences", "words")}
    found = score_given(examples, given, options.metrics, resamples=resamples, **rules)
    return _scores(found.scores, found.tasks)._replace(measured_templates=found.templates)


def check_scorable(recipe: Recipe, examples: Sequence[Encoded]) -> None:
    """Raise UsageError where metrics cannot use the references of a task, or of all examples."""
    if not examples:
        return
    try:
        check_scoring(examples, recipe.evaluate.metrics)
    except UsageError as error:
        raise UsageError(f"evaluate.metrics: {error}") from None


def write_predictions(
    folder: Path, parts: Parts, before: Sequence[Given | None], after: Sequence[Given | None]
) -> None:
    """Replace predictions.jsonl by a line for each example that is scored."""
    rows = (
        {
            **named(example),
            "prompt": parts.model.tokenizer.decode(example.prompt.tolist()),
            "references": list(example.references),
            "before": one and one.text,
            "after": other and other.text,
            **_ranked(example, before=one, after=other),
        }
        for example, one, other in zip(scored(parts), before, after, strict=True)
    )
    write_lines(folder / "predictions.jsonl", rows)


def known_given(folder: Path, examples: Sequence[Encoded], when: str) -> list[Given | None]:
    """Return what predictions.jsonl holds of the examples `when`, "before" or "after"; None where it has nothing."""
    known = known_predictions(folder)
    rows = (known.get(example.id, {}) for example in examples)
    return [
        None if row.get(when) is None else Given(row[when], tuple(row.get("probabilities", {}).get(when) or ()))
        for row in rows
    ]


def named(example: Encoded) -> dict[str, str]:
    """Return the fields of a prediction that say of which example it is, and of which task and phrasing."""
    return {"id": example.id} | ({"task": example.task, "template": example.template} if example.task else {})


def _ranked(example: Encoded, **given: Given | None) -> dict[str, Any]:
    probabilities = {when: list(one.probabilities) for when, one in given.items() if one and one.probabilities}
    return {"choices": list(example.choices), "probabilities": probabilities} if probabilities else {}


def _scores(whole: Mapping[str, Score], tasks: Mapping[str, Mapping[str, Score]]) -> Scores:
    return Scores(
        values(whole),
        {name: values(found) for name, found in tasks.items()},
        {name: one.provenance for name, one in whole.items()},
        dict(whole),
        {name: dict(found) for name, found in tasks.items()},
    )


def _loss_score(rows: np.ndarray, n: int) -> Score:
    few = len(rows) < _FEW_BATCHES
    one = measure(rows, "mean over target tokens|resampled by batch", _ratio, resamples=0 if few else RESAMPLES)
    return one._replace(n=n, rows=None if few else one.rows)


def _ratio(sums: np.ndarray, n: int) -> np.ndarray:
    return sums[:, 0] / sums[:, 1]


def _merged(one: Mapping[str, dict[str, Any]], other: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {**one.get(name, {}), **other.get(name, {})} for name in {**one, **other}}
