"""Prefix tuning: trained keys and values stand before those of every attention (Li & Liang 2021, arXiv:2101.00190).

In an encoder-decoder that is the encoder's and the decoder's self-attention and the cross-attention, each with a
prefix of its own. With `hidden` units they come, while training, out of a network for each of the three; `finalize`
throws it away.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxft.errors import UsageError
from jaxft.methods.method import Method, bound, whole_number
from jaxft.methods.reparameterise import generated, network
from jaxft.methods.trees import Path, flatten, nest, spelled


def prefix(length: int = 20, hidden: int = 512) -> Method:
    """Train `length` keys and values `[n, P, K*H]` for every attention.

    Args:
        length: The number P of prefix tokens.
        hidden: Width of the network that they are the output of while training, as the paper advises; 0 for none.

    Raises `UsageError` for a length below 1.
    """
    whole_number(length, "length")
    if hidden:
        whole_number(hidden, "hidden")

    def init(key, variables):
        params = variables["params"]
        if not hidden:
            leaves = {}
            for place, kernels in _attentions(params).items():
                for name in ("key", "value"):
                    key, own = jax.random.split(key)
                    size, _, out = kernels[name].shape
                    leaves[(*place, name)] = 0.02 * jax.random.normal(own, (size, length, out))
            return nest(leaves), dict(variables)
        trainable: dict[str, Any] = {}
        width = params["embedding"].shape[1]
        for name, members in _groups(params).items():
            key, own, drawn = jax.random.split(key, 3)
            out = sum(size * features for _, size, features in members)
            # One by name, not by place: a network belongs to all layers of its kind.
            trainable[name.replace("/", "_")] = network(own, jax.random.normal(drawn, (length, width)), hidden, out)
        return trainable, dict(variables)

    def bind(trainable, frozen):
        return bound(frozen, prefix=_made(trainable, frozen["params"]) if hidden else trainable)

    return Method(init, bind, {"name": "prefix", "length": length, "hidden": hidden})


def _attentions(params: Any) -> dict[Path, dict[str, jax.Array]]:
    leaves = flatten(params)
    found = {
        path[:-2]
        for path in leaves
        if "layers" in path and path[-1] == "kernel" and str(path[-3]).endswith("attention")
    }
    if not found:
        raise UsageError("prefix: the model has no attention kernels that are frozen")
    return {
        place: {"key": leaves[(*place, "k", "kernel")], "value": leaves[(*place, "v", "kernel")]}
        for place in sorted(found, key=str)
    }


def _groups(params: Any) -> dict[str, list[tuple[Path, int, int]]]:
    groups: dict[str, list[tuple[Path, int, int]]] = {}
    for place, kernels in _attentions(params).items():
        for name, kernel in kernels.items():
            size, _, out = kernel.shape
            groups.setdefault(spelled(place), []).append(((*place, name), size, out))
    return groups


def _made(trainable, params):
    leaves = {}
    for name, members in _groups(params).items():
        flat = generated(trainable[name.replace("/", "_")])  # [P, all layers' keys and values]
        cuts = [size * out for _, size, out in members]
        parts = jnp.split(flat, [sum(cuts[: i + 1]) for i in range(len(cuts) - 1)], axis=1)
        for (path, size, out), part in zip(members, parts, strict=True):
            leaves[path] = part.reshape(-1, size, out).swapaxes(0, 1)
    return nest(leaves)
