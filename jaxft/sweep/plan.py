"""A sweep made ready: members' recipes, model, data, and the one step that serves every chunk."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxft.models import Model
from jaxft.recipe import Recipe, optimizer_config
from jaxft.runs.parts import AnyRows
from jaxft.sweep.data import Data, largest, prepare, section, together
from jaxft.sweep.grid import varied
from jaxft.sweep.step import Frozen, Members, padded_alpha, shapes_of, start, sweep_loss, sweep_step
from jaxft.training.loss import smoothed_cross_entropy, token_loss
from jaxft.training.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class Plan:
    """What chunks of a sweep share; `widest` is the method of the largest rank, to which all members are padded."""

    recipes: Sequence[Recipe]
    model: Model
    data: Mapping[str, Data]
    widest: Mapping[str, Any]
    settings: Mapping[str, Sequence[float]]  # of every member, by the names in `Members.settings`
    optimizer: OptimizerConfig
    steps: int
    step: Any
    loss: Any

    def start(self, chunk: Sequence[int]) -> tuple[Members, Frozen, jax.Array]:
        """Return members at step 0, what is frozen, and their keys `[M]`."""
        keys = [jax.random.split(jax.random.key(self.recipes[i].train.seed)) for i in chunk]  # as make_parts does
        settings = {name: [values[i] for i in chunk] for name, values in self.settings.items()}
        methods = [self.recipes[i].method for i in chunk]
        drawn = [key for key, _ in keys]
        members, frozen = start(self.model, methods, drawn, settings, self.optimizer, self.steps, self.widest)
        return members, frozen, jnp.stack([key for _, key in keys])

    def batches(self, chunk: Sequence[int], split: str) -> Any:
        """Return the "train" or "validation" batches of a chunk."""
        every = [getattr(self.data[section(recipe)], split) for recipe in self.recipes]
        return together([every[i] for i in chunk], every)

    def lower(self, chunk: Sequence[int]) -> tuple[Any, int]:
        """Return the step lowered for a chunk's shapes, and the bytes of the base, which is in memory already."""
        members, frozen, keys = jax.eval_shape(lambda: self.start(chunk))
        base = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(frozen[0]))
        return self.step.lower(members, frozen, largest(self.batches(chunk, "train")), keys), base


def make_plan(recipes: Sequence[Recipe], rows: Mapping[str, Mapping[str, AnyRows]], model: Model) -> Plan:
    """Return the plan of resolved recipes; UsageError for a rank or target that does not fit the model."""
    first, differ = recipes[0], varied(recipes)
    widest = max((recipe.method for recipe in recipes), key=lambda method: method.get("rank", 0))
    shapes_of(widest, model)
    data = prepare(recipes, rows, model)
    steps, own, train = data[section(first)].steps, len(data) > 1, first.train
    optimizer = optimizer_config(first.optimizer, steps)
    loss = token_loss(smoothed_cross_entropy(train.label_smoothing)) if train.label_smoothing else token_loss()
    step = sweep_step(model, widest, optimizer, steps, loss=loss, accumulate=train.accumulate, own_batches=own)
    settings = {
        name: [getattr(recipe.optimizer, name) for recipe in recipes]
        for name in ("learning_rate", "weight_decay")
        if f"optimizer.{name}" in differ
    }
    if {"method.alpha", "method.rank"} & set(differ):
        settings["alpha"] = [padded_alpha(recipe.method, widest["rank"]) for recipe in recipes]
    return Plan(
        recipes, model, data, widest, settings, optimizer, steps, step, sweep_loss(model, widest, own_batches=own)
    )
