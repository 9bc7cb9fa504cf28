"""Layers that read their weights, and nothing else, from the variables they are given.

A layer never declares a parameter and never knows a tuning method: it multiplies by the kernel it finds, and adds
what the other collections hold for its place. `x W` becomes `x W + (x A)(s B)` because a `lora` collection is there.

Legend, everywhere: `B` batch, `T` query length, `S` key length, `L` layers, `D` model width, `N` heads,
`K` key/value heads, `G = N / K` queries per key head, `H` head width, `F` mlp width, `V` vocabulary, `R` rank,
`P` prompt length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec

from jaxft.models.products import contract
from jaxft.models.quantised import Quantised, product

Variables = Mapping[str, Any]
Batch = Mapping[str, jax.Array]

ACTIVATIONS: dict[str, Callable] = {
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
}


class Transposed(NamedTuple):
    """A kernel held as `[F, D]`: what XLA on CPU multiplies a few rows by in the least time."""

    kernel: jax.Array


def dot(x: jax.Array, kernel: jax.Array | Transposed | Quantised) -> jax.Array:
    """Multiply `x` `[..., D]` by `kernel`: `[D, F]`, or `[B, D, F]` where each example has its own."""
    if isinstance(kernel, Quantised):
        return product(x, kernel)
    if isinstance(kernel, Transposed):
        # The barriers keep XLA from turning the product round again.
        barrier = jax.lax.optimization_barrier
        rows = barrier(x.reshape(-1, x.shape[-1]).T)
        return barrier(contract("FD,DM->FM", kernel.kernel.astype(x.dtype), rows)).T.reshape(*x.shape[:-1], -1)
    kernel = kernel.astype(x.dtype)
    if kernel.ndim == 3:
        return contract("BTD,BDF->BTF", x, kernel)
    # Two axes, because XLA on CPU transposes a copy of both factors to contract over two axes in the kernel's gradient.
    return contract("MD,DF->MF", x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def norm(x: jax.Array, weights: Variables, eps: float, offset: float = 0.0) -> jax.Array:
    """Return `x / rms(x) * (offset + scale)`, or LayerNorm where `weights` has a bias too; computed in float32.

    Zhang & Sennrich 2019, arXiv:1910.07467; Ba et al. 2016, arXiv:1607.06450. Gemma holds its scales less one.
    """
    x32 = x.astype(jnp.float32)
    if "bias" in weights:
        x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    x32 = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps)
    scale = _rows(weights["scale"], x.ndim).astype(jnp.float32)
    x32 = x32 * (scale + offset if offset else scale)
    if "bias" in weights:
        x32 = x32 + _rows(weights["bias"], x.ndim).astype(jnp.float32)
    return x32.astype(x.dtype)


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


def _rows(vector, ndim=3):
    # [F] -> [1, 1, F], and [B, F], where each example has its own, -> [B, 1, F].
    return vector.reshape(*vector.shape[:-1], *(1,) * (ndim - vector.ndim), vector.shape[-1])


def _scaled(x, scale):
    return x * _rows(scale).astype(x.dtype)


def _dropout(key, x, rate):
    rate = rate.reshape(*rate.shape, *(1,) * (x.ndim - rate.ndim))  # [], or [B] where each example has its own
    keep = jax.random.bernoulli(key, jnp.broadcast_to(1 - rate, x.shape))
    return jnp.where(keep, x / (1 - rate).astype(x.dtype), 0)


class Norm(nn.Module):
    eps: float
    offset: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return norm(x, self.variables["params"], self.eps, self.offset)


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


def constrain_batch(x: jax.Array) -> jax.Array:
    """Keep activations sharded over the batch alone, where a mesh is set; without one, return `x` as it is."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(name for name in ("data", "fsdp") if name in mesh.axis_names)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes)) if axes else x


def soft_cap(x: jax.Array, cap: float | None) -> jax.Array:
    """Return `cap tanh(x / cap)`: within ±cap (Gemma 2, arXiv:2408.00118)."""
    return x if cap is None else cap * jnp.tanh(x / cap)


def project(hidden: jax.Array, variables: Variables) -> jax.Array:
    """Return float32 logits `[..., V]`, from the head if there is one, else from the embedding."""
    params = variables["params"]
    if "head" in params:
        kernel, spec = params["head"]["kernel"], "MD,DV->MV"
        if isinstance(kernel, Transposed):
            return dot(hidden, kernel).astype(jnp.float32)
    else:
        kernel, spec = params["embedding"], "MD,VD->MV"
    rows = hidden.reshape(-1, hidden.shape[-1])
    logits = contract(spec, rows, kernel.astype(hidden.dtype), jnp.float32)
    return logits.reshape(*hidden.shape[:-1], logits.shape[-1])
