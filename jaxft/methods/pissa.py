"""PiSSA: LoRA that begins as the kernel's largest singular directions (Meng et al. 2024, arXiv:2404.02948).

The paper subtracts them from the base. Here the base stays untouched and shared: what they were at the start is
subtracted on the activation path, `x W + x [A | A0] [s B; -s B0]`, which is `x W` exactly until A or B move.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxft.methods.lora import lora_settings, ranked_kernels, scaled, scales
from jaxft.methods.method import Method, bound, fresh
from jaxft.methods.targets import Targets
from jaxft.methods.trees import nest, places
from jaxft.models.quantised import by_layer

SWEEPS = 8  # of subspace iteration


def pissa(
    rank: int = 16,
    alpha: float = 16.0,
    targets: Targets = "attention",
    dropout: float = 0.0,
    rslora: bool = False,
    rank_pattern: Mapping[str, int] | None = None,
    alpha_pattern: Mapping[str, float] | None = None,
) -> Method:
    """Train the chosen kernels along their `rank` largest singular directions.

    The settings are those of `lora`; the paper has alpha equal to the rank. The directions are found by randomised
    subspace iteration (Halko et al. 2011, arXiv:0909.4061).
    """
    config = {"name": "pissa"} | lora_settings(rank, alpha, targets, dropout, rslora, rank_pattern, alpha_pattern)

    def init(key, variables):
        pairs = {}
        for place, kernel, own, drawn in ranked_kernels(key, variables["params"], config):
            a, b = by_layer(lambda w, key=drawn, own=own: principal(key, w.astype(jnp.float32), own), kernel)
            pairs[place] = {"a": a, "b": b}
        # Divided by the scale, so that s A B is the kernel's own part.
        roots = {place: jnp.sqrt(factor) for place, factor in scales(pairs, config).items()}
        leaves = {(*place, name): leaf / roots[place] for place, pair in pairs.items() for name, leaf in pair.items()}
        return nest(leaves), {**variables, "pissa": jax.tree.map(fresh, nest(leaves))}

    def bind(trainable, frozen):
        frozen = dict(frozen)
        start = places(scaled(frozen.pop("pissa"), config))
        leaves = {}
        for place, pair in places(scaled(trainable, config)).items():
            a, b = start[place]["a"], start[place]["b"]
            leaves |= {(*place, name): leaf for name, leaf in pair.items()}
            leaves[(*place, "a")] = jnp.concatenate([pair["a"], a], axis=-1)
            leaves[(*place, "b")] = jnp.concatenate([pair["b"], -b], axis=-2)
        return bound(frozen, lora=nest(leaves))

    return Method(init, bind, config)


def principal(key: jax.Array, kernel: jax.Array, rank: int) -> tuple[jax.Array, jax.Array]:
    """Return `a` `[D, R]` and `b` `[R, F]`, whose product is nearly the best of that rank to `kernel` `[D, F]`."""
    extra = min(rank + 8, *kernel.shape)
    basis = jnp.linalg.qr(kernel @ jax.random.normal(key, (kernel.shape[1], extra)))[0]
    for _ in range(SWEEPS):
        basis = jnp.linalg.qr(kernel @ jnp.linalg.qr(kernel.T @ basis)[0])[0]
    left, values, right = jnp.linalg.svd(basis.T @ kernel, full_matrices=False)
    root = jnp.sqrt(values[:rank])
    return (basis @ left[:, :rank]) * root[None], root[:, None] * right[:rank]
