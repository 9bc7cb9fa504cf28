"""The tasks of a recipe: which ones, the examples that they become, their mixture, and numbers task by task."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxft.data import Batches, Encoded, EncodeReport
from jaxft.data.grouping import by_task
from jaxft.data.mixture import Mixture
from jaxft.data.rows import Unusable
from jaxft.data.statistics import target_tokens
from jaxft.data.tasks import Task, encode_task, load_tasks, render_task
from jaxft.data.tasks.drawing import checked_rates
from jaxft.errors import UsageError, nearest
from jaxft.evaluation.metrics import check_metrics
from jaxft.models import Model
from jaxft.recipe import Recipe

SPLITS = ("train", "validation", "test")


class Chosen(NamedTuple):
    """A task that a recipe names; `limit` is by split."""

    task: Task
    weight: float
    limit: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class TaskRows:
    """A split of the tasks that have it: what stands for rows where a recipe names tasks."""

    split: str
    chosen: tuple[Chosen, ...]


def read_tasks(recipe: Recipe) -> dict[str, TaskRows]:
    """Return the splits of a recipe's tasks; UsageError for what cannot be used, seen in a first example of each.

    A task is in the splits that it has. One without a train split, or meant for evaluation only, is not trained on.
    """
    checked_rates("data.shots", recipe.data.shots)
    chosen = list(chosen_tasks(recipe, recipe.data.tasks, "data.tasks"))
    learnt = [one for one in chosen if _may_have(one.task, "train")]
    if learnt:
        _mixture(recipe, learnt, {one.task.name: 1 for one in learnt})  # wrong weights show before all is encoded
    having = {split: tuple(one for one in chosen if has_split(recipe, one.task, split)) for split in SPLITS}
    return {split: TaskRows(split, tasks) for split, tasks in having.items() if tasks}


def has_split(recipe: Recipe, task: Task, split: str) -> bool:
    """Say whether a task has a split that may be used so; UsageError where its first example cannot be made."""
    if not _may_have(task, split):
        return False
    try:
        rows = task.rows(split, limit=1, on_bad="skip")
    except UsageError:
        if split == "train" or task.splits:
            raise
        return False  # a source says which splits it has only when it is asked
    if not isinstance(rows[0], Unusable):  # what is bad is counted when all are encoded
        render_task(task, rows, recipe.data.seed, held_out=_held_out(recipe, split))
    return True


def _may_have(task: Task, split: str) -> bool:
    return (not task.splits or split in task.splits) and (split != "train" or task.train)


def encode_tasks(
    recipe: Recipe, part: TaskRows, model: Model, options: Mapping[str, Any]
) -> tuple[list[Encoded], dict[str, EncodeReport]]:
    """Return the examples of a split, one task after another, and what was cut or left out of each task.

    `options` are the limits that `encode` takes.
    """
    data = recipe.data
    examples: list[Encoded] = []
    reports: dict[str, EncodeReport] = {}
    for one in part.chosen:
        try:
            found, reports[one.task.name] = encode_task(
                one.task,
                part.split,
                model.tokenizer,
                chat=data.chat,
                seed=data.seed,
                shots=data.shots,
                rationale=data.rationale,
                held_out=_held_out(recipe, part.split),
                limit=one.limit.get(part.split),
                **options,
            )
        except UsageError as error:
            raise UsageError(f"{one.task.name}: {error}") from None
        # Rows of two tasks may have the same name.
        examples += [dataclasses.replace(example, id=f"{one.task.name}:{example.id}") for example in found]
    return examples, reports


def merged(reports: Mapping[str, EncodeReport]) -> EncodeReport:
    """Return the reports of several tasks as one."""
    each, fields = list(reports.values()), [field.name for field in dataclasses.fields(EncodeReport)]
    count = sum(report.examples for report in each)
    made: dict[str, Any] = {}
    for name in fields:
        values = [getattr(report, name) for report in each]
        if name.startswith("first_"):
            made[name] = next((f"{task}: {text}" for task, text in zip(reports, values, strict=True) if text), "")
        elif name.startswith("mean_"):
            made[name] = sum(v * r.examples for v, r in zip(values, each, strict=True)) / count
        else:
            made[name] = max(values) if name.startswith("max_") else sum(values)
    return EncodeReport(**made)


def mixture_of(recipe: Recipe, part: TaskRows, examples: Sequence[Encoded]) -> Mixture:
    """Return the mixture that the recipe asks for of the training examples."""
    return _mixture(recipe, part.chosen, {name: len(places) for name, places in by_task(examples).items()})


def _mixture(recipe: Recipe, chosen: Sequence[Chosen], counts: Mapping[str, int]) -> Mixture:
    data, weights = recipe.data, {one.task.name: one.weight for one in chosen}
    settings: dict[str, Any] = {"cap": data.cap, "temperature": data.temperature, "seed": data.seed}
    return Mixture(counts, data.mixture, factors=weights, **settings)


def trained_on(batches: Batches, steps: int) -> dict[str, dict[str, float]]:
    """Return for each task its rate, and the examples and tokens of it that `steps` batches held."""
    if batches.mixture is None:
        return {}
    seen = np.bincount(batches.seen(steps), minlength=len(batches.examples))
    found = {}
    for name, places in by_task(batches.examples).items():
        examples = [batches.examples[i] for i in places]
        times = seen[places]
        tokens = [len(example.prompt) + len(example.completion) for example in examples]
        targets = [target_tokens(example) for example in examples]
        found[name] = {
            "rate": batches.mixture.rates[name],
            "different_examples": int((times > 0).sum()),
            "examples": int(times.sum()),
            "tokens": int(times @ np.array(tokens)),
            "target_tokens": int(times @ np.array(targets)),
        }
    return found


def _held_out(recipe: Recipe, split: str) -> bool:
    return recipe.data.held_out_templates and split != "train"


def chosen_tasks(recipe: Recipe, tasks: Sequence[Any], field: str) -> Iterator[Chosen]:
    """Yield the tasks that a field of the recipe names, families taken apart; UsageError for what is wrong with it."""
    seen: set[str] = set()
    for given in tasks:
        entry = dict(given) if isinstance(given, Mapping) and "task" in given else {"task": given}
        weight, limit = _entry(entry, recipe.data.limit if field == "data.tasks" else {}, field)
        for task in load_tasks([entry["task"]], recipe.data.root):
            if task.name in seen:
                raise UsageError(f"{field}: {task.name} is there twice: keep one of them")
            try:
                check_metrics(task.metrics)
            except UsageError as error:
                raise UsageError(f"{field}: metrics of {task.name}: {error}") from None
            seen.add(task.name)
            yield Chosen(task, weight, limit)


def _entry(entry: Mapping[str, Any], limits: Mapping[str, int], field: str) -> tuple[float, dict[str, int]]:
    known = ("task", "weight", "limit")
    name = entry["task"].get("name") if isinstance(entry["task"], Mapping) else entry["task"]
    for key in entry:
        if key not in known:
            raise UsageError(f"{field}: unknown key {key!r} of {name!r}{nearest(key, known)}")
    weight, limit = entry.get("weight", 1.0), entry.get("limit", {})
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
        raise UsageError(f"{field}: the weight of {name!r} is {weight!r}; use a number of at least 0")
    limit = limit if isinstance(limit, Mapping) else {"train": limit}
    for split, count in {**limits, **limit}.items():
        if split not in SPLITS:
            raise UsageError(f"data.limit: there is no split {split!r}{nearest(split, SPLITS)}")
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UsageError(f"{field}: the limit of {name!r} is {count!r}; use whole numbers from 1")
    return float(weight), {**limits, **limit}


def describe(mixture: Mixture, examples: Mapping[str, Sequence[Encoded]], most: int = 8) -> str:
    """Return a mixture in a line: how much of each task is in an epoch, the largest first.

    `examples` are those of all splits; tasks that are only evaluated are counted.
    """
    quotas = sorted(mixture.quotas.items(), key=lambda item: -item[1])
    shown = [f"{name} {quota:,} ({quota / mixture.size:.1%})" for name, quota in quotas[:most]]
    rest = sum(quota for _, quota in quotas[most:])
    if rest:
        shown.append(f"{len(quotas) - most} more {rest:,} ({rest / mixture.size:.1%})")
    others = {task for part in examples.values() for task in by_task(part)} - mixture.counts.keys()
    text = f"mixture of {len(quotas)} tasks, {mixture.size:,} examples an epoch: {', '.join(shown)}"
    return text + (f"; {len(others)} more are only evaluated" if others else "")
