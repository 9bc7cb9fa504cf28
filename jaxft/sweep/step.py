"""The step of a sweep: `vmap` of the ordinary train step over members, with the base as one unbatched argument.

What differs (learning rate, weight decay, alpha) enters as traced numbers, from which method and optimizer are made
anew inside the mapped function. So a member's step is `train_step`'s own, and `x W` of all members is one product.

A narrower LoRA is a wider one with zeros: `a`'s last columns and `b`'s last rows are 0, so both gradients there are
exactly 0, and AdamW keeps 0 where gradient and weight are 0. Only `alpha / rank` has to be the narrow one's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxft.methods import Method, from_config
from jaxft.training.loss import Loss
from jaxft.training.optimizer import OptimizerConfig, make_optimizer
from jaxft.training.state import TrainState, init_state
from jaxft.training.step import loss_step, train_step

Settings = Mapping[str, Any]
Frozen = tuple[Any, Any]  # what members share ({"params": ...}), and their own small leaves, stacked


class Members(NamedTuple):
    """Members of a sweep: each leaf but `step` has them along its first axis, M."""

    states: TrainState
    settings: Settings  # float32 [M] of each of learning_rate, weight_decay, alpha that differs
    finite: jax.Array  # bool [M]: no loss or gradient was infinite or NaN so far
    stopped: jax.Array  # bool [M]: told to stop
    loss: jax.Array  # float32 [M], of the last step
    step: jax.Array  # int32 []


def sweep_step(
    model: Any,
    method: Settings,
    optimizer: OptimizerConfig,
    steps: int,
    *,
    loss: Loss | None = None,
    accumulate: int = 1,
    own_batches: bool = False,
) -> Callable[[Members, Frozen, Any, jax.Array], tuple[Members, dict[str, jax.Array]]]:
    """Return `step(members, (shared, own), batch, keys [M]) -> (members, metrics)`, jitted; members are donated.

    `method` and `optimizer` are the settings that members share. The batch is every member's, or with `own_batches`
    has rows `[M·B]`, B for each in turn. A member whose loss or gradient is not finite stays where it was, for good;
    so does one that is `stopped`. Metrics: `loss`, the mean over members that moved, and `tokens`, of all of them.
    """

    def one(state, settings, moving, own, key, shared, batch):
        # `jitted` and not the checking function around it: a mapped batch is not on the host.
        step = train_step(
            model, _method(method, settings), _optimizer(optimizer, settings, steps), loss=loss, accumulate=accumulate
        ).jitted  # type: ignore[attr-defined]
        trained, metrics = step(state, {**shared, **own}, batch, key)
        moved = moving & metrics["finite"]
        return jax.tree.map(lambda new, old: jnp.where(moved, new, old), trained, state), metrics

    def compute(members: Members, frozen: Frozen, batch, keys):
        shared, own = frozen
        moving = members.finite & ~members.stopped
        batch, axis = _rows(batch, len(moving), own_batches)
        mapped = jax.vmap(one, in_axes=(0, 0, 0, 0, 0, None, axis))
        states, metrics = mapped(members.states, members.settings, moving, own, keys, shared, batch)
        moved = moving & metrics["finite"]
        losses = jnp.where(moved, metrics["loss"], members.loss)
        count = jnp.maximum(jnp.sum(moved), 1)
        shown = {
            "loss": jnp.sum(jnp.where(moved, losses, 0.0)) / count,
            "tokens": jnp.sum(jnp.where(moved, metrics["tokens"], 0.0)),
        }
        finite = members.finite & (metrics["finite"] | ~moving)
        return Members(states, members.settings, finite, members.stopped, losses, members.step + 1), shown

    return jax.jit(compute, donate_argnums=0)


def sweep_loss(
    model: Any, method: Settings, *, own_batches: bool = False
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Return `f(members, (shared, own), batch) -> (Σ token losses [M], Σ weights [M])`, jitted, without dropout."""

    def one(trainable, settings, own, shared, batch):
        return loss_step(model, _method(method, settings))(trainable, {**shared, **own}, batch)

    @jax.jit
    def compute(members: Members, frozen: Frozen, batch):
        shared, own = frozen
        batch, axis = _rows(batch, len(members.finite), own_batches)
        return jax.vmap(one, in_axes=(0, 0, 0, None, axis))(
            members.states.trainable, members.settings, own, shared, batch
        )

    return compute


def start(
    model: Any,
    methods: Sequence[Settings],
    keys: Sequence[jax.Array],
    settings: Settings,
    optimizer: OptimizerConfig,
    steps: int,
    widest: Settings,
) -> tuple[Members, Frozen]:
    """Return members at step 0: each drawn by its own method and key, then zero-padded to the widest method."""
    variables = {"params": model.params}
    shapes = shapes_of(widest, model)
    drawn, shared = [], {}
    for method, key in zip(methods, keys, strict=True):
        trainable, frozen = from_config(method).init(key, variables)
        shared = {name: frozen[name] for name in frozen if name == "params"}
        drawn.append(jax.tree.map(_padded, (trainable, _own(frozen)), (shapes[0], _own(shapes[1]))))
    trainables, own = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
    arrays = {name: jnp.asarray(np.asarray(values, np.float32)) for name, values in settings.items()}
    count = len(methods)

    def begin(trainable, settings):
        return init_state(trainable, _optimizer(optimizer, settings, steps))

    # Without settings there is still an axis to map over: the trainable tree's.
    states = jax.vmap(begin)(trainables, arrays)
    no = np.zeros(count, bool)
    members = Members(states, arrays, jnp.asarray(~no), jnp.asarray(no), jnp.zeros(count), jnp.zeros((), jnp.int32))
    return members, (shared, own)


def member(trainables: Any, frozen: Frozen, index: int, method: Settings, model: Any) -> tuple[Method, Any, Any]:
    """Return `(method, trainable, frozen)` of one member, cut back to its own rank: what `save_adapter` takes."""
    shapes = shapes_of(method, model)
    trainable, own = jax.tree.map(
        lambda leaf, like: leaf[index][tuple(map(slice, like.shape))],
        (trainables, frozen[1]),
        (shapes[0], _own(shapes[1])),
    )
    return from_config(method), trainable, {**frozen[0], **own}


def shapes_of(method: Settings, model: Any) -> tuple[Any, Any]:
    """Return the shapes of a method's trainable and frozen trees on a model; UsageError where it does not fit."""
    return jax.eval_shape(from_config(method).init, jax.random.key(0), {"params": model.params})


def padded_alpha(method: Settings, rank: int) -> float:
    """Return the alpha with which LoRA of `rank` scales as `method` does at its own rank."""
    wider = rank / method["rank"]
    return method["alpha"] * (math.sqrt(wider) if method.get("rslora") else wider)


def _method(method: Settings, settings: Settings) -> Method:
    return from_config({**method, **{name: settings[name] for name in ("alpha",) if name in settings}})


def _optimizer(config: OptimizerConfig, settings: Settings, steps: int):
    return make_optimizer(
        dataclasses.replace(config, **{name: value for name, value in settings.items() if name != "alpha"}), steps
    )


def _own(frozen):
    return {name: value for name, value in frozen.items() if name != "params"}


def _padded(leaf, like):
    return jnp.pad(leaf, [(0, wide - size) for size, wide in zip(leaf.shape, like.shape, strict=True)])


def _rows(batch, members, own):
    if not own:
        return batch, None
    return {name: x.reshape(members, x.shape[0] // members, *x.shape[1:]) for name, x in batch.items()}, 0
