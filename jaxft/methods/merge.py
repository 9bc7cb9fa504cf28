"""Fold trained parts into dense weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from jaxft.errors import UsageError
from jaxft.methods.method import Variables


def merge(variables: Variables) -> Any:
    """Return params that alone compute what `variables` do: each `lora` pair is added to its kernel.

    The sum is taken in float32 and returned in the kernel's dtype. Raises `UsageError` if another collection is
    present: a soft prompt, say, is no change of weights.
    """
    other = set(variables) - {"params", "lora"}
    if other:
        raise UsageError(f"merge: {', '.join(sorted(other))} cannot be folded into weights; save it as an adapter")
    return _merged(variables["params"], variables.get("lora", {}))


def _merged(params, lora):
    if isinstance(params, tuple):
        lora = tuple(lora) + ({},) * (len(params) - len(lora))
        return tuple(_merged(child, update) for child, update in zip(params, lora, strict=True))
    if not isinstance(params, Mapping):
        return params
    if "a" in lora:
        kernel = params["kernel"]
        update = jnp.einsum("...DR,...RF->...DF", lora["a"], lora["b"], preferred_element_type=jnp.float32)
        return {**params, "kernel": (kernel.astype(jnp.float32) + update).astype(kernel.dtype)}
    return {key: _merged(child, lora.get(key, {})) for key, child in params.items()}
