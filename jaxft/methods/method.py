"""The one type that all methods share, and how a method finds the leaves it works on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxft.errors import UsageError, nearest

Variables = Mapping[str, Any]
Trainable = Any
Targets = str | Sequence[str]


class Method(NamedTuple):
    """What is trained: `init` splits the variables, `bind` puts together what the model sees.

    `init(key, variables) -> (trainable, frozen)`: `trainable` is fresh (no leaf is shared with `variables`, so that a
    step may donate it) and float32; `frozen` holds the rest. `bind(trainable, frozen) -> variables`. `config` is plain
    JSON from which `jaxft.methods.from_config` makes the method again.
    """

    init: Callable[[jax.Array, Variables], tuple[Trainable, Variables]]
    bind: Callable[[Trainable, Variables], Variables]
    config: Mapping[str, Any]


def fresh(leaf: jax.Array) -> jax.Array:
    """Copy `leaf` in float32, the precision in which everything is trained."""
    return jnp.array(leaf, dtype=jnp.float32, copy=True)


# Names for groups of kernels; any other string is a regular expression over paths.
TARGETS = {
    "attention": r"attention/[qkvo]",
    "mlp": r"mlp/(gate|up|down)",
    "all": r"(attention|mlp)/\w+",
}


def find_kernels(params: Any, targets: Targets) -> dict[tuple, jax.Array]:
    """Return `{path: kernel}` of the layers' kernels `[n, in, out]` that `targets` selects.

    A path is a tuple of keys such as `("layers", 0, "attention", "q")`. `targets` is a name in `TARGETS`, the last
    part of a path (`"q"`), a regular expression searched in `layers/attention/q`, or a list of these; T5's paths
    begin with `encoder/` or `decoder/`, and its cross-attention is `cross_attention`.
    Raises `UsageError`, listing what there is, if one of them selects nothing.
    """
    kernels = dict(_kernels(params))
    names = {path: "/".join(key for key in path if isinstance(key, str)) for path in kernels}
    chosen: set = set()
    for target in [targets] if isinstance(targets, str) else targets:
        pattern = TARGETS.get(target, rf"(^|/){target}$" if target.isidentifier() else target)
        try:
            hits = {path for path, name in names.items() if re.search(pattern, name)}
        except re.error as error:
            raise UsageError(f"targets: {target!r} is not a regular expression ({error})") from None
        if not hits:
            there = sorted(set(names.values()))
            known = {*TARGETS, *there, *(name.rsplit("/", 1)[1] for name in there)}
            raise UsageError(
                f"targets: {target!r} matches no kernel{nearest(target, known)} (there are: {', '.join(there)})"
            )
        chosen |= hits
    return {path: kernel for path, kernel in kernels.items() if path in chosen}


def _kernels(tree, path=()):
    if isinstance(tree, Mapping):
        if "kernel" in tree and "layers" in path:
            yield path, tree["kernel"]
        for key, subtree in tree.items():
            yield from _kernels(subtree, (*path, key))
    elif isinstance(tree, (tuple, list)):
        for i, subtree in enumerate(tree):
            yield from _kernels(subtree, (*path, i))


def nest(leaves: Mapping[tuple, Any]) -> dict:
    """Build the tree whose leaves lie at the given paths; integers index tuples (gaps become empty dicts)."""
    tree: dict = {}
    for path, leaf in leaves.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = leaf
    return _tuples(tree)


def _tuples(node):
    if not isinstance(node, dict):
        return node
    if node and all(isinstance(key, int) for key in node):
        return tuple(_tuples(node.get(i, {})) for i in range(max(node) + 1))
    return {key: _tuples(child) for key, child in node.items()}
