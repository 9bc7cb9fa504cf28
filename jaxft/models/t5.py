"""T5 encoder-decoders: v1.0, v1.1, FLAN-T5 (Raffel et al. 2020, arXiv:1910.10683; Shazeer 2020, arXiv:2002.05202).

`params`: `embedding [V, D]`, `encoder` and `decoder` (each `layers`, `norm`, `relative_bias [buckets, N]`), and
`head` unless tied. The encoder reads the prompt, the decoder the completion.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxft.models import layers
from jaxft.models.attention import Attention, attention_mask, extend_cache, make_room, same_branch
from jaxft.models.layers import Batch, Variables
from jaxft.models.stack import Numerics, decode_layers, run_layers, stack_of


@dataclasses.dataclass(frozen=True)
class T5Config:
    """The shape of a T5; attention's inner width `num_heads * head_dim` need not be `width`."""

    family: str
    vocab_size: int
    num_layers: int
    num_decoder_layers: int
    width: int
    num_heads: int
    head_dim: int
    mlp_width: int
    gated: bool
    activation: str
    relative_buckets: int = 32
    relative_max_distance: int = 128
    norm_eps: float = 1e-6
    tie_embeddings: bool = False
    max_length: int = 2048
    eos_token_ids: tuple[int, ...] = (1,)
    pad_token_id: int = 0
    decoder_start_token_id: int = 0


class Block(nn.Module):
    """Self-attention, cross-attention (in the decoder) and MLP, each pre-normed and added to the residual."""

    config: T5Config
    cross: bool = False
    emit: bool = False

    @nn.compact
    def __call__(self, x, cache=None, place=None, *, mask, bias, encoded=None, encoded_mask=None):
        c = self.config

        def norm(name):
            return layers.Norm(c.norm_eps, name=name)

        def attention(name):  # T5 has no 1/sqrt(H): its initialisation takes it in
            return Attention(c.num_heads, c.num_heads, c.head_dim, 1.0, name=name)

        own, memory = (None, None) if cache is None else (cache["own"], cache["cross"])
        normed = norm("attention_norm")(x)
        attended, own = attention("attention")(normed, mask=mask, bias=bias, cache=own, place=place)
        x = x + layers.Adapter(name="attention_adapter")(attended, normed)
        if self.cross:
            normed = norm("cross_attention_norm")(x)
            crossed, made = attention("cross_attention")(
                normed, mask=encoded_mask, source=encoded, memory=memory and place.read(memory)
            )
            x = x + layers.Adapter(name="cross_attention_adapter")(crossed, normed)
            memory = memory or made
        normed = norm("mlp_norm")(x)
        x = x + layers.Adapter(name="mlp_adapter")(layers.MLP(c.activation, c.gated, name="mlp")(normed), normed)
        return x, {"own": own, "cross": memory} if self.emit else None


@dataclasses.dataclass(frozen=True)
class T5:
    """The pure functions of an encoder-decoder. Hashable: a static argument of a jitted function."""

    config: T5Config
    numerics: Numerics = Numerics()

    def init(self, key: jax.Array, dtype: Any = jnp.float32) -> dict:
        """Return random params, drawn as T5 is initialised: kernels by fan-in, the query by `(D H)^-1/2`."""
        c = self.config
        keys = iter(jax.random.split(key, 64))
        inner = c.num_heads * c.head_dim

        def normal(shape, deviation):
            return (deviation * jax.random.normal(next(keys), shape)).astype(dtype)

        def stack(n, attentions):
            segment: dict = {}
            for name in attentions:
                segment[name] = {
                    "q": {"kernel": normal((n, c.width, inner), (c.width * c.head_dim) ** -0.5)},
                    "k": {"kernel": normal((n, c.width, inner), c.width**-0.5)},
                    "v": {"kernel": normal((n, c.width, inner), c.width**-0.5)},
                    "o": {"kernel": normal((n, inner, c.width), inner**-0.5)},
                }
                segment[f"{name}_norm"] = {"scale": jnp.ones((n, c.width), dtype)}
            ups = ("gate", "up") if c.gated else ("up",)
            segment["mlp"] = {name: {"kernel": normal((n, c.width, c.mlp_width), c.width**-0.5)} for name in ups}
            segment["mlp"]["down"] = {"kernel": normal((n, c.mlp_width, c.width), c.mlp_width**-0.5)}
            segment["mlp_norm"] = {"scale": jnp.ones((n, c.width), dtype)}
            return {
                "layers": (segment,),
                "norm": {"scale": jnp.ones((c.width,), dtype)},
                "relative_bias": normal((c.relative_buckets, c.num_heads), c.width**-0.5),
            }

        params = {
            "embedding": normal((c.vocab_size, c.width), 1.0),
            "encoder": stack(c.num_layers, ("attention",)),
            "decoder": stack(c.num_decoder_layers, ("attention", "cross_attention")),
        }
        if not c.tie_embeddings:
            params["head"] = {"kernel": normal((c.width, c.vocab_size), c.width**-0.5)}
        return params

    def hidden(self, variables: Variables, batch: Batch, key: jax.Array | None = None) -> jax.Array:
        """Return the decoder's normed hidden states `[B, T, D]`; a soft prompt's own positions are cut off.

        `key` turns on dropout where a collection asks for it.
        """
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        encoded, segments = self._encode(variables, batch, keys[0])
        return self._decode_all(variables, batch, encoded, segments, keys[1])[0]

    def head(self, variables: Variables, hidden: jax.Array) -> jax.Array:
        """Return float32 logits `[..., V]`; a tied head scales the hidden state by `D^-1/2` first."""
        if self.config.tie_embeddings:
            hidden = hidden * self.config.width**-0.5
        return layers.project(hidden, variables)

    def prefill(self, variables: Variables, batch: Batch, length: int) -> tuple[jax.Array, dict]:
        """Read the encoder's input and the decoder's first tokens; return their hidden states and a cache."""
        encoded, encoded_segments = self._encode(variables, batch, None)
        hidden, emitted, segments, positions = self._decode_all(
            variables, batch, encoded, encoded_segments, None, keep_cache=True
        )
        cache = {
            "layers": make_room(emitted, length),
            "segments": jnp.pad(segments, ((0, 0), (0, length))),
            "positions": jnp.pad(positions, ((0, 0), (0, length))),
            "encoded_segments": encoded_segments,
            "slot": jnp.asarray(segments.shape[1], jnp.int32),
            "position": jnp.max(jnp.where(segments != 0, positions, -1), axis=1) + 1,
        }
        return hidden, cache

    def decode(self, variables: Variables, token: jax.Array, cache: dict) -> tuple[jax.Array, dict]:
        """Read one `token` `[B, 1]` at the cache's next position; return hidden `[B, 1, D]` and the longer cache."""
        slot, position = cache["slot"], cache["position"][:, None]
        cache = extend_cache(cache)
        table = variables["params"]["decoder"]["relative_bias"]
        x, kept = decode_layers(
            Block(self.config, cross=True, emit=True),
            stack_of(variables, "decoder"),
            self._embed(variables, token),
            cache["layers"],
            slot=slot,
            mask=(cache["segments"] != 0)[:, None, :],
            bias=self._bias(table, position, cache["positions"], causal=True),
            encoded_mask=(cache["encoded_segments"] != 0)[:, None, :],
        )
        return self._norm(variables, "decoder", x), cache | {"layers": kept}

    def _encode(self, variables, batch, key):
        prompt = variables.get("prompt", {}).get("encoder")
        x = layers.prepend_prompt(self._embed(variables, batch["encoder_tokens"]), prompt)
        segments, _ = layers.with_prompt(batch["encoder_segments"], batch["encoder_positions"], prompt)
        steps = jnp.arange(x.shape[1])[None]
        x, _ = run_layers(
            Block(self.config),
            stack_of(variables, "encoder"),
            x,
            numerics=self.numerics,
            key=key,
            mask=attention_mask(segments, None, segments, None, causal=False),
            # Within a segment positions differ as indices do, so the bias is one table for all rows.
            bias=self._bias(variables["params"]["encoder"]["relative_bias"], steps, steps, causal=False),
        )
        return self._norm(variables, "encoder", x), segments

    def _decode_all(self, variables, batch, encoded, encoded_segments, key, keep_cache=False):
        prompt = variables.get("prompt", {}).get("decoder")
        x = layers.prepend_prompt(self._embed(variables, batch["tokens"]), prompt)
        segments, positions = layers.with_prompt(batch["segments"], batch["positions"], prompt)
        mask = attention_mask(segments, positions, segments, positions, causal=True)
        steps = jnp.arange(x.shape[1])[None]
        if "branches" in batch:  # positions go on from the trunk's, indices from the branch before
            mask = mask & same_branch(batch["branches"], x.shape[1] - batch["branches"].shape[1])
            steps = positions
        x, emitted = run_layers(
            Block(self.config, cross=True, emit=keep_cache),
            stack_of(variables, "decoder"),
            x,
            numerics=self.numerics,
            key=key,
            mask=mask,
            bias=self._bias(variables["params"]["decoder"]["relative_bias"], steps, steps, causal=True),
            encoded=encoded,
            encoded_mask=attention_mask(segments, None, encoded_segments, None, causal=False),
        )
        hidden = self._norm(variables, "decoder", x[:, -batch["tokens"].shape[1] :])
        return hidden, emitted, segments, positions

    def _embed(self, variables, tokens):
        return layers.embed(variables["params"]["embedding"], tokens, self.numerics.dtype)

    def _bias(self, table, query_positions, key_positions, causal):
        c = self.config
        distance = key_positions[:, None, :] - query_positions[:, :, None]  # [B, T, S]
        buckets = relative_bucket(distance, c.relative_buckets, c.relative_max_distance, bidirectional=not causal)
        table = table.astype(jnp.float32)
        if table.ndim == 3:  # each example has its own
            buckets = jnp.broadcast_to(buckets, (table.shape[0], *buckets.shape[1:]))
            return jax.vmap(lambda own, at: own[at])(table, buckets).transpose(0, 3, 1, 2)
        return table[buckets].transpose(0, 3, 1, 2)  # [B, N, T, S]

    def _norm(self, variables, stack, x):
        return layers.norm(x, variables["params"][stack]["norm"], self.config.norm_eps)


def relative_bucket(distance: jax.Array, buckets: int, max_distance: int, bidirectional: bool) -> jax.Array:
    """Map key-minus-query `distance` to a bucket: exact when near, logarithmic up to `max_distance`."""
    offset: Any = 0
    if bidirectional:
        buckets //= 2
        offset = jnp.where(distance > 0, buckets, 0)
        distance = jnp.abs(distance)
    else:
        distance = jnp.maximum(-distance, 0)
    exact = buckets // 2
    # log(0) is never taken: distances below `exact` do not use it.
    ratio = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact) / math.log(max_distance / exact)
    far = jnp.minimum(exact + (ratio * (buckets - exact)).astype(jnp.int32), buckets - 1)
    return offset + jnp.where(distance < exact, distance, far)
