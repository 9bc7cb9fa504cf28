"""DoRA: LoRA turns a kernel's columns, and their lengths are trained apart (Liu et al. 2024, arXiv:2402.09353).

    y = m / |W + s A B| * (x W + x A s B)

The lengths of the columns come from `|W|² + 2 diag(Wᵀ A B) + |A B|²`, so no product of a kernel's shape exists, and no
gradient flows through them, as the paper proposes (§4.3) and PEFT does.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxft.methods.lora import lora_leaves, lora_settings, ranked_kernels, scaled
from jaxft.methods.method import Method, bound
from jaxft.methods.targets import Targets
from jaxft.methods.trees import flatten, nest, places
from jaxft.models.quantised import by_layer


def dora(
    rank: int = 16,
    alpha: float = 32.0,
    targets: Targets = "attention",
    dropout: float = 0.0,
    rslora: bool = False,
    rank_pattern: Mapping[str, int] | None = None,
    alpha_pattern: Mapping[str, float] | None = None,
) -> Method:
    """Train a low-rank update of the chosen kernels, and a length `m` `[n, F]` for each of their columns.

    The settings are those of `lora`.
    """
    config = {"name": "dora"} | lora_settings(rank, alpha, targets, dropout, rslora, rank_pattern, alpha_pattern)

    def init(key, variables):
        leaves, squares = {}, {}
        for place, kernel, own, drawn in ranked_kernels(key, variables["params"], config):
            squares[(*place, "square")] = by_layer(_square, kernel)
            leaves |= lora_leaves(drawn, place, kernel, own)
            leaves[(*place, "m")] = jnp.sqrt(squares[(*place, "square")])
        return nest(leaves), {**variables, "dora": nest(squares)}

    def bind(trainable, frozen):
        frozen = dict(frozen)
        squares, kernels = flatten(frozen.pop("dora")), flatten(frozen["params"])
        update = scaled(trainable, config)
        scales = {}
        for place, pair in places(update).items():
            a, b = jax.lax.stop_gradient((pair["a"], pair["b"]))
            length = jnp.sqrt(squares[(*place, "square")] + _added(kernels[(*place, "kernel")], a, b))
            scales[(*place, "product")] = places(trainable)[place]["m"] / length
        return bound(frozen, lora=update, scale=nest(scales))

    return Method(init, bind, config)


def _square(kernel):
    return jnp.sum(jnp.square(kernel.astype(jnp.float32)), axis=0)


def _added(kernel, a, b):
    """Return `|W + A B|² - |W|²` of each column, `[n, F]`."""
    turned = by_layer(_turned, kernel, a)
    inner = jnp.einsum("nDR,nDQ->nRQ", a, a) @ b
    return jnp.sum((2 * turned + inner) * b, axis=1)


def _turned(kernel, a):
    dense = kernel.astype(kernel.dtype)
    return jnp.einsum("DF,DR->RF", dense, a.astype(dense.dtype), preferred_element_type=jnp.float32)
