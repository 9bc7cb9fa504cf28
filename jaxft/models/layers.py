"""Layers that read their weights, and nothing else, from the variables they are given.

A layer never declares a parameter and never knows a tuning method: it multiplies by the kernel it finds, and adds
what the other collections hold for its place. `x W` becomes `x W + (x A)(s B)` because a `lora` collection is there.

Legend, everywhere: `B` batch, `T` query length, `S` key length, `L` layers, `D` model width, `N` heads,
`K` key/value heads, `G = N / K` queries per key head, `H` head width, `F` mlp width, `V` vocabulary, `R` rank,
`P` prompt length. Keys `[B, K, H, S]` and values `[B, K, S, H]` are head-major, so that the products of attention have
their batch axes in front and need no transposed copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec

Variables = Mapping[str, Any]
Batch = Mapping[str, jax.Array]
Pair = tuple[jax.Array, jax.Array]  # keys and values

ACTIVATIONS: dict[str, Callable] = {
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
}

REMAT: dict[str, Callable | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Transposed(NamedTuple):
    """A kernel held as `[F, D]`: what XLA on CPU multiplies a few rows by in the least time."""

    kernel: jax.Array


def dot(x: jax.Array, kernel: jax.Array | Transposed) -> jax.Array:
    """Multiply `x` `[..., D]` by `kernel`: `[D, F]`, or `[B, D, F]` where each example has its own."""
    if isinstance(kernel, Transposed):
        # The barriers keep XLA from turning the product round again.
        barrier = jax.lax.optimization_barrier
        rows = barrier(x.reshape(-1, x.shape[-1]).T)
        return barrier(kernel.kernel.astype(x.dtype) @ rows).T.reshape(*x.shape[:-1], -1)
    kernel = kernel.astype(x.dtype)
    if kernel.ndim == 3:
        return x @ kernel
    # Two axes, because XLA on CPU transposes a copy of both factors to contract over two axes in the kernel's gradient.
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """Return `x / rms(x) * scale`, computed in float32 (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    x32 = x.astype(jnp.float32)
    x32 = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps)
    return (x32 * _rows(scale).astype(jnp.float32)).astype(x.dtype)


def rotary(positions: jax.Array, head_dim: int, theta: float) -> tuple[jax.Array, jax.Array]:
    """Return the cosines and sines `[B, T, 1, H/2]` of rotary embedding (Su et al. 2021, arXiv:2104.09864)."""
    frequencies = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies[None, None, None]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, rope: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotate `x` `[B, T, N, H]`, whose two halves along H hold the pairs, as Hugging Face lays them out."""
    cos, sin = rope
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


class Keys(NamedTuple):
    """One block of what attention may look at; blocks are joined in the softmax, never copied together."""

    key: jax.Array  # [B, K, H, S]
    value: jax.Array  # [B, K, S, H]
    mask: jax.Array  # bool, broadcastable to [B, T, S]
    bias: jax.Array | None = None  # broadcastable to [B, N, T, S]


def attend(query: jax.Array, blocks: Sequence[Keys], scale: float) -> jax.Array:
    """Attend from `query` `[B, T, N, H]` to all `blocks` under one float32 softmax; return `[B, T, N*H]`."""
    batch, length, heads, width = query.shape
    kv_heads = blocks[0].value.shape[1]
    # The scale goes onto the query: T x H products instead of T x S.
    query = (query * scale).reshape(batch, length, kv_heads, heads // kv_heads, width)
    query = query.transpose(0, 2, 3, 1, 4)  # [B, K, G, T, H]
    scores = jnp.concatenate([_scores(query, block) for block in blocks], axis=-1)
    weights = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    out: Any = 0
    start = 0
    for block in blocks:
        size = block.value.shape[2]
        part = weights if len(blocks) == 1 else jax.lax.slice_in_dim(weights, start, start + size, axis=-1)
        out = out + jnp.einsum("BKGTS,BKSH->BKGTH", part, block.value)
        start += size
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads * width)


def _scores(query, block):
    scores = jnp.einsum("BKGTH,BKHS->BKGTS", query, block.key, preferred_element_type=jnp.float32)
    if block.bias is not None:
        scores = scores + block.bias.reshape(block.bias.shape[0], *scores.shape[1:3], *block.bias.shape[2:])
    # Finite, so that a row with nothing to look at (padding) stays finite too.
    return jnp.where(block.mask[:, None, None], scores, -1e30)


def attention_mask(query_segments, query_positions, key_segments, key_positions, causal: bool) -> jax.Array:
    """Return `[B, T, S]`: same segment, not padding, and not ahead in position when `causal`."""
    mask = (query_segments[:, :, None] == key_segments[:, None, :]) & (key_segments != 0)[:, None, :]
    return mask & (key_positions[:, None, :] <= query_positions[:, :, None]) if causal else mask


class Dense(nn.Module):
    """`x W (+ bias)`, and what other collections hold for this place: a low-rank update, scales.

    `scale` multiplies the input, the product (before the bias: DoRA) or the output (after it: IA3).
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.has_variable("scale", "input"):
            x = _scaled(x, self.get_variable("scale", "input"))
        y = dot(x, self.get_variable("params", "kernel"))
        if self.has_variable("lora", "a"):
            a: jax.Array = self.get_variable("lora", "a")
            b: jax.Array = self.get_variable("lora", "b")
            if self.has_variable("lora", "dropout") and self.has_rng("dropout"):
                x = _dropout(self.make_rng("dropout"), x, self.get_variable("lora", "dropout"))
            y = y + dot(dot(x, a), b)
        if self.has_variable("scale", "product"):
            y = _scaled(y, self.get_variable("scale", "product"))
        if self.has_variable("params", "bias"):
            y = y + _rows(self.get_variable("params", "bias")).astype(y.dtype)
        if self.has_variable("scale", "output"):
            y = _scaled(y, self.get_variable("scale", "output"))
        return y


def _rows(vector):
    # [F] -> [1, 1, F], and [B, F], where each example has its own, -> [B, 1, F].
    return vector[None, None] if vector.ndim == 1 else vector[:, None]


def _scaled(x, scale):
    return x * _rows(scale).astype(x.dtype)


def _dropout(key, x, rate):
    rate = rate.reshape(*rate.shape, *(1,) * (x.ndim - rate.ndim))  # [], or [B] where each example has its own
    keep = jax.random.bernoulli(key, jnp.broadcast_to(1 - rate, x.shape))
    return jnp.where(keep, x / (1 - rate).astype(x.dtype), 0)


class Norm(nn.Module):
    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return rms_norm(x, self.get_variable("params", "scale"), self.eps)


class Adapter(nn.Module):
    """What an `adapter` collection adds to a sublayer's output (Houlsby et al. 2019, arXiv:1902.00751); else nothing.

    The tree decides: `{"serial" | "parallel": {activation: {"down": ..., "up": ...}}}`. A serial adapter reads the
    sublayer's output, a parallel one its input (He et al. 2022, arXiv:2110.04366).
    """

    @nn.compact
    def __call__(self, output: jax.Array, source: jax.Array) -> jax.Array:
        added = output
        for kind, x in (("serial", output), ("parallel", source)):
            for activation, weights in self.variables.get("adapter", {}).get(kind, {}).items():
                inner = ACTIVATIONS[activation](_affine(x, weights["down"]))
                added = added + _affine(inner, weights["up"])
        return added


def _affine(x, weights):
    return dot(x, weights["kernel"]) + _rows(weights["bias"]).astype(x.dtype)


class Place(NamedTuple):
    """Where keys and values are cached: at `slot`, in the `layer`-th of a stack or (None) in the layer's own arrays."""

    slot: jax.Array
    layer: jax.Array | None

    def write(self, cache: Pair, new: Pair) -> Pair:
        """Write `new`, keys `[B, K, H, T]` and values `[B, K, T, H]`, into `cache`."""
        return self._write(cache[0], new[0], 3), self._write(cache[1], new[1], 2)

    def _write(self, cache, new, axis):
        new = new.astype(cache.dtype)
        if self.layer is None:
            return jax.lax.dynamic_update_slice_in_dim(cache, new, self.slot, axis)
        start = [self.layer, 0, 0, 0, 0]
        start[axis + 1] = self.slot
        return jax.lax.dynamic_update_slice(cache, new[None], start)

    def read(self, cache: Pair) -> Pair:
        """Return this layer's keys and values."""
        if self.layer is None:
            return cache
        key, value = (jax.lax.dynamic_index_in_dim(x, self.layer, 0, keepdims=False) for x in cache)
        return key, value


class Attention(nn.Module):
    """Grouped-query attention; returns the keys and values for the cache, or the cache with them."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float

    @nn.compact
    def __call__(self, x, *, mask, bias=None, rope=None, cache=None, place=None, source=None, memory=None):
        """Map `x` `[B, T, D]` to `[B, T, D]`.

        `source` `[B, S, D]` is what keys and values are made from (default `x`); `memory` is keys and values that
        are made already (cross-attention while decoding). With a `cache` (keys, values) the new ones are written to
        their `place` in it, and attention is over all that it holds.
        """
        query = _heads(Dense(name="q")(x), self.num_heads, self.head_dim)
        if memory is None:
            source = x if source is None else source
            key = _heads(Dense(name="k")(source), self.num_kv_heads, self.head_dim)
            value = _heads(Dense(name="v")(source), self.num_kv_heads, self.head_dim)
            if rope is not None:
                query, key = rotate(query, rope), rotate(key, rope)
            memory = key.transpose(0, 2, 3, 1), value.transpose(0, 2, 1, 3)
        kept = memory
        if cache is not None:
            # Written first and read after: the order in which XLA needs no copy of the cache.
            kept = place.write(cache, memory)
            memory = place.read(kept)
        blocks = [*self._prefix(query), Keys(*memory, mask, bias)]
        return Dense(name="o")(attend(query, blocks, self.scale)), kept

    def _prefix(self, query):
        if not self.has_variable("prefix", "key"):
            return []
        # [P, K*H], or [B, P, K*H] where each example has its own; neither rotated nor biased: it has no position.
        key, value = (self.get_variable("prefix", name).astype(query.dtype) for name in ("key", "value"))
        key, value = (x if x.ndim == 3 else x[None] for x in (key, value))
        key, value = (jnp.broadcast_to(x, (query.shape[0], *x.shape[1:])) for x in (key, value))
        key, value = (_heads(x, self.num_kv_heads, self.head_dim) for x in (key, value))
        mask = jnp.ones((1, 1, key.shape[1]), bool)
        if self.has_variable("prefix", "length"):  # [B]: prefixes of unequal length, padded behind
            mask = jnp.arange(key.shape[1])[None, None] < self.get_variable("prefix", "length")[:, None, None]
        return [Keys(key.transpose(0, 2, 3, 1), value.transpose(0, 2, 1, 3), mask)]


def _heads(x, heads, width):
    return x.reshape(*x.shape[:2], heads, width)


class MLP(nn.Module):
    """`down(act(up x))`, or `down(act(gate x) * up x)` where there is a gate (Shazeer 2020, arXiv:2002.05202)."""

    activation: str
    gated: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        act = ACTIVATIONS[self.activation]
        up = Dense(name="up")(x)
        inner = act(Dense(name="gate")(x)) * up if self.gated else act(up)
        return Dense(name="down")(inner)


class Numerics(NamedTuple):
    """How the arithmetic runs; no setting changes what is computed beyond rounding.

    `dtype` is that of activations. `remat` says what the backward pass keeps of a layer: everything ("none"), the
    products with kernels ("dots"), only its input ("full"). `unroll` compiles every layer apart: longer to compile,
    faster on CPU.
    """

    dtype: Any = jnp.float32
    remat: str = "dots"
    unroll: bool = False


def run_layers(block: nn.Module, stack: Variables, x, *, numerics: Numerics, key=None, **shared):
    """Run `x` through every layer of `stack`; return it and, per segment, what the layers emitted.

    `stack` is `{collection: (segment, ...)}`, each segment's leaves `[n, ...]`; `shared` goes to every layer as it is.
    What is emitted is stacked alike, but without a layer axis where n is 1. Each segment is one `lax.scan`, so that
    compile time does not grow with depth and the backward pass of a segment that nothing trainable precedes is never
    computed.
    """

    def layer(x, per_layer):
        variables, layer_key = per_layer
        rngs = None if layer_key is None else {"dropout": layer_key}
        x, emitted = block.apply(variables, x, rngs=rngs, **shared)
        return constrain_batch(x), emitted

    policy = REMAT[numerics.remat]
    if policy is not None:
        layer = jax.checkpoint(layer, policy=policy, prevent_cse=numerics.unroll)
    emitted = []
    for i in range(len(stack["params"])):
        segment = _segment(stack, i)
        size = jax.tree.leaves(segment["params"])[0].shape[0]
        keys = None if key is None else jax.random.split(jax.random.fold_in(key, i), size)
        xs = segment, keys
        if size == 1:  # no loop to enter, and XLA need not find that out
            x, out = layer(x, jax.tree.map(lambda leaf: leaf[0], xs))
        else:
            x, out = jax.lax.scan(layer, x, xs, unroll=size if numerics.unroll else 1)
        emitted.append(out)
    return x, tuple(emitted)


def decode_layers(block: nn.Module, stack: Variables, x, cache: Sequence, *, slot: jax.Array, **shared):
    """Run the token `x` `[B, 1, D]` through every layer of `stack`, each with its `cache`; return it and the caches.

    `cache` has one entry per segment, as `run_layers` emitted it. It is what the loop over layers carries, not what
    it reads and emits: XLA writes a carry in place and would copy the other.
    """
    written = []
    for i, kept in enumerate(cache):
        segment = _segment(stack, i)
        size = jax.tree.leaves(segment["params"])[0].shape[0]

        def layer(carry, per_layer):
            x, kept = carry
            variables, index = per_layer
            x, kept = block.apply(variables, x, kept, Place(slot, index), **shared)
            return (constrain_batch(x), kept), None

        if size == 1:
            (x, kept), _ = layer((x, kept), (jax.tree.map(lambda leaf: leaf[0], segment), None))
        else:
            (x, kept), _ = jax.lax.scan(layer, (x, kept), (segment, jnp.arange(size)))
        written.append(kept)
    return x, tuple(written)


def _segment(stack, i):
    # A collection ends with the last segment that it has something for.
    return {collection: segments[i] for collection, segments in stack.items() if i < len(segments)}


def stack_of(variables: Variables, *path: str) -> dict[str, tuple]:
    """Return `{collection: segments}` of the layers found under `path` (T5 has two stacks) in each collection."""
    stacks = {}
    for collection, tree in variables.items():
        for name in path:
            tree = tree.get(name, {})
        if "layers" in tree:
            stacks[collection] = tree["layers"]
    return stacks


def embed(table: jax.Array, tokens: jax.Array, dtype: Any) -> jax.Array:
    return constrain_batch(table.at[tokens].get(mode="clip").astype(dtype))


def prepend_prompt(x: jax.Array, prompt: Variables | None) -> jax.Array:
    """Put a soft prompt's embedding (`[P, D]`, or `[B, P, D]`), if there is one, before `x` `[B, T, D]`."""
    if prompt is None:
        return x
    soft = prompt["embedding"].astype(x.dtype)
    soft = jnp.broadcast_to(soft if soft.ndim == 3 else soft[None], (x.shape[0], *soft.shape[-2:]))
    return jnp.concatenate([soft, x], axis=1)


def with_prompt(segments: jax.Array, positions: jax.Array, prompt: Variables | None) -> tuple[jax.Array, jax.Array]:
    """Return segments and positions `[B, P + T]` as they are behind a soft `prompt`, whose tokens have segment 1.

    Prompts of unequal length are padded in front, and `length` `[B]` beside the embedding says how long each is.
    """
    if prompt is None:
        return segments, positions
    rows, size = segments.shape[0], prompt["embedding"].shape[-2]
    length = prompt.get("length", jnp.full((rows,), size))[:, None].astype(positions.dtype)
    first = jnp.arange(size, dtype=positions.dtype)[None] - (size - length)
    segments = jnp.concatenate([(first >= 0).astype(segments.dtype), segments], axis=1)
    return segments, jnp.concatenate([jnp.maximum(first, 0), positions + length], axis=1)


def extend_cache(cache: dict) -> dict:
    """Count in one more token of every row, whose keys and values the layers write next."""
    slot, position = cache["slot"], cache["position"]

    def write(old, values):
        return jax.lax.dynamic_update_slice_in_dim(old, values[:, None].astype(old.dtype), slot, 1)

    return cache | {
        "segments": write(cache["segments"], jnp.ones_like(position)),
        "positions": write(cache["positions"], position),
        "slot": slot + 1,
        "position": position + 1,
    }


def make_room(emitted: tuple, length: int) -> tuple:
    """Return what the layers emitted with room for `length` more tokens in each layer's own keys and values."""

    def pad(x, axis):
        return jnp.pad(x, [(0, length if i == x.ndim + axis else 0) for i in range(x.ndim)])

    return tuple(
        segment | {"own": (pad(key, -1), pad(value, -2))} for segment in emitted for key, value in [segment["own"]]
    )


def constrain_batch(x: jax.Array) -> jax.Array:
    """Keep activations sharded over the batch alone, where a mesh is set; without one, return `x` as it is."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(name for name in ("data", "fsdp") if name in mesh.axis_names)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes)) if axes else x


def project(hidden: jax.Array, variables: Variables) -> jax.Array:
    """Return float32 logits `[..., V]`, from the head if there is one, else from the embedding."""
    params = variables["params"]
    if "head" in params:
        kernel, contract = params["head"]["kernel"], 0
        if isinstance(kernel, Transposed):
            return dot(hidden, kernel).astype(jnp.float32)
    else:
        kernel, contract = params["embedding"], 1
    dimensions = (((hidden.ndim - 1,), (contract,)), ((), ()))
    return jax.lax.dot_general(hidden, kernel.astype(hidden.dtype), dimensions, preferred_element_type=jnp.float32)
