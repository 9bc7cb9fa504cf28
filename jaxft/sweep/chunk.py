"""The members of a sweep that are trained together, from step 0 to the end, watched on the validation split."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxft.data import prefetch
from jaxft.sweep.data import section
from jaxft.sweep.plan import Plan
from jaxft.sweep.step import Frozen, Members
from jaxft.training.loop import train
from jaxft.training.progress import Progress

Row = dict[str, Any]


def train_chunk(
    plan: Plan, chunk: Sequence[int], at_once: int, patience: int | None, show: Progress
) -> tuple[list[Row], Any, Frozen]:
    """Train members `chunk` of a plan and return `(rows of results, trainable trees, frozen)`, stacked.

    A chunk of fewer than `at_once` is filled up with members that do not move, so that the same program runs it.
    """
    options, filled = plan.recipes[0].train, [*chunk, *[chunk[-1]] * (at_once - len(chunk))]
    members, frozen, keys = plan.start(filled)
    watch = Watch(plan, filled, frozen, patience, keep=options.use == "best")
    watch.stopped[len(chunk) :] = True

    def step(members, frozen, batch, keys):
        if watch.stopped.all():
            return members._replace(step=members.step + 1), {}
        return plan.step(members._replace(stopped=watch.stopped), frozen, batch, keys)

    batches, every = plan.batches(filled, "train"), options.eval_every
    if every is None:
        every = plan.data[section(plan.recipes[chunk[0]])].train.steps_per_epoch
    members, _ = train(
        step, members, frozen, batches, keys, steps=plan.steps, evaluate=watch, eval_every=every, progress=show
    )
    return watch.rows(members, chunk), watch.trainable(members), frozen


class Watch:
    """Evaluates members; stops those that grow no better, and those that diverged; keeps the best weights if asked."""

    def __init__(self, plan: Plan, chunk: Sequence[int], frozen: Frozen, patience: int | None, keep: bool):
        self.loss, self.frozen, self.patience, self.keep = plan.loss, frozen, patience, keep
        self.batches = plan.batches(chunk, "validation")
        self.stopped = np.zeros(len(chunk), bool)
        self.best = np.full(len(chunk), np.inf)
        self.since = np.zeros(len(chunk), int)
        self.history: list[tuple[int, np.ndarray]] = []
        self.kept: Any = None

    def __call__(self, members: Members) -> Mapping[str, float]:
        """Evaluate the members and decide which go on; return what the progress shows."""
        losses = self._losses(members)
        better = ~(losses >= self.best) & ~self.stopped & np.isfinite(losses)
        self.best = np.where(better, losses, self.best)
        self.since = np.where(better, 0, self.since + 1)
        self.history.append((int(members.step), losses))
        if self.keep:
            old = members.states.trainable if self.kept is None else self.kept
            self.kept = jax.tree.map(lambda new, old: _chosen(better, new, old), members.states.trainable, old)
        lowest = {"validation_loss": float(np.min(self.best))}
        moving = np.sum(~self.stopped)
        self.stopped |= ~np.asarray(members.finite)
        if self.patience is not None:
            self.stopped |= self.since >= self.patience
        return lowest | ({"members": float(np.sum(~self.stopped))} if np.sum(~self.stopped) < moving else {})

    def trainable(self, members: Members) -> Any:
        """Return the weights that count: the last, or the best."""
        return members.states.trainable if self.kept is None else self.kept

    def rows(self, members: Members, chunk: Sequence[int]) -> list[Row]:
        """Return a row of results for each of the members `chunk`."""
        finite, steps, losses = jax.device_get((members.finite, members.states.step, members.loss))
        last = self.best if self.keep else self.history[-1][1]
        return [
            {
                "member": number,
                "train_loss": _number(losses[i]),
                "validation_loss": _number(last[i]),
                "steps": int(steps[i]),
                "finite": bool(finite[i]),
                "stopped": bool(finite[i] and self.stopped[i]),
                "evaluations": [[step, _number(loss[i])] for step, loss in self.history],
            }
            for i, number in enumerate(chunk)
        ]

    def _losses(self, members: Members) -> np.ndarray:
        total, count = jnp.zeros(len(self.stopped)), jnp.zeros(len(self.stopped))
        with contextlib.closing(cast(Any, prefetch(self.batches, 0, self.batches.steps_per_epoch))) as ready:
            for _, batch in ready:
                part, tokens = self.loss(members, self.frozen, batch)
                total, count = total + part, count + tokens
        return np.asarray(total) / np.asarray(count)


def _chosen(better, new, old):
    return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
