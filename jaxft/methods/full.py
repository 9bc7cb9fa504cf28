"""Full fine-tuning: every weight is trained."""

from __future__ import annotations

import jax

from jaxft.methods.method import Method, fresh


def full() -> Method:
    """Train all weights.

    The trainable copy is float32 whatever the base is; the model computes in its own dtype.
    """

    def init(key, variables):
        return jax.tree.map(fresh, variables["params"]), {}

    def bind(trainable, frozen):
        return {"params": trainable}

    return Method(init, bind, {"name": "full"})
