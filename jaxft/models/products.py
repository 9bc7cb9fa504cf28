"""Products of activations in bfloat16 with sums in float32.

An accelerator does that by itself. XLA on CPU has a product of bfloat16 factors (AMX, AVX-512) only where the result is
asked for in float32, and multiplies in float32 otherwise, at about a quarter of the speed; the same holds for each
product of the backward pass.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp


def contract(spec: str, x: jax.Array, y: jax.Array, dtype: Any = None) -> jax.Array:
    """Return `jnp.einsum(spec, x, y)` in `dtype` (default: that of `x`), summed in float32.

    Gradients are rounded to the dtype of the factors before they are multiplied, as a bfloat16 product's are.
    """
    dtype = x.dtype if dtype is None else dtype
    if x.dtype != jnp.bfloat16 or y.dtype != jnp.bfloat16:
        return jnp.einsum(spec, x, y, preferred_element_type=dtype)
    return _contract(spec, jnp.dtype(dtype), x, y)


def _product(spec, x, y, dtype):
    if jax.default_backend() == "cpu":
        return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32).astype(dtype)
    return jnp.einsum(spec, x, y, preferred_element_type=dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _contract(spec, dtype, x, y):
    return _product(spec, x, y, dtype)


def _forward(spec, dtype, x, y):
    # A factor is kept only for the gradient of the other one.
    kept = x.value if y.perturbed else None, y.value if x.perturbed else None
    return _product(spec, x.value, y.value, dtype), kept


def _backward(spec, dtype, kept, gradient):
    x, y = kept
    factors, out = spec.split("->")
    left, right = factors.split(",")
    dx = dy = None
    if y is not None:
        dx = _product(f"{out},{right}->{left}", gradient.astype(y.dtype), y, y.dtype)
    if x is not None:
        if x.ndim == 2:  # turned by hand: a product over the first axis of both factors is slow on CPU
            x, left = jax.lax.optimization_barrier(x.T), left[::-1]
        dy = _product(f"{left},{out}->{right}", x, gradient.astype(x.dtype), x.dtype)
    return dx, dy


_contract.defvjp(_forward, _backward, symbolic_zeros=True)
