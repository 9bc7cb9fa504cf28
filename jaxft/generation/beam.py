"""Beam search as `transformers` 5 does it with `early_stopping=False`: same candidates, same scores, same end.

Of each prompt the loop holds `num_beams` (W) running beams and the W best finished ones. A step scores every
continuation of every running beam and takes the best `W * (1 + end tokens)`, so that W of them go on whatever ends.
A finished beam's score is its log-probability over `length ** length_penalty`. A prompt is done once its best running
beam, scored at its present length, is no better than its worst finished one.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxft.generation.sample import is_end
from jaxft.generation.sampling import History, Sampling, restrain

NEVER = -1.0e9  # finite, as in transformers: sums of it stay comparable


class Beams(NamedTuple):
    """W beams of each prompt, best first."""

    tokens: jax.Array  # [B, W, S]
    length: jax.Array  # [B, W]
    score: jax.Array  # [B, W]
    ended: jax.Array  # bool [B, W]


class State(NamedTuple):
    """What decoding carries beside the cache, whose rows are the running beams `[B * W]`."""

    beams: Beams
    finished: Beams
    token: jax.Array  # [B * W], the one to read next
    parent: jax.Array  # [B * W]: the row of the cache that each running beam goes on from
    running: jax.Array  # bool [B]: a better beam may still come
    step: jax.Array


def start(sampling: Sampling, history: History, running: jax.Array, keys: jax.Array) -> State:
    """Return the state before the first token, all beams of a prompt alike but only the first in the race."""
    rows, width = len(history.length), sampling.num_beams

    def repeat(x):
        return jnp.repeat(x[:, None], width, axis=1)

    tokens, length = repeat(history.tokens), repeat(history.length)
    never = jnp.full((rows, width), NEVER)
    ended = jnp.zeros((rows, width), bool)
    beams = Beams(tokens, length, never.at[:, 0].set(0.0), ended)
    first = jnp.arange(rows * width, dtype=jnp.int32)
    step = jnp.zeros((), jnp.int32)
    return State(beams, Beams(tokens, length, never, ended), jnp.zeros_like(first), first, running, step)


def advance(sampling: Sampling, ends: tuple[int, ...], pad: int, limit: jax.Array, state: State, logits: jax.Array):
    """Extend every running beam by a token, given `logits` `[B * W, V]`; keep what has ended."""
    width = sampling.num_beams
    found, parent = _candidates(sampling, ends, state, logits)
    at_end = is_end(jnp.take_along_axis(found.tokens, found.length[..., None] - 1, axis=-1)[..., 0], ends)
    found = found._replace(ended=at_end | (state.step + 1 >= limit))

    going = found._replace(score=jnp.where(found.ended, found.score + NEVER, found.score))
    best = jax.lax.top_k(going.score, width)[1]
    beams = _take(going, best)
    step = state.step + 1
    norm = step.astype(jnp.float32) ** sampling.length_penalty

    # Only what is among the W best ends; the others were taken to keep W beams running.
    ended = found.ended & (jnp.arange(found.score.shape[1])[None] < width)
    counts = ended & state.running[:, None]
    ending = found._replace(score=jnp.where(counts, found.score / norm, NEVER * 2), ended=ended)
    merged = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), state.finished, ending)
    finished = _take(merged, jax.lax.top_k(merged.score, width)[1])

    worst = jnp.where(finished.ended, jnp.min(finished.score, axis=1, keepdims=True), NEVER)
    running = state.running & jnp.any(beams.score[:, :1] / norm > worst, axis=1) & ~jnp.all(found.ended)
    last = jnp.take_along_axis(beams.tokens, beams.length[..., None] - 1, axis=-1)
    rows = jnp.arange(len(running), dtype=jnp.int32)[:, None] * width
    parent = rows + jnp.take_along_axis(parent, best, axis=1)
    return State(beams, finished, last.reshape(-1), parent.reshape(-1), running, step)


def unfinished(state: State) -> jax.Array:
    """Say whether any prompt may still find a better beam."""
    return jnp.any(state.running)


def result(state: State) -> History:
    """Return the best finished beam of every prompt."""
    return History(state.finished.tokens[:, 0], state.finished.length[:, 0])


def _candidates(sampling, ends, state, logits):
    """Return the best continuations `[B, W * (1 + end tokens)]` of each prompt and the beam each one extends."""
    rows, width, size = state.beams.tokens.shape
    history = History(state.beams.tokens.reshape(rows * width, size), state.beams.length.reshape(-1))
    scores = restrain(sampling, jax.nn.log_softmax(logits), history)
    vocabulary = scores.shape[-1]
    scores = scores.reshape(rows, width, vocabulary) + state.beams.score[..., None]
    score, index = jax.lax.top_k(scores.reshape(rows, -1), max(2, 1 + len(ends)) * width)
    parent, token = index // vocabulary, (index % vocabulary).astype(jnp.int32)
    found = _take(state.beams, parent)
    at = jax.nn.one_hot(found.length, size, dtype=bool)
    tokens = jnp.where(at, token[..., None], found.tokens)
    return Beams(tokens, found.length + 1, score, found.ended), parent.astype(jnp.int32)


def _take(beams, index):
    def take(x):
        return jnp.take_along_axis(x, index.reshape(*index.shape, *(1,) * (x.ndim - 2)), axis=1)

    return jax.tree.map(take, beams)
