"""Adapters as vectors: average, add and subtract them, merge them without interference, change a LoRA's rank.

    both = average([summaries, answers])            # any trainable trees of one structure
    less = add(base, toxic, scale=-1.0)             # task arithmetic: take away what was learned
    merged = ties([one, two, three], density=0.2)

Everything is leaf by leaf, so for LoRA it mixes `A` with `A` and `B` with `B`: the mean of `A` times the mean of `B`
is not the mean of the updates `A B`. Where the updates are meant, `concatenate` adds them exactly at the price of
rank, and `rerank` finds the best approximation of a lower one:

    updates = [one.bind(*a)["lora"], other.bind(*b)["lora"]]    # as they act, alpha / rank in them
    tree = rerank(concatenate(updates, [0.5, 0.5]), rank=8)
    method = lora(rank=8, alpha=8, targets=...)                 # alpha = rank: the tree says it all
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxft.errors import UsageError
from jaxft.methods.method import Trainable
from jaxft.methods.trees import Path, flatten, nest, places

Weights = Sequence[float] | jax.Array


def average(trees: Sequence[Trainable], weights: Weights | None = None) -> Trainable:
    """Return the mean of trees of one structure, weighted as in `numpy.average`: the weights need not sum to 1.

    Raises `UsageError` naming the first path at which the trees differ, and for weights that sum to 0.
    """
    _check_alike(trees)
    shares = _weights(weights, len(trees))
    total = shares.sum()
    if not isinstance(total, jax.core.Tracer) and abs(total) < 1e-6:
        raise UsageError("average: the weights sum to 0; add and subtract with `add`")
    return jax.tree.map(lambda *leaves: jnp.tensordot(shares / total, _stack(leaves), 1, precision="highest"), *trees)


def add(tree: Trainable, other: Trainable, scale: float | jax.Array = 1.0) -> Trainable:
    """Return `tree + scale * other`: task arithmetic (Ilharco et al. 2022, arXiv:2212.04089); -1 subtracts.

    Raises `UsageError` naming the first path at which the two differ.
    """
    _check_alike([tree, other])
    return jax.tree.map(lambda one, two: _float(one) + scale * _float(two), tree, other)


def trim(tree: Trainable, density: float) -> Trainable:
    """Keep the share `density` of each tensor that is largest in magnitude, and set the rest to zero.

    A tensor is a kernel of one layer, as in PEFT; the paper of TIES ranks all weights together.
    Raises `UsageError` for a density outside (0, 1].
    """
    _check_density(density)

    def trimmed(keys, leaf):
        # Leaves of the layers are stacked: every layer is a tensor of its own.
        stacked = any(getattr(key, "key", None) == "layers" for key in keys)
        one = jax.vmap(_largest, (0, None)) if stacked else _largest
        return _float(leaf) if density == 1 else one(_float(leaf), density)

    return jax.tree_util.tree_map_with_path(trimmed, tree)


def ties(trees: Sequence[Trainable], weights: Weights | None = None, density: float = 0.2) -> Trainable:
    """Merge trees by TIES: trim, elect a sign for each number, average those that agree (arXiv:2306.01708).

    `trees` are differences from the start: LoRA's trees as they are, for whole weights `add(tuned, base, -1)`. The
    weights (1 each by default) multiply the tensors after the election, as in PEFT. With trees from `dare` and a
    density of 1 this is DARE-TIES. Raises `UsageError` for trees that differ and a density outside (0, 1].
    """
    _check_alike(trees)
    shares = _weights(weights, len(trees))

    def merged(*leaves):
        stacked = _stack(leaves)
        elected = jnp.where(stacked.sum(0) >= 0, 1, -1)
        agree = jnp.sign(stacked) == elected[None]
        kept = jnp.tensordot(shares, jnp.where(agree, stacked, 0), 1, precision="highest")
        return kept / jnp.maximum(agree.sum(0), 1)

    return jax.tree.map(merged, *(trim(tree, density) for tree in trees))


def dare(tree: Trainable, density: float, key: jax.Array) -> Trainable:
    """Keep each number with probability `density` and divide by it (Yu et al. 2023, arXiv:2311.03099).

    The expectation is the tree itself; `average` or `ties` then merges several, each drawn with its own key.
    Raises `UsageError` for a density outside (0, 1].
    """
    _check_density(density)
    leaves, structure = jax.tree.flatten(tree)
    kept = [
        jnp.where(jax.random.bernoulli(one, density, leaf.shape), _float(leaf) / density, 0)
        for one, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, kept)


def concatenate(trees: Sequence[Any], weights: Weights | None = None, scales: Weights | None = None) -> Any:
    """Return the LoRA tree whose update is exactly `sum_i weights[i] scales[i] A_i B_i`; its rank is the sum of ranks.

    Args:
        trees: Trees of `{"a": [n, D, R], "b": [n, R, F]}` at the same kernels; the ranks may differ.
        weights: 1 each by default.
        scales: Each tree's alpha / rank, where the trees are trained ones; 1 each by default, which is right for
            `method.bind(trainable, frozen)["lora"]`.

    To be used with alpha = rank (where the ranks of kernels differ, after `rerank`). Raises `UsageError` for kernels
    that differ and for trees that are not LoRA's.
    """
    found = [_pairs(tree) for tree in trees]
    _check_alike([_of_rank_one(pairs) for pairs in found])
    shares = _weights(weights, len(trees)) * _weights(scales, len(trees), "scales")
    leaves = {}
    for place in found[0]:
        pairs = [pair[place] for pair in found]
        b = [share * _float(pair["b"]) for share, pair in zip(shares, pairs, strict=True)]
        leaves[(*place, "a")] = jnp.concatenate([_float(pair["a"]) for pair in pairs], axis=-1)
        leaves[(*place, "b")] = jnp.concatenate(b, axis=-2)
    return nest(leaves)


def rerank(tree: Any, rank: int) -> Any:
    """Return the LoRA tree of `rank` whose `A B` is nearest to the given one's (Frobenius and spectral norm).

    The error is the root of the sum of squares of the singular values left out: none from the tree's own rank on
    (zeros fill the rest). The factors are balanced, each with the root of a singular value. `A B` is kept, so that a
    trained tree goes with `alpha * rank / old_rank`. Raises `UsageError` for a rank below 1 or above a kernel's width.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise UsageError(f"rank: {rank!r} is not a whole number of at least 1")
    leaves = {}
    for place, pair in _pairs(tree).items():
        width, out = pair["a"].shape[-2], pair["b"].shape[-1]
        if rank > min(width, out):
            raise UsageError(f"rank: {rank} exceeds the {width} x {out} of {_name(place)}")
        leaves[(*place, "a")], leaves[(*place, "b")] = _nearest(pair["a"], pair["b"], rank)
    return nest(leaves)


class Factors(NamedTuple):
    """`A B = left core right` with orthonormal `left` `[..., D, R]` and `right` `[..., R, F]`."""

    left: jax.Array
    core: jax.Array
    right: jax.Array


def factors(a: jax.Array, b: jax.Array) -> Factors:
    """Return the factors of `A B` whose `[R, R]` core has its singular values: nothing of a kernel's shape is made."""
    left, upper = jnp.linalg.qr(_float(a))
    right, lower = jnp.linalg.qr(jnp.swapaxes(_float(b), -1, -2))
    core = jnp.matmul(upper, jnp.swapaxes(lower, -1, -2), precision="highest")
    return Factors(left, core, jnp.swapaxes(right, -1, -2))


def _nearest(a, b, rank):
    left, core, right = factors(a, b)
    u, values, v = jnp.linalg.svd(core, full_matrices=False)
    root = jnp.sqrt(values)[..., None, :]
    a = jnp.matmul(left, u * root, precision="highest")[..., :rank]
    b = jnp.matmul(jnp.swapaxes(root, -1, -2) * v, right, precision="highest")[..., :rank, :]
    missing, flat = rank - a.shape[-1], [(0, 0)] * (a.ndim - 2)
    return jnp.pad(a, [*flat, (0, 0), (0, missing)]), jnp.pad(b, [*flat, (0, missing), (0, 0)])


def _pairs(tree: Any) -> dict[Path, dict[str, jax.Array]]:
    found = places(tree)
    for place, pair in found.items():
        # DoRA's lengths, say, are no part of a sum of updates. The rate of dropout may lie there: it changes none.
        if not {"a", "b"} <= set(pair) <= {"a", "b", "dropout"}:
            raise UsageError(f"{_name(place)}: not a LoRA pair a, b; give what `bind` makes of LoRA under 'lora'")
    return found


def _of_rank_one(pairs):
    # What LoRA trees must share whatever their ranks.
    leaves = {}
    for place, pair in pairs.items():
        leaves |= {(*place, "a"): pair["a"][..., :1], (*place, "b"): pair["b"][..., :1, :]}
    return nest(leaves)


def _check_alike(trees: Sequence[Any]) -> None:
    if not trees:
        raise UsageError("there is no tree to merge")
    first, *others = ({_name(path): leaf.shape for path, leaf in flatten(tree).items()} for tree in trees)
    for number, other in enumerate(others, 2):
        for name in [*first, *other]:
            one, two = first.get(name, "missing"), other.get(name, "missing")
            if one != two:
                raise UsageError(f"{name}: {_shape(one)} in tree 1, {_shape(two)} in tree {number}")
        structures: list[Any] = [jax.tree.structure(tree) for tree in (trees[0], trees[number - 1])]
        if structures[0] != structures[1]:
            raise UsageError(f"tree {number} is nested otherwise than tree 1")


def _name(path: Path) -> str:
    return "/".join(map(str, path)) or "the tree"


def _shape(shape) -> str:
    return shape if isinstance(shape, str) else str(list(shape))


def _check_density(density: float) -> None:
    if not 0 < density <= 1:
        raise UsageError(f"density: {density} is not in (0, 1]")


def _weights(weights, count: int, name: str = "weights") -> jax.Array:
    made = jnp.ones(count) if weights is None else jnp.asarray(weights, jnp.float32)
    if made.shape != (count,):
        raise UsageError(f"{name}: {list(made.shape)} for {count} trees; give one number each")
    return made


def _largest(tensor, density):
    flat = jnp.abs(tensor).ravel()
    _, kept = jax.lax.top_k(flat, int(density * flat.size))
    return tensor * jnp.zeros(flat.shape).at[kept].set(1).reshape(tensor.shape)


def _float(leaf):
    return jnp.asarray(leaf, jnp.float32)


def _stack(leaves):
    return jnp.stack([_float(leaf) for leaf in leaves])
