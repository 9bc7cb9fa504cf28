"""The train state: what is trained, its optimizer's state, and the step. The base is never part of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class TrainState(NamedTuple):
    trainable: Any
    opt_state: Any
    step: jax.Array  # int32 []


def init_state(trainable: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """Return the state at step 0; moments take the trainable tree's dtype and, leaf by leaf, its sharding."""
    return TrainState(trainable, optimizer.init(trainable), jnp.zeros((), jnp.int32))
