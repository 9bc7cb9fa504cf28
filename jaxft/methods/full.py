"""Full fine-tuning: every weight is trained."""

from __future__ import annotations

import jax

from jaxft.methods.method import Method, fresh, refuse_quantised
from jaxft.methods.trees import flatten


def full() -> Method:
    """Train all weights.

    The trainable copy is float32 whatever the base is; the model computes in its own dtype. Raises `UsageError` for a
    quantised base.
    """

    def init(key, variables):
        refuse_quantised(flatten(variables["params"]), "tune it with lora, or load the model without quantize")
        return jax.tree.map(fresh, variables["params"]), {}

    def bind(trainable, frozen):
        return {"params": trainable}

    return Method(init, bind, {"name": "full"})
