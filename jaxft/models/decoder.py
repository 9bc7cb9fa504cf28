"""Decoder-only transformers of the Llama family (Touvron et al. 2023, arXiv:2302.13971).

    architecture = Decoder(DecoderConfig(vocab_size=256, num_layers=2, width=64, ...))
    variables = {"params": architecture.init(jax.random.key(0))}
    logits = architecture.head(variables, architecture.hidden(variables, batch))

`params`: `embedding [V, D]`, `layers` (a tuple of segments stacked over layers), `norm`, and `head` unless tied.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxft.models import layers
from jaxft.models.attention import Attention, attention_mask, extend_cache, make_room, rotary
from jaxft.models.layers import Batch, Variables
from jaxft.models.stack import Numerics, decode_layers, run_layers, stack_of


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
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    activation: str = "silu"
    tie_embeddings: bool = True
    attention_bias: bool = False
    max_length: int = 2048
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int = 0


class Block(nn.Module):
    """Pre-norm attention and gated MLP, each added to the residual; `emit` hands out the new keys and values."""

    config: DecoderConfig
    emit: bool = True

    @nn.compact
    def __call__(self, x, cache=None, place=None, *, mask, rope):
        c = self.config
        attention = Attention(c.num_heads, c.num_kv_heads, c.head_dim, c.head_dim**-0.5, name="attention")
        normed = layers.Norm(c.norm_eps, name="attention_norm")(x)
        attended, own = attention(normed, mask=mask, rope=rope, cache=cache and cache["own"], place=place)
        x = x + layers.Adapter(name="attention_adapter")(attended, normed)
        normed = layers.Norm(c.norm_eps, name="mlp_norm")(x)
        x = x + layers.Adapter(name="mlp_adapter")(layers.MLP(c.activation, gated=True, name="mlp")(normed), normed)
        return x, {"own": own} if self.emit else None


@dataclasses.dataclass(frozen=True)
class Decoder:
    """The pure functions of a decoder-only model. Hashable: a static argument of a jitted function."""

    config: DecoderConfig
    numerics: Numerics = Numerics()

    def init(self, key: jax.Array, dtype: Any = jnp.float32) -> dict:
        """Return random params; kernels are drawn with standard deviation 0.02."""
        c = self.config
        shapes = {
            "attention": {
                "q": (c.width, c.num_heads * c.head_dim),
                "k": (c.width, c.num_kv_heads * c.head_dim),
                "v": (c.width, c.num_kv_heads * c.head_dim),
                "o": (c.num_heads * c.head_dim, c.width),
            },
            "mlp": {"gate": (c.width, c.mlp_width), "up": (c.width, c.mlp_width), "down": (c.mlp_width, c.width)},
        }
        keys = iter(jax.random.split(key, 16))

        def kernel(shape):
            return {"kernel": (0.02 * jax.random.normal(next(keys), shape)).astype(dtype)}

        stacked: dict = {
            group: {name: kernel((c.num_layers, *shape)) for name, shape in members.items()}
            for group, members in shapes.items()
        }
        if c.attention_bias:
            for name in ("q", "k", "v"):
                stacked["attention"][name]["bias"] = jnp.zeros((c.num_layers, shapes["attention"][name][1]), dtype)
        for norm in ("attention_norm", "mlp_norm"):
            stacked[norm] = {"scale": jnp.ones((c.num_layers, c.width), dtype)}
        params = {
            "embedding": kernel((c.vocab_size, c.width))["kernel"],
            "layers": (stacked,),
            "norm": {"scale": jnp.ones((c.width,), dtype)},
        }
        if not c.tie_embeddings:
            params["head"] = kernel((c.width, c.vocab_size))
        return params

    def hidden(self, variables: Variables, batch: Batch, key: jax.Array | None = None) -> jax.Array:
        """Return the normed hidden states `[B, T, D]`; a soft prompt's own positions are cut off.

        `key` turns on dropout where a collection asks for it.
        """
        return self._forward(variables, batch, key)[0]

    def head(self, variables: Variables, hidden: jax.Array) -> jax.Array:
        """Return float32 logits `[..., V]` of `hidden` `[..., D]`."""
        return layers.project(hidden, variables)

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
            self._embed(variables, token),
            cache["layers"],
            slot=slot,
            mask=(cache["segments"] != 0)[:, None, :],
            rope=self._rope(position),
        )
        return self._norm(variables, x), cache | {"layers": kept}

    def _forward(self, variables, batch, key, keep_cache=False):
        prompt = variables.get("prompt")
        x = layers.prepend_prompt(self._embed(variables, batch["tokens"]), prompt)
        segments, positions = layers.with_prompt(batch["segments"], batch["positions"], prompt)
        x, emitted = run_layers(
            Block(self.config, emit=keep_cache),
            stack_of(variables),
            x,
            numerics=self.numerics,
            key=key,
            mask=attention_mask(segments, positions, segments, positions, causal=True),
            rope=self._rope(positions),
        )
        hidden = self._norm(variables, x[:, -batch["tokens"].shape[1] :])
        return hidden, emitted, segments, positions

    def _embed(self, variables, tokens):
        return layers.embed(variables["params"]["embedding"], tokens, self.numerics.dtype)

    def _rope(self, positions):
        return rotary(positions, self.config.head_dim, self.config.rope_theta)

    def _norm(self, variables, x):
        return layers.rms_norm(x, variables["params"]["norm"]["scale"], self.config.norm_eps)
