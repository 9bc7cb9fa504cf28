"""A stack of layers: segments `[n, ...]`, each one `lax.scan` over `Block.apply`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxft.models.attention import Place
from jaxft.models.layers import Variables, constrain_batch

REMAT: dict[str, Callable | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Numerics(NamedTuple):
    """How the arithmetic runs; no setting changes what is computed beyond rounding.

    `dtype` is that of activations. `remat` says what the backward pass keeps of a layer: everything ("none"), the
    products with kernels ("dots"), only its input ("full"). `unroll` compiles every layer apart: longer to compile,
    faster on CPU.
    """

    dtype: Any = jnp.float32
    remat: str = "dots"
    unroll: bool = False


def run_layers(block: nn.Module, stack: Variables, x, *, numerics: Numerics, key=None, own=None, **shared):
    """Run `x` through every layer of `stack`; return it and, per segment, what the layers emitted.

    `stack` is `{collection: (segment, ...)}`, each segment's leaves `[n, ...]`; `shared` goes to every layer as it is,
    and of the arrays `own` `{name: [L]}` each gets its own number.
    What is emitted is stacked alike, but without a layer axis where n is 1. Each segment is one `lax.scan`, so that
    compile time does not grow with depth and the backward pass of a segment that nothing trainable precedes is never
    computed.
    """

    def layer(x, per_layer):
        variables, own, layer_key = per_layer
        rngs = None if layer_key is None else {"dropout": layer_key}
        x, emitted = block.apply(variables, x, rngs=rngs, **own, **shared)
        return constrain_batch(x), emitted

    policy = REMAT[numerics.remat]
    if policy is not None:
        layer = jax.checkpoint(layer, policy=policy, prevent_cse=numerics.unroll)
    emitted = []
    for i, (segment, numbers, size) in enumerate(_segments(stack, own)):
        keys = None if key is None else jax.random.split(jax.random.fold_in(key, i), size)
        xs = segment, numbers, keys
        if size == 1:  # no loop to enter, and XLA need not find that out
            x, out = layer(x, jax.tree.map(lambda leaf: leaf[0], xs))
        else:
            x, out = jax.lax.scan(layer, x, xs, unroll=size if numerics.unroll else 1)
        emitted.append(out)
    return x, tuple(emitted)


def decode_layers(block: nn.Module, stack: Variables, x, cache: Sequence, *, slot: jax.Array, own=None, **shared):
    """Run the token `x` `[B, 1, D]` through every layer of `stack`, each with its `cache`; return it and the caches.

    `cache` has one entry per segment, as `run_layers` emitted it. It is what the loop over layers carries, not what
    it reads and emits: XLA writes a carry in place and would copy the other.
    """
    written = []
    for kept, (segment, numbers, size) in zip(cache, _segments(stack, own), strict=True):

        def layer(carry, per_layer):
            x, kept = carry
            variables, own, index = per_layer
            x, kept = block.apply(variables, x, kept, Place(slot, index), **own, **shared)
            return (constrain_batch(x), kept), None

        if size == 1:
            (x, kept), _ = layer((x, kept), (*jax.tree.map(lambda leaf: leaf[0], (segment, numbers)), None))
        else:
            (x, kept), _ = jax.lax.scan(layer, (x, kept), (segment, numbers, jnp.arange(size)))
        written.append(kept)
    return x, tuple(written)


def _segments(stack, own):
    """Yield each segment's collections, its layers' own numbers and its size."""
    start = 0
    for i, params in enumerate(stack["params"]):
        size = jax.tree.leaves(params)[0].shape[0]
        # A collection ends with the last segment that it has something for.
        segment = {collection: segments[i] for collection, segments in stack.items() if i < len(segments)}
        yield segment, {name: array[start : start + size] for name, array in (own or {}).items()}, size
        start += size


def stack_of(variables: Variables, *path: str) -> dict[str, tuple]:
    """Return `{collection: segments}` of the layers found under `path` (T5 has two stacks) in each collection."""
    stacks = {}
    for collection, tree in variables.items():
        for name in path:
            tree = tree.get(name, {})
        if "layers" in tree:
            stacks[collection] = tree["layers"]
    return stacks
