"""Trees of nested dicts in which `layers` is a tuple of segments, as methods take them apart and put them together.

A path is a tuple of keys, `("layers", 0, "attention", "q", "kernel")`; a place is the path of a module, without the
leaf's own name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxft.errors import UsageError

Path = tuple[str | int, ...]


def flatten(tree: Any, path: Path = ()) -> dict[Path, Any]:
    """Return `{path: leaf}` in the order of the tree."""
    if isinstance(tree, Mapping):
        children: Any = tree.items()
    elif type(tree) in (tuple, list):
        children = enumerate(tree)
    else:
        return {path: tree}
    return {found: leaf for key, child in children for found, leaf in flatten(child, (*path, key)).items()}


def nest(leaves: Mapping[Path, Any]) -> dict:
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


def refilled(tree: Any, leaves: Mapping[Path, Any], path: Path = ()) -> Any:
    """Return a tree of the same form whose leaves are those at its paths in `leaves`."""
    if isinstance(tree, Mapping):
        return {key: refilled(child, leaves, (*path, key)) for key, child in tree.items()}
    if type(tree) in (tuple, list):
        return type(tree)(refilled(child, leaves, (*path, i)) for i, child in enumerate(tree))
    return leaves[path]


def places(tree: Any) -> dict[Path, dict[str, Any]]:
    """Return `{place: {name: leaf}}`, the leaves that lie together under each module."""
    found: dict[Path, dict[str, Any]] = {}
    for path, leaf in flatten(tree).items():
        found.setdefault(path[:-1], {})[str(path[-1])] = leaf
    return found


def spelled(path: Path) -> str:
    """Write a path as patterns see it, `layers/attention/q`: without the numbers of segments."""
    return "/".join(key for key in path if isinstance(key, str))


def combine(first: Any, second: Any, path: Path = ()) -> Any:
    """Join two trees; raise `UsageError` where both hold a leaf."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        joined = dict(first)
        for key, child in second.items():
            joined[key] = combine(joined[key], child, (*path, key)) if key in joined else child
        return joined
    if type(first) is tuple or type(second) is tuple:
        first, second = first or (), second or ()
        size = max(len(first), len(second))
        padded = [(*side, *({},) * (size - len(side))) for side in (first, second)]
        return tuple(combine(a, b, (*path, i)) for i, (a, b) in enumerate(zip(*padded, strict=True)))
    raise UsageError(f"union: two methods train {'/'.join(map(str, path))}; leave it to one of them")


def without(tree: Any, paths: Any) -> Any:
    """Return `tree` without the leaves at `paths`."""
    gone = set(paths)

    def pruned(node, path):
        if isinstance(node, Mapping):
            return {key: pruned(child, (*path, key)) for key, child in node.items() if (*path, key) not in gone}
        if type(node) is tuple:
            return tuple(pruned(child, (*path, i)) for i, child in enumerate(node))
        return node

    return pruned(tree, ())


def split_last(params: Any, last: int) -> dict:
    """Return `params` whose (decoder's) layers have a boundary between segments before the `last` ones.

    What is trained behind a boundary costs no gradient before it. Raises `UsageError` if there are not more layers.
    """
    if "decoder" in params:
        return {**params, "decoder": split_last(params["decoder"], last)}
    segments: list = []
    behind = last
    for segment in reversed(params["layers"]):
        size = jax.tree.leaves(segment)[0].shape[0]
        if 0 < behind < size:
            cut = size - behind
            parts = [
                jax.tree.map(lambda leaf, part=part: leaf[part], segment) for part in (slice(cut), slice(cut, None))
            ]
        else:
            parts = [segment]
        behind -= size
        segments = parts + segments
    if last < 1 or behind > 0:
        raise UsageError(f"method.last: {last} is not between 1 and the model's {last - behind} layers")
    return {**params, "layers": tuple(segments)}


def join(params: Any) -> Any:
    """Return `params` with every stack of layers as one segment, as a model is loaded."""
    if not isinstance(params, Mapping):
        return params
    return {
        key: (jax.tree.map(lambda *parts: jnp.concatenate(parts), *child),) if key == "layers" else join(child)
        for key, child in params.items()
    }


def is_last(path: Path, params: Any, last: int) -> bool:
    """Say whether `path` lies in the last `last` layers of `params` that `split_last` cut."""
    stack = params.get("decoder", params)["layers"]
    first, behind = len(stack), last
    while behind > 0:
        first -= 1
        behind -= jax.tree.leaves(stack[first])[0].shape[0]
    inside = path[1:] if path[0] == "decoder" else path
    return ("decoder" in params) == (path[0] == "decoder") and inside[0] == "layers" and int(inside[1]) >= first
