"""Replay: examples of other tasks mixed into what a recipe trains on, so that they are not forgotten.

Of an epoch's examples a share `data.replay.rate` are of the replayed tasks, divided among them by their weights; the
epoch is that much longer, and all that it would hold without them is still in it. What it holds, and in which order, is
a function of (seed, step) like every mixture (Rolnick et al. 2019, arXiv:1811.11682; of instruction tuning, Scialom et
al. 2022, arXiv:2205.12393, for whom 1 % is enough).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxft.data import Encoded
from jaxft.data.grouping import by_task
from jaxft.data.mixture import Mixture
from jaxft.errors import UsageError
from jaxft.models import Model
from jaxft.recipe import Recipe
from jaxft.runs.tasks import TaskRows, chosen_tasks, encode_tasks, has_split

SOURCE = "source"  # what stands for a task's name where the recipe trains on plain rows


def read_replay(recipe: Recipe, trained: TaskRows | None) -> TaskRows | None:
    """Return the tasks to replay, None where there are none; UsageError for what cannot be, before a model is loaded.

    `trained` are the tasks that the recipe trains on anyway.
    """
    if not recipe.data.replay.tasks:
        return None
    own = {one.task.name for one in trained.chosen} if trained else set()
    chosen = tuple(chosen_tasks(recipe, recipe.data.replay.tasks, "data.replay.tasks"))
    for one in chosen:
        if one.task.name in own:
            raise UsageError(f"data.replay.tasks: {one.task.name} is in data.tasks already: give it a weight there")
        if not has_split(recipe, one.task, "train"):
            raise UsageError(f"data.replay.tasks: {one.task.name} is for evaluation only: it may not be trained on")
    if not any(one.weight for one in chosen):
        raise UsageError("data.replay.tasks: all weights are zero: give at least one task a positive one")
    return TaskRows("train", chosen)


def with_replay(
    recipe: Recipe,
    replay: TaskRows,
    examples: Sequence[Encoded],
    mixture: Mixture | None,
    model: Model,
    options: Mapping[str, Any],
) -> tuple[list[Encoded], Mixture]:
    """Return the training examples with those of replay behind them, and the mixture of both.

    The recipe's own come with the mixture of their tasks, or of a plain source without one.
    """
    found, _ = encode_tasks(recipe, replay, model, options)
    if mixture is None:
        examples = [dataclasses.replace(example, task=SOURCE) for example in examples]
        mixture = Mixture({SOURCE: len(examples)}, cap=None)
    return [*examples, *found], _mixture(recipe, replay, mixture, found)


def _mixture(recipe: Recipe, replay: TaskRows, own: Mixture, found: Sequence[Encoded]) -> Mixture:
    rate = recipe.data.replay.rate
    counts = {name: len(places) for name, places in by_task(found).items()}
    weights = {one.task.name: one.weight for one in replay.chosen if one.task.name in counts}
    whole = sum(weights.values())
    rates = {name: (1 - rate) * share for name, share in own.rates.items()}
    rates |= {name: rate * weight / whole for name, weight in weights.items()}
    size = max(round(own.size / (1 - rate)), own.size + sum(weight > 0 for weight in weights.values()))
    return Mixture({**own.counts, **counts}, rates, cap=None, size=size, seed=recipe.data.seed)
