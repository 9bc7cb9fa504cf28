"""The token-exact loss, whose logits never exist whole.

A loss is a function of `(architecture, variables, batch, key)` that returns the sum of token losses and the sum of
their weights; the step divides one by the other over the global batch. `token_loss` makes one from any function of
logits and targets.

The head and the loss are taken chunk by chunk along T, and the gradient of a chunk's logits is formed in the forward
pass, while they are there: nothing is recomputed, one chunk of `[B, chunk, V]` logits is alive at a time, and where the
head is frozen no product of its shape appears. Within each row the tokens that count come first, so that chunks
in which none does are skipped: the prompt, most of an instruction example, never reaches the head. The divergence from
a base model is taken the same way, of a chunk of its logits beside a chunk of the tuned model's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

TokenLoss = Callable[[jax.Array, jax.Array], jax.Array]
Loss = Callable[..., tuple[jax.Array, ...]]


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


def kl_divergence(base: jax.Array, logits: jax.Array) -> jax.Array:
    """Return `Σ p_base (log p_base - log p_tuned)` `[...]` of float32 logits `[..., V]`, in nats."""
    base, logits = jax.nn.log_softmax(base, axis=-1), jax.nn.log_softmax(logits, axis=-1)
    return jnp.sum(jnp.exp(base) * (base - logits), axis=-1)


def token_loss(per_token: TokenLoss = cross_entropy, chunk: int = 512) -> Loss:
    """Make a loss from `per_token(logits [..., V], targets [...]) -> [...]`.

    At most about `chunk` tokens' logits are alive at once. Given `base`, the variables of another model of the same
    architecture, it returns a third number: the weighted sum of `kl_divergence` on the same tokens. The base is not
    differentiated and sees no dropout; of the weights, only the loss is.
    """

    def loss(architecture, variables, batch, key=None, base=None):
        hidden, weights = architecture.hidden(variables, batch, key), batch["weights"]
        total = summed_loss(architecture.head, per_token, chunk, variables, hidden, batch["targets"], weights)
        if base is None:
            return total, jnp.sum(weights)
        kl = summed_kl(architecture.head, chunk, variables, hidden, base, architecture.hidden(base, batch), weights)
        return total, jnp.sum(weights), kl

    return loss


def summed_loss(head, per_token, chunk, variables, hidden, targets, weights) -> jax.Array:
    """Return the weighted sum of token losses of `hidden` `[B, T, D]` without forming `[B, T, V]`."""
    chunk_loss = functools.partial(_chunk_loss, head, per_token)
    return _summed(chunk_loss, _read_by_head(variables), None, *_chunks(chunk, weights, hidden, targets))


def summed_kl(head, chunk, variables, hidden, base, base_hidden, weights) -> jax.Array:
    """Return the weighted sum of `KL(base || tuned)` of `hidden` and `base_hidden` `[B, T, D]`, never `[B, T, V]`."""
    fixed, weights = jax.lax.stop_gradient((_read_by_head(base), weights))
    base_hidden = jax.lax.stop_gradient(base_hidden)
    chunk_loss = functools.partial(_chunk_kl, head)
    return _summed(chunk_loss, _read_by_head(variables), fixed, *_chunks(chunk, weights, hidden, base_hidden))


def _chunks(chunk, weights, *arrays):
    rows, length = weights.shape
    order = jnp.argsort(weights <= 0, axis=1, stable=True)
    size = max(1, min(length, chunk // rows))

    def chunks(x):
        x = jnp.take_along_axis(x, order.reshape(*order.shape, *(1,) * (x.ndim - 2)), axis=1)
        x = jnp.pad(x, ((0, 0), (0, -length % size)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(rows, -1, size, *x.shape[2:]), 1, 0)

    return tuple(map(chunks, (*arrays, weights)))


def _read_by_head(variables):
    # What the head does not read must not be seen as differentiated.
    params = variables["params"]
    return {"params": {name: params[name] for name in (("head",) if "head" in params else ("embedding",))}}


@jax.custom_batching.custom_vmap
def _any_counts(weights):
    return jnp.any(weights > 0)


@_any_counts.def_vmap
def _any_counts_of_all(axis_size, is_batched, weights):
    # One answer for all members of a sweep: a condition of their own would become a choice between two results, of
    # which both are computed.
    return _any_counts(weights), False


def _chunk_loss(head, per_token, variables, fixed, hidden, targets, weights):
    return jnp.sum(per_token(head(variables, hidden), targets) * weights)


def _chunk_kl(head, variables, fixed, hidden, base_hidden, weights):
    return jnp.sum(kl_divergence(head(fixed, base_hidden), head(variables, hidden)) * weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(chunk_loss, variables, fixed, hidden, targets, weights):
    def body(total, xs):
        def compute():
            return chunk_loss(variables, fixed, *xs)

        loss = jax.lax.cond(_any_counts(xs[2]), compute, lambda: jnp.zeros((), jnp.float32))
        return total + loss, None

    return jax.lax.scan(body, jnp.zeros((), jnp.float32), (hidden, targets, weights))[0]


def _forward(chunk_loss, variables, fixed, hidden, targets, weights):
    trained = any(leaf.perturbed for leaf in jax.tree.leaves(variables, is_leaf=_is_primal))
    # The derivative by a token's weight is its loss: a step asks for it that tells tasks apart.
    wanted = (*([0] if trained else []), 2, *([4] if weights.perturbed else []))
    variables, fixed, hidden, targets, weights = jax.tree.map(
        lambda primal: primal.value, (variables, fixed, hidden, targets, weights), is_leaf=_is_primal
    )

    def body(carry, xs):
        arguments = (variables, fixed, *xs)

        def compute():
            return jax.value_and_grad(chunk_loss, wanted)(*arguments)

        def skip():
            return jnp.zeros((), jnp.float32), tuple(jax.tree.map(jnp.zeros_like, arguments[i]) for i in wanted)

        total, accumulated = carry
        loss, gradient = jax.lax.cond(_any_counts(xs[2]), compute, skip)
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
    return of_variables, None, scale(d_hidden), None, scale(d_weights[0]) if d_weights else None


_summed.defvjp(_forward, _backward, symbolic_zeros=True)
