"""LoRA: a kernel `W` becomes `W + (alpha / rank) A B` with `A` and `B` of low rank (Hu et al. 2021, arXiv:2106.09685).

The product is taken on the activations, `x W + (x A)(s B)`: no gradient, and no product, of a kernel's shape exists.
The family differs in how A and B begin and in what is trained of them: `dora.py`, `pissa.py`, `vera.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxft.errors import UsageError
from jaxft.methods.method import Method, bound, whole_number
from jaxft.methods.targets import KERNELS, Targets, find_kernels, listed, match
from jaxft.methods.trees import Path, nest, places


def lora(
    rank: int = 16,
    alpha: float = 32.0,
    targets: Targets = "attention",
    dropout: float = 0.0,
    rslora: bool = False,
    rank_pattern: Mapping[str, int] | None = None,
    alpha_pattern: Mapping[str, float] | None = None,
) -> Method:
    """Train a low-rank update of the chosen kernels.

    Args:
        rank: The inner width R of the update.
        alpha: The update is scaled by `alpha / rank`.
        targets: Which kernels: "attention", "mlp", "all", a name such as "q", a regular expression, or a list.
        dropout: Share of the update's input that is dropped while training.
        rslora: Scale by `alpha / sqrt(rank)`, which keeps large ranks learning (Kalajdzievski 2023, arXiv:2312.03732).
        rank_pattern: Ranks of some of the targets, `{"mlp": 4}`; of several that match, the last one counts.
        alpha_pattern: The same for alpha.

    `A` starts uniform in ±1/sqrt(in), as in PEFT, and `B` at zero, so that training starts from the base exactly.
    Raises `UsageError` for a rank below 1 or above a kernel's width, and for targets that match nothing.
    """
    config = {"name": "lora"} | lora_settings(rank, alpha, targets, dropout, rslora, rank_pattern, alpha_pattern)

    def init(key, variables):
        leaves = {}
        for place, kernel, own, drawn in ranked_kernels(key, variables["params"], config):
            leaves |= lora_leaves(drawn, place, kernel, own)
        return nest(leaves), dict(variables)

    def bind(trainable, frozen):
        return bound(frozen, lora=scaled(trainable, config))

    return Method(init, bind, config)


def lora_settings(rank, alpha, targets, dropout, rslora, rank_pattern, alpha_pattern) -> dict[str, Any]:
    """Return the settings that the family shares as JSON, checked."""
    whole_number(rank, "rank")
    for target, own in (rank_pattern or {}).items():
        whole_number(own, f"rank_pattern.{target}")
    if not 0 <= dropout < 1:
        raise UsageError(f"method.dropout: {dropout} is not in [0, 1)")
    return {
        "rank": rank,
        "alpha": alpha,
        "targets": listed(targets),
        "dropout": dropout,
        "rslora": rslora,
        "rank_pattern": dict(rank_pattern or {}),
        "alpha_pattern": dict(alpha_pattern or {}),
    }


def ranked_kernels(key: jax.Array, params: Any, config: Mapping[str, Any]) -> Iterator[tuple]:
    """Yield `(place, kernel [n, D, F], rank, key)` of each target; raise `UsageError` for a rank above a width."""
    kernels = find_kernels(params, config["targets"])
    ranks = own_settings(kernels, config["rank_pattern"], config["rank"], "rank_pattern")
    own_settings(kernels, config["alpha_pattern"], config["alpha"], "alpha_pattern")
    for place, kernel in kernels.items():
        width, rank = min(kernel.shape[1:]), ranks[place]
        if rank > width:
            sizes = "{} x {}".format(*kernel.shape[1:])
            raise UsageError(f"method.rank: {rank} exceeds the {sizes} of {'/'.join(map(str, place))}")
        key, own = jax.random.split(key)
        yield place, kernel, rank, own


def own_settings(paths: Mapping[Path, Any], pattern: Mapping[str, Any], default: Any, field: str) -> dict[Path, Any]:
    """Return `{place: value}`: the last of `pattern`'s targets that matches, or `default`."""
    values = dict.fromkeys(paths, default)
    for target, value in pattern.items():
        values |= dict.fromkeys(match(paths, target, KERNELS, f"method.{field}"), value)
    return values


def lora_leaves(key: jax.Array, place: Path, kernel: jax.Array, rank: int) -> dict[Path, jax.Array]:
    """Return `a` `[n, D, R]`, uniform in ±1/sqrt(D), and `b` `[n, R, F]`, zero."""
    size, width, out = kernel.shape
    limit = 1 / math.sqrt(width)
    a = jax.random.uniform(key, (size, width, rank), minval=-limit, maxval=limit)
    return {(*place, "a"): a, (*place, "b"): jnp.zeros((size, rank, out))}


def scales(pairs: Mapping[Path, Mapping[str, Any]], config: Mapping[str, Any]) -> dict[Path, Any]:
    """Return the number that each pair's update is multiplied by."""
    alphas = own_settings(pairs, config["alpha_pattern"], config["alpha"], "alpha_pattern")
    ranks = {place: pair["a"].shape[-1] for place, pair in pairs.items()}
    return {place: alphas[place] / (math.sqrt(rank) if config["rslora"] else rank) for place, rank in ranks.items()}


def scaled(trainable: Any, config: Mapping[str, Any]) -> dict:
    """Return the pairs as the model takes them: the scale folded into `b`, the rate of dropout beside it."""
    pairs = places(trainable)
    factors = scales(pairs, config)
    leaves: dict[Path, jax.Array] = {}
    for place, pair in pairs.items():
        leaves |= {(*place, "a"): pair["a"], (*place, "b"): pair["b"] * factors[place]}
        if config["dropout"]:
            # An array, stacked over layers as its neighbours are: the model knows no setting.
            leaves[(*place, "dropout")] = jnp.full(pair["a"].shape[:1], config["dropout"])
    return nest(leaves)
