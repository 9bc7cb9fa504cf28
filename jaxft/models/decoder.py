"""Decoder-only transformers: Llama and its relatives, Gemma, GPT-2. A family is a configuration.

    architecture = Decoder(DecoderConfig(vocab_size=256, num_layers=2, width=64, ...))
    variables = {"params": architecture.init(jax.random.key(0))}
    logits = architecture.head(variables, architecture.hidden(variables, batch))

`params`: `embedding [V, D]`, `layers` (a tuple of segments stacked over layers), `norm`, `head` unless tied, and
`positions [max_length, D]` where positions are learned.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxft.models import layers
from jaxft.models.attention import Attention, RopeScaling, attention_mask, extend_cache, make_room, rotary, same_branch
from jaxft.models.layers import Batch, Variables
from jaxft.models.stack import Numerics, decode_layers, run_layers, stack_of

# What a layer's attention sees and how it tells positions apart: all before it; the last `window` tokens, with the
# rotary base `local_theta` if there is one; all before it, without rotary positions.
FULL, LOCAL, PLAIN = "full", "local", "plain"


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder-only model; widths are per head where they say so."""

    family: str
    vocab_size: int
    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_width: int
    rope_theta: float | None = 10000.0  # None: positions are learned
    rope_scaling: RopeScaling | None = None
    rotary_share: float = 1.0  # of a head's width
    layer_kinds: tuple[str, ...] = ()  # one a layer; empty: all FULL
    window: int | None = None
    local_theta: float | None = None
    norm: str = "rms"  # or "layer"
    norm_eps: float = 1e-5
    norm_offset: float = 0.0
    post_norms: bool = False  # a norm after each sublayer too
    head_norms: bool = False  # norms of each head's queries and keys
    activation: str = "silu"
    gated: bool = True
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    attention_scalar: float | None = None  # scores are divided by its root; None: head_dim
    attention_cap: float | None = None
    logit_cap: float | None = None
    scaled_embedding: bool = False  # embeddings are multiplied by the root of the width
    tie_embeddings: bool = True
    max_length: int = 2048
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """The different kinds of layers, in a fixed order."""
        return tuple(sorted(set(self.layer_kinds))) or (FULL,)


class View(NamedTuple):
    """What a layer may look at, and the cosines and sines of its positions; a kind's, or stacked over kinds."""

    mask: jax.Array  # [B, T, S]
    rope: tuple[jax.Array, jax.Array] | None


class Block(nn.Module):
    """Pre-norm attention and MLP, each added to the residual; `emit` hands out the new keys and values."""

    config: DecoderConfig
    emit: bool = True

    @nn.compact
    def __call__(self, x, cache=None, place=None, *, view, kind=None):
        c = self.config
        norm = functools.partial(layers.Norm, c.norm_eps, c.norm_offset)
        if kind is not None:  # a number, scanned with the weights: no branch, so one program for all layers
            view = jax.tree.map(lambda leaf: leaf[kind], view)

        def after(name, y):
            return norm(name=name)(y) if c.post_norms else y

        attention = Attention(
            c.num_heads,
            c.num_kv_heads,
            c.head_dim,
            (c.attention_scalar or c.head_dim) ** -0.5,
            c.attention_cap,
            norm if c.head_norms else None,
            name="attention",
        )
        normed = norm(name="attention_norm")(x)
        attended, own = attention(normed, mask=view.mask, rope=view.rope, cache=cache and cache["own"], place=place)
        attended = after("attention_post_norm", attended)
        x = x + layers.Adapter(name="attention_adapter")(attended, normed)
        normed = norm(name="mlp_norm")(x)
        inner = after("mlp_post_norm", layers.MLP(c.activation, c.gated, name="mlp")(normed))
        x = x + layers.Adapter(name="mlp_adapter")(inner, normed)
        return x, {"own": own} if self.emit else None


@dataclasses.dataclass(frozen=True)
class Decoder:
    """The pure functions of a decoder-only model. Hashable: a static argument of a jitted function."""

    config: DecoderConfig
    numerics: Numerics = Numerics()

    def init(self, key: jax.Array, dtype: Any = jnp.float32) -> dict:
        """Return random params; kernels are drawn with standard deviation 0.02."""
        c = self.config
        keys = iter(jax.random.split(key, 16))

        def matrix(*shape):
            return (0.02 * jax.random.normal(next(keys), shape)).astype(dtype)

        def dense(width, out, bias=False):
            made = {"kernel": matrix(c.num_layers, width, out)}
            return made | ({"bias": jnp.zeros((c.num_layers, out), dtype)} if bias else {})

        def norm(*shape):
            made = {"scale": jnp.full(shape, 1 - c.norm_offset, dtype)}
            return made | ({"bias": jnp.zeros(shape, dtype)} if c.norm == "layer" else {})

        queries, keys_out = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
        attention = {
            "q": dense(c.width, queries, c.qkv_bias),
            "k": dense(c.width, keys_out, c.qkv_bias),
            "v": dense(c.width, keys_out, c.qkv_bias),
            "o": dense(queries, c.width, c.o_bias),
        }
        if c.head_norms:
            attention |= {name: norm(c.num_layers, c.head_dim) for name in ("q_norm", "k_norm")}
        mlp = {name: dense(c.width, c.mlp_width, c.mlp_bias) for name in (("gate", "up") if c.gated else ("up",))}
        mlp["down"] = dense(c.mlp_width, c.width, c.mlp_bias)
        after = ("attention_post_norm", "mlp_post_norm") if c.post_norms else ()
        norms = {name: norm(c.num_layers, c.width) for name in ("attention_norm", "mlp_norm", *after)}
        params = {
            "embedding": matrix(c.vocab_size, c.width),
            "layers": ({"attention": attention, "mlp": mlp, **norms},),
            "norm": norm(c.width),
        }
        if c.rope_theta is None:
            params["positions"] = matrix(c.max_length, c.width)
        if not c.tie_embeddings:
            params["head"] = {"kernel": matrix(c.width, c.vocab_size)}
        return params

    def hidden(self, variables: Variables, batch: Batch, key: jax.Array | None = None) -> jax.Array:
        """Return the normed hidden states `[B, T, D]`; a soft prompt's own positions are cut off.

        `key` turns on dropout where a collection asks for it.
        """
        return self._forward(variables, batch, key)[0]

    def head(self, variables: Variables, hidden: jax.Array) -> jax.Array:
        """Return float32 logits `[..., V]` of `hidden` `[..., D]`."""
        return layers.soft_cap(layers.project(hidden, variables), self.config.logit_cap)

    def prefill(self, variables: Variables, batch: Batch, length: int) -> tuple[jax.Array, dict]:
        """Read the prompts; return hidden states `[B, T, D]` and a cache with room for `length` more tokens."""
        hidden, emitted, segments, positions = self._forward(variables, batch, None, keep_cache=True)
        cache = {
            "layers": make_room(emitted, length),
            "segments": jnp.pad(segments, ((0, 0), (0, length))),
            "positions": jnp.pad(positions, ((0, 0), (0, length))),
            "slot": jnp.asarray(segments.shape[1], jnp.int32),
            "position": jnp.max(jnp.where(segments != 0, positions, -1), axis=1) + 1,
        }
        return hidden, cache

    def decode(self, variables: Variables, token: jax.Array, cache: dict) -> tuple[jax.Array, dict]:
        """Read one `token` `[B, 1]` at the cache's next position; return hidden `[B, 1, D]` and the longer cache."""
        slot, position = cache["slot"], cache["position"][:, None]
        cache = extend_cache(cache)
        x, kept = decode_layers(
            Block(self.config),
            stack_of(variables),
            self._positioned(variables, self._embed(variables, token), position),
            cache["layers"],
            slot=slot,
            own=self._own,
            view=self._views((cache["segments"] != 0)[:, None, :], position, cache["positions"]),
        )
        return self._norm(variables, x), cache | {"layers": kept}

    def _forward(self, variables, batch, key, keep_cache=False):
        prompt = variables.get("prompt")
        x = layers.prepend_prompt(self._embed(variables, batch["tokens"]), prompt)
        segments, positions = layers.with_prompt(batch["segments"], batch["positions"], prompt)
        x = self._positioned(variables, x, positions)
        mask = attention_mask(segments, positions, segments, positions, causal=True)
        if "branches" in batch:
            mask = mask & same_branch(batch["branches"], x.shape[1] - batch["branches"].shape[1])
        x, emitted = run_layers(
            Block(self.config, emit=keep_cache),
            stack_of(variables),
            x,
            numerics=self.numerics,
            key=key,
            own=self._own,
            view=self._views(mask, positions, positions),
        )
        hidden = self._norm(variables, x[:, -batch["tokens"].shape[1] :])
        return hidden, emitted, segments, positions

    def _embed(self, variables, tokens):
        x = layers.embed(variables["params"]["embedding"], tokens, self.numerics.dtype)
        return x * jnp.asarray(self.config.width**0.5, x.dtype) if self.config.scaled_embedding else x

    def _positioned(self, variables, x, positions):
        if self.config.rope_theta is not None:
            return x
        return x + layers.embed(variables["params"]["positions"], positions, x.dtype)

    @property
    def _own(self):
        c = self.config
        if len(c.kinds) == 1:
            return None
        return {"kind": np.array([c.kinds.index(kind) for kind in c.layer_kinds], np.int32)}

    def _views(self, mask, positions, key_positions):
        views = [self._view(kind, mask, positions, key_positions) for kind in self.config.kinds]
        return views[0] if len(views) == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *views)

    def _view(self, kind, mask, positions, key_positions):
        c = self.config
        if kind == LOCAL and c.window is not None:
            mask = mask & (key_positions[:, None, :] > positions[:, :, None] - c.window)
        if c.rope_theta is None:
            return View(mask, None)
        theta, scaling = c.rope_theta, c.rope_scaling
        if kind == LOCAL and c.local_theta is not None:
            theta, scaling = c.local_theta, None
        if kind == PLAIN:
            positions = jnp.zeros_like(positions)  # turned by no angle
        return View(mask, rotary(positions, int(c.head_dim * c.rotary_share), theta, scaling))

    def _norm(self, variables, x):
        return layers.norm(x, variables["params"]["norm"], self.config.norm_eps, self.config.norm_offset)
