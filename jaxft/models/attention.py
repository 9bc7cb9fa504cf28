"""Attention over blocks of keys and values, their cache, and rotary positions.

Keys `[B, K, H, S]` and values `[B, K, S, H]` are head-major, so that the products of attention have their batch axes in
front and need no transposed copy. The legend of shapes is in `layers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxft.models.layers import Dense, Norm, soft_cap
from jaxft.models.products import contract

Pair = tuple[jax.Array, jax.Array]  # keys and values


class RopeScaling(NamedTuple):
    """How rotary frequencies are stretched beyond the length that a model was first trained on.

    "linear" divides all by `factor` (Chen et al. 2023, arXiv:2306.15595). "llama3" divides those that turn less than
    `low` times in `original` positions, leaves those that turn more than `high` times, and blends between
    (Grattafiori et al. 2024, arXiv:2407.21783).
    """

    kind: str
    factor: float
    low: float = 1.0
    high: float = 4.0
    original: int = 8192

    def scaled(self, frequencies: np.ndarray) -> np.ndarray:
        if self.kind == "linear":
            return frequencies / self.factor
        turns = self.original * frequencies / (2 * np.pi)
        kept = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return frequencies * (kept + (1 - kept) / self.factor)


def rotary(
    positions: jax.Array, width: int, theta: float, scaling: RopeScaling | None = None
) -> tuple[jax.Array, jax.Array]:
    """Return the cosines and sines `[B, T, 1, W/2]` of rotary embedding (Su et al. 2021, arXiv:2104.09864).

    `width` W is how much of a head is rotated.
    """
    frequencies = theta ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    if scaling is not None:
        frequencies = scaling.scaled(frequencies)
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies.astype(np.float32)[None, None, None]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, rope: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotate `x` `[B, T, N, H]`, whose two halves along W hold the pairs, as Hugging Face lays them out.

    What `rope` does not reach of the last axis stays.
    """
    cos, sin = rope
    half = cos.shape[-1]
    first, second, rest = jnp.split(x, [half, 2 * half], axis=-1)
    first, second = first.astype(jnp.float32), second.astype(jnp.float32)
    turned = [(first * cos - second * sin).astype(x.dtype), (second * cos + first * sin).astype(x.dtype)]
    return jnp.concatenate([*turned, rest] if rest.shape[-1] else turned, axis=-1)


class Keys(NamedTuple):
    """One block of what attention may look at; blocks are joined in the softmax, never copied together."""

    key: jax.Array  # [B, K, H, S]
    value: jax.Array  # [B, K, S, H]
    mask: jax.Array  # bool, broadcastable to [B, T, S]
    bias: jax.Array | None = None  # broadcastable to [B, N, T, S]


def attend(query: jax.Array, blocks: Sequence[Keys], scale: float, cap: float | None = None) -> jax.Array:
    """Attend from `query` `[B, T, N, H]` to all `blocks` under one float32 softmax; return `[B, T, N*H]`.

    `cap` bounds the scores softly.
    """
    batch, length, heads, width = query.shape
    kv_heads = blocks[0].value.shape[1]
    # The scale goes onto the query: T x H products instead of T x S.
    query = (query * scale).reshape(batch, length, kv_heads, heads // kv_heads, width)
    query = query.transpose(0, 2, 3, 1, 4)  # [B, K, G, T, H]
    scores = jnp.concatenate([_scores(query, block, cap) for block in blocks], axis=-1)
    weights = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    out: Any = 0
    start = 0
    for block in blocks:
        size = block.value.shape[2]
        part = weights if len(blocks) == 1 else jax.lax.slice_in_dim(weights, start, start + size, axis=-1)
        out = out + contract("BKGTS,BKSH->BKGTH", part, block.value)
        start += size
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads * width)


def _scores(query, block, cap):
    scores = contract("BKGTH,BKHS->BKGTS", query, block.key, jnp.float32)
    if block.bias is not None:
        scores = scores + block.bias.reshape(block.bias.shape[0], *scores.shape[1:3], *block.bias.shape[2:])
    scores = soft_cap(scores, cap)
    # Finite, so that a row with nothing to look at (padding) stays finite too.
    return jnp.where(block.mask[:, None, None], scores, -1e30)


def attention_mask(query_segments, query_positions, key_segments, key_positions, causal: bool) -> jax.Array:
    """Return `[B, T, S]`: same segment, not padding, and not ahead in position when `causal`."""
    mask = (query_segments[:, :, None] == key_segments[:, None, :]) & (key_segments != 0)[:, None, :]
    return mask & (key_positions[:, None, :] <= query_positions[:, :, None]) if causal else mask


def same_branch(branches: jax.Array, behind: int) -> jax.Array:
    """Return `[B, T, T]`, T being `behind` more than `branches` has: keys of the query's branch or of the trunk (0).

    Several continuations of one text share a row like this: each sees the text and itself. What stands in front of the
    row (a soft prompt) belongs to the trunk.
    """
    branches = jnp.pad(branches, ((0, 0), (behind, 0)))
    keys = branches[:, None, :]
    return (keys == branches[:, :, None]) | (keys == 0)


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
    """Grouped-query attention; returns the keys and values for the cache, or the cache with them.

    `head_norm` makes the norm of each head's queries and keys (Qwen 3, Gemma 3); None: they have none.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    cap: float | None = None
    head_norm: Callable[..., Norm] | None = None

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
            if self.head_norm is not None:
                query, key = self.head_norm(name="q_norm")(query), self.head_norm(name="k_norm")(key)
            if rope is not None:
                query, key = rotate(query, rope), rotate(key, rope)
            memory = key.transpose(0, 2, 3, 1), value.transpose(0, 2, 1, 3)
        kept = memory
        if cache is not None:
            # Written first and read after: the order in which XLA needs no copy of the cache.
            kept = place.write(cache, memory)
            memory = place.read(kept)
        blocks = [*self._prefix(query), Keys(*memory, mask, bias)]
        return Dense(name="o")(attend(query, blocks, self.scale, self.cap)), kept

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
