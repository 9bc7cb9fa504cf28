"""The token-exact loss, whose logits never exist whole.

A loss is a function of `(architecture, variables, batch, key)` that returns the sum of token losses and the sum of
their weights; the step divides one by the other over the global batch. `token_loss` makes one from any function of
logits and targets.

The head and the loss are taken chunk by chunk along T, and the gradient of a chunk's logits is formed in the forward
pass, while they are there: nothing is recomputed, one chunk of `[B, chunk, V]` logits is alive at a time, and where the
head is frozen no product of its shape appears. Within each row the tokens that count come first, so that chunks
in which none does are skipped: the prompt, most of an instruction example, never reaches the head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

TokenLoss = Callable[[jax.Array, jax.Array], jax.Array]
Loss = Callable[[Any, Any, Any, Any], tuple[jax.Array, jax.Array]]


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return `-log p(target)` `[...]` for float32 `logits` `[..., V]` and `targets` `[...]`."""
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def smoothed_cross_entropy(smoothing: float) -> TokenLoss:
    """Return cross-entropy against targets of which a share `smoothing` is spread over the vocabulary."""

    def loss(logits, targets):
        uniform = jax.nn.logsumexp(logits, axis=-1) - jnp.mean(logits, axis=-1)
        return (1 - smoothing) * cross_entropy(logits, targets) + smoothing * uniform

    return loss


def token_loss(per_token: TokenLoss = cross_entropy, chunk: int = 512) -> Loss:
    """Make a loss from `per_token(logits [..., V], targets [...]) -> [...]`.

    At most about `chunk` tokens' logits are alive at once.
    """

    def loss(architecture, variables, batch, key=None):
        hidden = architecture.hidden(variables, batch, key)
        total = summed_loss(architecture.head, per_token, chunk, variables, hidden, batch["targets"], batch["weights"])
        return total, jnp.sum(batch["weights"])

    return loss


def summed_loss(head, per_token, chunk, variables, hidden, targets, weights) -> jax.Array:
    """Return the weighted sum of token losses of `hidden` `[B, T, D]` without forming `[B, T, V]`."""
    rows, length, _ = hidden.shape
    order = jnp.argsort(weights <= 0, axis=1, stable=True)
    hidden = jnp.take_along_axis(hidden, order[..., None], axis=1)
    targets, weights = (jnp.take_along_axis(x, order, axis=1) for x in (targets, weights))
    size = max(1, min(length, chunk // rows))
    pad = -length % size

    def chunks(x):
        x = jnp.pad(x, ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(rows, -1, size, *x.shape[2:]), 1, 0)

    # What the head does not read must not be seen as differentiated.
    used = {
        "params": {name: variables["params"][name] for name in ("embedding", "head") if name in variables["params"]}
    }
    if "head" in used["params"]:
        used["params"].pop("embedding")
    return _summed(
        functools.partial(_chunk_loss, head, per_token), used, chunks(hidden), chunks(targets), chunks(weights)
    )


def _chunk_loss(head, per_token, variables, hidden, targets, weights):
    return jnp.sum(per_token(head(variables, hidden), targets) * weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(chunk_loss, variables, hidden, targets, weights):
    def body(total, xs):
        loss = jax.lax.cond(jnp.any(xs[2] > 0), lambda: chunk_loss(variables, *xs), lambda: jnp.zeros((), jnp.float32))
        return total + loss, None

    return jax.lax.scan(body, jnp.zeros((), jnp.float32), (hidden, targets, weights))[0]


def _forward(chunk_loss, variables, hidden, targets, weights):
    trained = any(leaf.perturbed for leaf in jax.tree.leaves(variables, is_leaf=_is_primal))
    # The derivative by a token's weight is its loss: a step asks for it that tells tasks apart.
    wanted = (*([0] if trained else []), 1, *([3] if weights.perturbed else []))
    variables, hidden, targets, weights = jax.tree.map(
        lambda primal: primal.value, (variables, hidden, targets, weights), is_leaf=_is_primal
    )

    def body(carry, xs):
        arguments = (variables, *xs)

        def compute():
            return jax.value_and_grad(chunk_loss, wanted)(*arguments)

        def skip():
            return jnp.zeros((), jnp.float32), tuple(jax.tree.map(jnp.zeros_like, arguments[i]) for i in wanted)

        total, accumulated = carry
        loss, gradient = jax.lax.cond(jnp.any(xs[2] > 0), compute, skip)
        if trained:
            accumulated = jax.tree.map(jnp.add, accumulated, gradient[0])
            gradient = gradient[1:]
        return (total + loss, accumulated), gradient

    zeros = jax.tree.map(jnp.zeros_like, variables) if trained else None
    (total, d_variables), rest = jax.lax.scan(body, (jnp.zeros((), jnp.float32), zeros), (hidden, targets, weights))
    return total, (d_variables, rest)


def _is_primal(x):
    return hasattr(x, "perturbed")


def _backward(chunk_loss, residuals, cotangent):
    d_variables, (d_hidden, *d_weights) = residuals
    scale = functools.partial(jax.tree.map, lambda g: (g * cotangent).astype(g.dtype))
    of_variables = scale(d_variables) if d_variables is not None else None
    return of_variables, scale(d_hidden), None, scale(d_weights[0]) if d_weights else None


_summed.defvjp(_forward, _backward, symbolic_zeros=True)
