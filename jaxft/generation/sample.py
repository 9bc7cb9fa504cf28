"""Choosing one token at a time, greedily or by drawing: the state of the loop and its step."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxft.generation.sampling import History, Sampling, draw, restrain


class State(NamedTuple):
    """What decoding carries beside the cache."""

    history: History
    token: jax.Array  # [B], the one to read next
    running: jax.Array  # bool [B]: no end token yet
    step: jax.Array  # tokens chosen so far
    keys: jax.Array  # [B], one a row: a row's draws do not depend on its company


def start(sampling: Sampling, history: History, running: jax.Array, keys: jax.Array) -> State:
    """Return the state before the first token."""
    return State(history, jnp.zeros_like(history.length), running, jnp.zeros((), jnp.int32), keys)


def advance(sampling: Sampling, ends: tuple[int, ...], pad: int, limit: jax.Array, state: State, logits: jax.Array):
    """Choose each running row's next token from `logits` `[B, V]`."""
    logits = restrain(sampling, logits, state.history)
    keys = jax.vmap(jax.random.fold_in, (0, None))(state.keys, state.step) if sampling.temperature else state.keys
    token = jnp.where(state.running, draw(sampling, logits, keys), pad)
    tokens, length = state.history
    tokens = tokens.at[jnp.arange(len(token)), length].set(token)
    history = History(tokens, length + state.running)
    running = state.running & ~is_end(token, ends)
    return State(history, token, running, state.step + 1, state.keys)


def unfinished(state: State) -> jax.Array:
    """Say whether any row runs on."""
    return jnp.any(state.running)


def result(state: State) -> History:
    """Return every row's tokens."""
    return state.history


def is_end(token: jax.Array, ends: tuple[int, ...]) -> jax.Array:
    """Say where `token` is one of `ends`."""
    return jnp.isin(token, jnp.array(ends, jnp.int32))
