"""IA3: keys, values and the inner activations of the feed-forward are rescaled (Liu et al. 2022, arXiv:2205.05638)."""

from __future__ import annotations

import jax.numpy as jnp

from jaxft.methods.method import Method, bound
from jaxft.methods.targets import Targets, find_kernels, listed
from jaxft.methods.trees import nest


def ia3(outputs: Targets = ("k", "v"), inputs: Targets = ("down",)) -> Method:
    """Train vectors that scale the outputs `[n, F]` of some kernels and the inputs `[n, D]` of others.

    Args:
        outputs: Kernels whose output is scaled, named as in `lora`.
        inputs: Kernels whose input is scaled.

    The vectors start at one. Raises `UsageError` for targets that match nothing.
    """

    def init(key, variables):
        leaves = {}
        for name, targets, axis in (("output", outputs, 2), ("input", inputs, 1)):
            if targets:
                for place, kernel in find_kernels(variables["params"], targets).items():
                    leaves[(*place, name)] = jnp.ones((kernel.shape[0], kernel.shape[axis]))
        return nest(leaves), dict(variables)

    def bind(trainable, frozen):
        return bound(frozen, scale=trainable)

    return Method(init, bind, {"name": "ia3", "outputs": listed(outputs), "inputs": listed(inputs)})
