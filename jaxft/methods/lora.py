"""LoRA: a kernel `W` becomes `W + (alpha / rank) A B` with `A` and `B` of low rank (Hu et al. 2021, arXiv:2106.09685).

The product is taken on the activations, `x W + (x A)(s B)`: no gradient, and no product, of a kernel's shape exists.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxft.errors import UsageError
from jaxft.methods.method import Method, Targets, find_kernels, nest


def lora(rank: int = 16, alpha: float = 32.0, targets: Targets = "attention", dropout: float = 0.0) -> Method:
    """Train a low-rank update of the chosen kernels.

    Args:
        rank: The inner width R of the update.
        alpha: The update is scaled by `alpha / rank`.
        targets: Which kernels: "attention", "mlp", "all", a name such as "q", a regular expression, or a list.
        dropout: Share of the update's input that is dropped while training.

    `A` starts uniform in ±1/sqrt(in), as in PEFT, and `B` at zero, so that training starts from the base exactly.
    Raises `UsageError` for a rank below 1 or above a kernel's width, and for targets that match nothing.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise UsageError(f"method.rank: {rank!r} is not a whole number of at least 1")
    if not 0 <= dropout < 1:
        raise UsageError(f"method.dropout: {dropout} is not in [0, 1)")
    targets = targets if isinstance(targets, str) else tuple(targets)
    scale = alpha / rank

    def init(key, variables):
        leaves = {}
        for path, kernel in find_kernels(variables["params"], targets).items():
            *_, size, width, out = kernel.shape
            if rank > min(width, out):
                raise UsageError(f"method.rank: {rank} exceeds the {width} x {out} of {'/'.join(map(str, path))}")
            key, a_key = jax.random.split(key)
            limit = 1 / math.sqrt(width)
            leaves[(*path, "a")] = jax.random.uniform(a_key, (size, width, rank), minval=-limit, maxval=limit)
            leaves[(*path, "b")] = jnp.zeros((size, rank, out))
        return nest(leaves), dict(variables)

    def bind(trainable, frozen):
        return {**frozen, "lora": _for_model(trainable, scale, dropout)}

    config = {"name": "lora", "rank": rank, "alpha": alpha, "targets": targets, "dropout": dropout}
    return Method(init, bind, config | ({} if isinstance(targets, str) else {"targets": list(targets)}))


def _for_model(tree, scale, dropout):
    if isinstance(tree, tuple):
        return tuple(_for_model(child, scale, dropout) for child in tree)
    if "a" not in tree:
        return {key: _for_model(child, scale, dropout) for key, child in tree.items()}
    bound = {"a": tree["a"], "b": tree["b"] * scale}
    # The rate rides along as an array, stacked over layers as its neighbours are: the model knows no setting.
    return bound | ({"dropout": jnp.full(tree["a"].shape[:1], dropout)} if dropout else {})
