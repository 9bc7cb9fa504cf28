"""VeRA: all kernels share one frozen random pair, and each trains two vectors (Kopiczko et al. 2024,
arXiv:2310.11454).

    y = x W + ((x A) * d) B * b

The pair is cut to each kernel's widths, so that 30 layers of 2 kernels train a few vectors and nothing else.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxft.errors import UsageError
from jaxft.methods.method import Method, bound, whole_number
from jaxft.methods.targets import Targets, find_kernels, listed
from jaxft.methods.trees import nest, places


def vera(rank: int = 256, targets: Targets = "attention", d_initial: float = 0.1, dropout: float = 0.0) -> Method:
    """Train two vectors for each target: `d` `[n, R]` and `b` `[n, F]`, which starts at zero.

    Args:
        rank: The inner width R of the shared pair; as it is frozen, large ones cost little.
        targets: As in `lora`.
        d_initial: Where `d` starts.
        dropout: As in `lora`.

    Raises `UsageError` for a rank below 1 and for targets that match nothing.
    """
    whole_number(rank, "rank")
    if not 0 <= dropout < 1:
        raise UsageError(f"method.dropout: {dropout} is not in [0, 1)")

    def init(key, variables):
        kernels = find_kernels(variables["params"], targets)
        leaves = {}
        for place, kernel in kernels.items():
            leaves[(*place, "d")] = jnp.full((kernel.shape[0], rank), d_initial)
            leaves[(*place, "b")] = jnp.zeros((kernel.shape[0], kernel.shape[2]))
        width, out = (max(kernel.shape[axis] for kernel in kernels.values()) for axis in (1, 2))
        keys = jax.random.split(key)
        shared = {"a": _kaiming(keys[0], (width, rank)), "b": _kaiming(keys[1], (rank, out))}
        return nest(leaves), {**variables, "vera": shared}

    def bind(trainable, frozen):
        frozen = dict(frozen)
        shared = frozen.pop("vera")
        leaves = {}
        for place, vectors in places(trainable).items():
            kernel = _at(frozen["params"], place)
            a = shared["a"][None, : kernel.shape[1]] * vectors["d"][:, None]
            leaves[(*place, "a")] = a
            leaves[(*place, "b")] = shared["b"][None, :, : kernel.shape[2]] * vectors["b"][:, None]
            if dropout:
                leaves[(*place, "dropout")] = jnp.full(a.shape[:1], dropout)
        return bound(frozen, lora=nest(leaves))

    config = {"name": "vera", "rank": rank, "targets": listed(targets), "d_initial": d_initial, "dropout": dropout}
    return Method(init, bind, config)


def _kaiming(key, shape):
    limit = math.sqrt(6 / shape[0])
    return jax.random.uniform(key, shape, minval=-limit, maxval=limit)


def _at(params, place):
    for key in place:
        params = params[key]
    return params["kernel"]
