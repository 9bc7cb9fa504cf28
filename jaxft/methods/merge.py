"""Fold trained parts into dense weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxft.errors import UsageError
from jaxft.methods.method import Variables
from jaxft.methods.trees import flatten, join, nest, places
from jaxft.models.quantised import dequantize_params


def merge(variables: Variables) -> Any:
    """Return params that alone compute what `variables` do.

    `lora` pairs are added to their kernels, then `scale` multiplies; in float32, returned in the kernel's dtype, each
    stack of layers in one segment. A quantised base is made dense first: what comes back is a dense model, of the base
    as it was rounded. Raises `UsageError` if another collection is present: a soft prompt, say, changes no weights.
    """
    other = set(variables) - {"params", "lora", "scale"}
    if other:
        raise UsageError(f"merge: {', '.join(sorted(other))} cannot be folded into weights; save it as an adapter")
    leaves = flatten(dequantize_params(variables["params"]))
    for place, pair in places(variables.get("lora", {})).items():
        update = jnp.einsum("nDR,nRF->nDF", pair["a"], pair["b"], preferred_element_type=jnp.float32)
        _change(leaves, (*place, "kernel"), lambda kernel, update=update: kernel + update)
    for place, scale in places(variables.get("scale", {})).items():
        for name, vector in scale.items():
            across = vector[:, :, None] if name == "input" else vector[:, None]
            _change(leaves, (*place, "kernel"), lambda kernel, across=across: kernel * across)
            if name == "output" and (*place, "bias") in leaves:
                _change(leaves, (*place, "bias"), lambda bias, vector=vector: bias * vector)
    return join(nest(leaves))


def _change(leaves: dict, path: tuple, change: Any) -> None:
    leaf: jax.Array = leaves[path]
    leaves[path] = change(leaf.astype(jnp.float32)).astype(leaf.dtype)
