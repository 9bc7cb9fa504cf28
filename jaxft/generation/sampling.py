"""What is done to logits before a token is chosen, as `transformers` does it.

The settings are one hashable value, so that they are a static argument of the compiled loop: what is switched off
costs nothing.

>>> Sampling(temperature=0.7, top_p=0.9).num_beams
1
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxft.errors import UsageError


class Sampling(NamedTuple):
    """How tokens are chosen; the defaults are greedy."""

    num_beams: int = 1
    length_penalty: float = 1.0
    temperature: float = 0.0  # 0 takes the most probable token
    top_k: int = 0  # 0 keeps all
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0  # 0 allows all


class History(NamedTuple):
    """The tokens so far, from the first one on without a gap: `tokens` `[B, S]`, of which `length` `[B]` are there."""

    tokens: jax.Array
    length: jax.Array


def check(sampling: Sampling) -> None:
    """Raise `UsageError` for settings that are out of range or exclude each other."""
    s = sampling
    for name, fine, range_ in (
        ("num_beams", s.num_beams >= 1, "1 or more"),
        ("temperature", s.temperature >= 0, "0 (greedy) or more"),
        ("top_k", s.top_k >= 0, "0 (all) or more"),
        ("top_p", 0 < s.top_p <= 1, "above 0 and at most 1"),
        ("repetition_penalty", s.repetition_penalty > 0, "above 0"),
        ("no_repeat_ngram", s.no_repeat_ngram >= 0, "0 (off) or more"),
    ):
        if not fine:
            raise UsageError(f"{name}: {getattr(s, name)} is out of range; it must be {range_}")
    if s.num_beams > 1 and s.temperature > 0:
        raise UsageError("temperature: beam search does not sample; set num_beams to 1 or temperature to 0")
    if s.temperature == 0 and (s.top_k or s.top_p < 1):
        raise UsageError("top_k and top_p choose among samples; set a temperature above 0")


def restrain(sampling: Sampling, logits: jax.Array, history: History) -> jax.Array:
    """Apply the repetition controls to `logits` `[B, V]`, given all tokens before."""
    if sampling.repetition_penalty != 1.0:
        logits = _penalise(logits, history, sampling.repetition_penalty)
    if sampling.no_repeat_ngram:
        logits = jnp.where(_completes_ngram(logits, history, sampling.no_repeat_ngram), -jnp.inf, logits)
    return logits


def draw(sampling: Sampling, logits: jax.Array, keys: jax.Array) -> jax.Array:
    """Choose a token `[B]` from `logits` `[B, V]`, each row by its own key `[B]`; greedily at temperature 0."""
    if sampling.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = logits / sampling.temperature
    if sampling.top_k:
        least = jax.lax.top_k(logits, min(sampling.top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if sampling.top_p < 1:
        logits = jnp.where(logits < _nucleus(logits, sampling.top_p), -jnp.inf, logits)
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def _penalise(logits, history, penalty):
    """Keskar et al. 2019, arXiv:1909.05858: once per token, whatever its count."""
    there = jnp.arange(history.tokens.shape[1])[None] < history.length[:, None]
    seen = _mark(logits, history.tokens, there)
    return jnp.where(seen, jnp.where(logits < 0, logits * penalty, logits / penalty), logits)


def _completes_ngram(logits, history, n):
    tokens, length = history
    ends = jnp.arange(tokens.shape[1] - n + 1) + n - 1  # the last index of each n-gram
    same = ends[None] < length[:, None]
    for back in range(1, n):
        recent = jnp.take_along_axis(tokens, jnp.maximum(length - back, 0)[:, None], axis=1)
        same &= tokens[:, ends - back] == recent
    return _mark(logits, tokens[:, n - 1 :], same)


def _mark(logits, tokens, where):
    vocabulary = logits.shape[-1]
    rows = jnp.arange(logits.shape[0])[:, None]
    return jnp.zeros(logits.shape, bool).at[rows, jnp.where(where, tokens, vocabulary)].set(True, mode="drop")


def _nucleus(logits, top_p):
    """The least logit of the smallest set whose probability reaches `top_p` (Holtzman et al., arXiv:1904.09751)."""
    descending = -jnp.sort(-logits, axis=-1)
    probabilities = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    kept = jnp.sum(before < top_p, axis=-1, keepdims=True)
    return jnp.take_along_axis(descending, kept - 1, axis=-1)
