"""How a recipe names what is trained: a group's name, a part of a path, or a regular expression.

A path is spelled without the numbers of segments, `layers/attention/q/kernel`; T5's begin with `encoder/` or
`decoder/`, and its cross-attention is `cross_attention`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxft.errors import UsageError, nearest
from jaxft.methods.trees import Path, flatten, spelled

Targets = str | Sequence[str]

# Names for groups of kernels, and of leaves; any other string is a regular expression over paths.
KERNELS = {
    "attention": r"attention/[qkvo]$",
    "mlp": r"mlp/(gate|up|down)$",
    "all": r"(attention|mlp)/\w+$",
}
LEAVES = {
    "bitfit": r"/bias$|norm/scale$",
    "norms": r"norm/scale$",
    "embeddings": r"^embedding$",
    "head": r"^head/",
    "attention": r"attention/[qkvo]/",
    "mlp": r"mlp/(gate|up|down)/",
    "layers": r"(^|/)layers/",
}


def find_kernels(params: Any, targets: Targets) -> dict[Path, jax.Array]:
    """Return `{place: kernel}` of the layers' kernels `[n, in, out]` that `targets` selects.

    Raises `UsageError`, listing what there is, if one of them selects nothing.
    """
    kernels = {path[:-1]: x for path, x in flatten(params).items() if path[-1] == "kernel" and "layers" in path}
    chosen = match(kernels, targets, KERNELS, "targets")
    return {place: kernel for place, kernel in kernels.items() if place in chosen}


def find_leaves(params: Any, targets: Targets) -> dict[Path, jax.Array]:
    """Return `{path: leaf}` of the leaves of `params` that `targets` selects; raise as `find_kernels` does."""
    leaves = flatten(params)
    names = [targets] if isinstance(targets, str) else targets
    if "bitfit" in names and not any(path[-1] == "bias" for path in leaves):
        raise UsageError("targets: 'bitfit' trains biases, and this model has none; use 'norms'")
    if "head" in names and "head" not in params:
        raise UsageError("targets: this model's 'head' is tied to its embeddings; use 'embeddings'")
    chosen = match(leaves, targets, LEAVES, "targets")
    return {path: leaf for path, leaf in leaves.items() if path in chosen}


def match(paths: Mapping[Path, Any], targets: Targets, groups: Mapping[str, str], field: str) -> set[Path]:
    """Return the paths that one of `targets` selects; raise `UsageError` if one selects nothing."""
    names = {path: spelled(path) for path in paths}
    chosen: set[Path] = set()
    for target in [targets] if isinstance(targets, str) else targets:
        pattern = groups.get(target, rf"(^|/){target}(/|$)" if target.isidentifier() else target)
        try:
            hits = {path for path, name in names.items() if re.search(pattern, name)}
        except re.error as error:
            raise UsageError(f"{field}: {target!r} is not a regular expression ({error})") from None
        if not hits:
            there = sorted(set(names.values()))
            known = {*groups, *there, *(name.rsplit("/", 1)[-1] for name in there)}
            what = "kernel" if groups is KERNELS else "weight"
            raise UsageError(
                f"{field}: {target!r} matches no {what}{nearest(target, known)} (there are: {', '.join(there)})"
            )
        chosen |= hits
    return chosen


def listed(targets: Targets) -> str | list[str]:
    """Return `targets` as JSON holds them."""
    return targets if isinstance(targets, str) else list(targets)
