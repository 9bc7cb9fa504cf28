"""What the members of a sweep are trained and compared on: one set of batches for all, or one for each.

Batches that differ between members are padded to one shape and laid under one another, `[M·B, T]`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxft.data import Batches
from jaxft.data.batches import Batch
from jaxft.data.grouping import spread
from jaxft.errors import UsageError
from jaxft.models import Model
from jaxft.recipe import Recipe
from jaxft.runs.parts import AnyRows, in_order, make_parts, read_rows


@dataclasses.dataclass(frozen=True)
class Data:
    """A member's batches of training and of validation, and how many steps it takes."""

    train: Batches
    validation: Batches
    steps: int


def read_all(recipes: Sequence[Recipe]) -> dict[str, Mapping[str, AnyRows]]:
    """Return the rows of each data section that occurs; UsageError where one has nothing to validate on."""
    found: dict[str, Mapping[str, AnyRows]] = {}
    for recipe in recipes:
        name = section(recipe)
        if name not in found:
            found[name] = read_rows(recipe)
            if "validation" not in found[name] or not recipe.train.eval_examples:
                raise UsageError(
                    "sweep: members are compared by their loss on the validation split, and there is none: "
                    "set data.validation and train.eval_examples"
                )
    return found


def prepare(recipes: Sequence[Recipe], rows: Mapping[str, Mapping[str, AnyRows]], model: Model) -> dict[str, Data]:
    """Return the data of each section, encoded; UsageError where members would take unequal numbers of steps."""
    prepared: dict[str, Data] = {}
    for recipe in recipes:
        name = section(recipe)
        if name not in prepared:
            parts = make_parts(recipe, rows[name], model)
            compared = spread(parts.examples["validation"], recipe.train.eval_examples)
            validation = in_order(model, compared, recipe.train.batch_size)
            prepared[name] = Data(parts.batches, validation, parts.steps)
    steps = sorted({data.steps for data in prepared.values()})
    if len(steps) > 1:
        raise UsageError(f"sweep.data.source: members would take {' or '.join(map(str, steps))} steps: set train.steps")
    return prepared


def section(recipe: Recipe) -> str:
    """Return a name for the recipe's data section, equal for equal ones."""
    return json.dumps(dataclasses.asdict(recipe.data))


class Together:
    """The batches of members, one under another, at one shape for all steps; a member that has no more adds padding."""

    def __init__(self, members: Sequence[Batches], steps: int, shape: Sequence[int]):
        self.members = members
        self.steps_per_epoch = steps
        self.shape = tuple(shape)

    def batch(self, step: int) -> Batch:
        """Return the arrays `[M·B, T]` of a step; Error if a member has no target token in it."""
        parts = [self._part(one, step) for one in self.members]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def ids(self, step: int) -> list[str]:
        """Return the names of the examples of a step, member by member."""
        return [name for one in self.members for name in one.ids(step)]

    def _part(self, one: Batches, step: int) -> Batch:
        if not one.shuffle and step >= one.steps_per_epoch:
            return one.padding_batch(one.batch_size, self.shape)
        return one.batch(step, self.shape)


def together(members: Sequence[Batches], everyone: Sequence[Batches]) -> Any:
    """Return the batches of members; `everyone`'s are looked at for the shape, so that all chunks have the same."""
    if len({id(one) for one in everyone}) == 1:
        return members[0]
    shape = np.max([size for one in everyone for size in one.shapes], axis=0).tolist()
    return Together(members, max(one.steps_per_epoch for one in everyone), shape)


def largest(batches: Any) -> Batch:
    """Return an empty batch of the largest shape that `batches` come in."""
    if isinstance(batches, Together):
        rows, shape, one = len(batches.members) * batches.members[0].batch_size, batches.shape, batches.members[0]
    else:
        rows, shape, one = batches.batch_size, max(batches.shapes, key=math.prod), batches
    return one.padding_batch(rows, shape)
