"""Training a bank: each member as if it were alone.

    method = bank(lora(rank=8), lora(rank=8))
    optimizer = per_member(make_optimizer(config, total_steps=100))
    step = train_step(model, method, optimizer)          # batches carry "adapter_ids" [B]

The loss is Σ over members of (Σ its token losses / Σ its weights): members share no leaf, so the gradient of each is
its own. Clipping, moments and step counts are each member's; one that has no target in the batch does not move.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxft.training.state import TrainState


class PerMember(NamedTuple):
    """An optimizer of stacked trees `[M, ...]`; `update(gradient, state, trainable, moving [M])` returns both anew."""

    init: Any
    update: Any


def per_member(optimizer: optax.GradientTransformation) -> PerMember:
    """Return `optimizer` for the trainable tree of a bank, applied to each member apart."""

    def update(gradient, state, trainable, moving):
        updates, new = jax.vmap(optimizer.update)(gradient, state, trainable)
        return _where(moving, optax.apply_updates(trainable, updates), trainable), _where(moving, new, state)

    return PerMember(jax.vmap(optimizer.init), update)


def weigh_members(batch: Any, members: int) -> tuple[dict[str, Any], jax.Array]:
    """Return the batch with its weights divided by the sum of their member's, and those sums `[M]`."""
    ids = batch["adapter_ids"]
    tokens = jnp.zeros(members).at[ids].add(jnp.sum(batch["weights"], axis=1))
    return {**batch, "weights": batch["weights"] / jnp.maximum(tokens, 1e-9)[ids][:, None]}, tokens


def update_members(optimizer: PerMember, state: TrainState, gradient: Any, total: Any, tokens: jax.Array) -> tuple:
    """Return the state after a step of every member that has targets and a finite gradient, and the metrics."""
    norms = jax.vmap(optax.tree.norm)(gradient)
    finite, present = jnp.isfinite(norms), tokens > 0
    trainable, opt_state = optimizer.update(gradient, state.opt_state, state.trainable, finite & present)
    loss = total / jnp.sum(present)
    metrics = {"loss": loss, "tokens": tokens, "grad_norm": norms, "finite": finite}
    return TrainState(trainable, opt_state, state.step), metrics


def _where(moving, new, old):
    def choose(a, b):
        return jnp.where(moving.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)
