"""Soft prompts as the output of a network that is thrown away after training (Li & Liang 2021, arXiv:2101.00190)."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp


def network(key: jax.Array, embedding: jax.Array, hidden: int, out: int) -> dict[str, Any]:
    """Return what `generated` takes: `embedding` `[P, D]` and a network of `hidden` units to `out` numbers a token."""
    keys = jax.random.split(key)
    return {
        "embedding": embedding,
        "down": _affine(keys[0], embedding.shape[1], hidden),
        "up": _affine(keys[1], hidden, out),
    }


def generated(network: Any) -> jax.Array:
    """Return `up(tanh(down(embedding)))`, `[P, out]`."""
    x = network["embedding"]
    for name, act in (("down", jnp.tanh), ("up", lambda y: y)):
        x = act(x @ network[name]["kernel"] + network[name]["bias"][None])
    return x


def _affine(key, width, out):
    limit = 1 / math.sqrt(width)
    keys = jax.random.split(key)
    return {
        "kernel": jax.random.uniform(keys[0], (width, out), minval=-limit, maxval=limit),
        "bias": jax.random.uniform(keys[1], (out,), minval=-limit, maxval=limit),
    }
