"""The train state: what is trained, its optimizer's state, and the step. The base is never part of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxft.training.sharding import shardings


class TrainState(NamedTuple):
    trainable: Any
    opt_state: Any
    step: jax.Array  # int32 []


def init_state(trainable: Any, optimizer: optax.GradientTransformation, mesh: Mesh | None = None) -> TrainState:
    """Return the state at step 0; on a mesh, moments are born in the shards of what they belong to."""

    def init(trainable):
        return TrainState(trainable, optimizer.init(trainable), jnp.zeros((), jnp.int32))

    if mesh is None:
        return init(trainable)
    return jax.jit(init, out_shardings=shardings(jax.eval_shape(init, trainable), mesh))(trainable)
