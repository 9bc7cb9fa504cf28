"""One jitted train step for every method, and the evaluation step beside it.

step = train_step(model, method, optimizer)
state, metrics = step(state, frozen, batch, key)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxft.errors import UsageError
from jaxft.methods import Method
from jaxft.methods.bank import check_ids, for_rows
from jaxft.training.anchors import anchored, distance
from jaxft.training.loss import Loss, token_loss
from jaxft.training.members import PerMember, update_members, weigh_members
from jaxft.training.sharding import shard_batch, shardings
from jaxft.training.state import TrainState

Step = Callable[[TrainState, Any, Any, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


def train_step(
    model: Any,
    method: Method,
    optimizer: optax.GradientTransformation | PerMember,
    *,
    loss: Loss | None = None,
    accumulate: int = 1,
    mesh: Mesh | None = None,
    tasks: int = 0,
    kl_to_base: float = 0.0,
    l2_to_base: float = 0.0,
) -> Step:
    """Return `step(state, frozen, batch, key) -> (state, metrics)`, jitted; `state` is donated.

    The gradient is that of Σ token losses / Σ weights over the whole batch, whatever `accumulate` (the number of
    parts that the batch, `B` divisible by it, is run in) and however it is sharded. A loss or gradient that is not
    finite leaves the trainable tree and the optimizer state as they were and reports `finite` as False.
    With a `mesh` (see `jaxft.training.sharding`) rows are split over its devices and the state keeps its shards.
    Metrics are device scalars: `loss`, `tokens`, `grad_norm`, `finite`. Randomness at step n is `fold_in(key, n)`.
    A bank's step reads each row's member from `batch["adapter_ids"]` (see `jaxft.training.members`); its metrics but
    for the loss, the mean of the members', are `[M]`.
    With a number of `tasks`, batches say by `tasks` `[B, T]` which one each token belongs to, and there are the metrics
    `task_loss` and `task_tokens`, sums `[tasks]` of token losses and of weights.
    `kl_to_base` and `l2_to_base` are coefficients of what holds training back (see `jaxft.training.anchors`): `frozen`
    is then `Anchored`, and the metrics have the mean KL divergence and the L2 penalty; `loss` stays without them.
    Raises `UsageError` for a batch (of NumPy arrays) in which no target counts.
    """
    banked = isinstance(optimizer, PerMember)
    if banked != (method.config["name"] == "bank"):
        raise UsageError("optimizer: wrap it in jaxft.per_member for a bank, and for a bank only")
    gradient_of = _gradient_of(_objective(model.architecture, method, loss or token_loss(), kl_to_base), tasks)

    def compute(state: TrainState, frozen, batch, key):
        anchors = anchored(frozen, kl_to_base, l2_to_base, banked)
        key = jax.random.fold_in(key, state.step)
        if banked:
            batch, counts = weigh_members(batch, jax.tree.leaves(state.trainable)[0].shape[0])
        sums, gradient = _accumulated(gradient_of, state.trainable, anchors, batch, key, accumulate)
        total, tokens = sums.pop("loss"), sums.pop("tokens")
        if kl_to_base:
            sums["kl_to_base"] /= tokens
        if banked:
            trained, metrics = update_members(optimizer, state, gradient, total, counts)
        else:
            gradient, penalty = _mean(gradient, tokens, state.trainable, anchors.start, l2_to_base)
            trained, metrics = _updated(optimizer, state, gradient, total, tokens)
            metrics |= penalty
        if mesh is not None:
            trained = jax.lax.with_sharding_constraint(trained, shardings(trained, mesh))
        return trained._replace(step=state.step + 1), {**metrics, **sums}

    def check(frozen, batch):
        check_batch(batch, accumulate)
        anchored(frozen, kl_to_base, l2_to_base, banked)
        if banked:
            check_ids(batch.get("adapter_ids"), batch["tokens"].shape[0], len(method.config["methods"]))

    return _checked(jax.jit(compute, donate_argnums=0), check, mesh)


def loss_step(model: Any, method: Method, *, loss: Loss | None = None) -> Callable[[Any, Any, Any], tuple]:
    """Return `f(trainable, frozen, batch) -> (Σ token losses, Σ weights)`, jitted, without dropout."""
    architecture, loss_of = model.architecture, loss or token_loss()

    @jax.jit
    def compute(trainable, frozen, batch):
        return loss_of(architecture, _bound(method, trainable, frozen, batch), batch, None)

    return compute


def _checked(compiled, check, mesh):
    def step(state, frozen, batch, key):
        check(frozen, batch)
        if mesh is None:
            return compiled(state, frozen, batch, key)
        with jax.set_mesh(mesh):
            return compiled(state, frozen, shard_batch(batch, mesh), key)

    step.jitted = compiled  # type: ignore[attr-defined]  # for lowering, cost analysis and counting compilations
    return step


def _objective(architecture, method, loss_of, kl_to_base):
    # What is differentiated is a sum over target tokens; beside it are the sums that the metrics are made of.
    def summed(trainable, anchors, batch, key):
        variables = _bound(method, trainable, anchors.frozen, batch)
        if not kl_to_base:
            total, tokens = loss_of(architecture, variables, batch, key)
            return total, {"loss": total, "tokens": tokens}
        total, tokens, kl = loss_of(architecture, variables, batch, key, anchors.base)
        return total + kl_to_base * kl, {"loss": total, "tokens": tokens, "kl_to_base": kl}

    return summed


def _gradient_of(summed, tasks):
    def plain(trainable, anchors, batch, key):
        (_, sums), gradient = jax.value_and_grad(summed, has_aux=True)(trainable, anchors, batch, key)
        return sums, gradient

    # The sum is linear in the weights: its gradient there is each token's loss.
    def by_task(trainable, anchors, batch, key):
        def weighed(trainable, weights):
            return summed(trainable, anchors, {**batch, "weights": weights}, key)

        (_, sums), (gradient, losses) = jax.value_and_grad(weighed, (0, 1), has_aux=True)(trainable, batch["weights"])
        told = {"task_loss": losses * batch["weights"], "task_tokens": batch["weights"]}
        found = {name: jnp.zeros(tasks).at[batch["tasks"]].add(values) for name, values in told.items()}
        return {**sums, **found}, gradient

    return by_task if tasks else plain


def _mean(gradient, tokens, trainable, start, l2_to_base):
    gradient = jax.tree.map(lambda g: g / tokens, gradient)
    if not l2_to_base:
        return gradient, {}
    moved, half = distance(trainable, start)
    gradient = jax.tree.map(lambda g, d: g + l2_to_base * d, gradient, moved)
    return gradient, {"l2_to_base": l2_to_base * half}


def _updated(optimizer, state, gradient, total, tokens):
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(total) & jnp.isfinite(norm)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.trainable)
    trained = TrainState(optax.apply_updates(state.trainable, updates), opt_state, state.step)
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), trained, state)
    return kept, {"loss": total / tokens, "tokens": tokens, "grad_norm": norm, "finite": finite}


def _bound(method, trainable, frozen, batch):
    return for_rows(method.bind(trainable, frozen), batch.get("adapter_ids"))


def check_batch(batch: Any, accumulate: int = 1) -> None:
    """Raise `UsageError` for a batch without targets (where it is on the host) or not divisible by `accumulate`."""
    weights = batch["weights"]
    if isinstance(weights, np.ndarray) and not weights.any():
        raise UsageError("batch: no target token counts (all weights are 0); check completions and truncation")
    if weights.shape[0] % accumulate:
        raise UsageError(f"batch: {weights.shape[0]} rows cannot be accumulated in {accumulate} equal parts")


def _accumulated(gradient_of, trainable, frozen, batch, key, parts):
    if parts == 1:
        return gradient_of(trainable, frozen, batch, key)

    # Every parts-th row, not every run of rows: a batch sharded over devices is then split on each of them.
    def split(x):
        return jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)

    def body(carry, xs):
        return jax.tree.map(jnp.add, carry, gradient_of(trainable, frozen, *xs)), None

    xs = jax.tree.map(split, dict(batch)), jax.random.split(key, parts)
    shapes = jax.eval_shape(gradient_of, trainable, frozen, *jax.tree.map(lambda x: x[0], xs))
    return jax.lax.scan(body, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), xs)[0]
