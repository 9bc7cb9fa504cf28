"""The one type that all methods share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxft.errors import UsageError
from jaxft.methods.trees import Path, combine
from jaxft.models.quantised import Quantised

Variables = Mapping[str, Any]
Trainable = Any


class Method(NamedTuple):
    """What is trained: `init` splits the variables, `bind` puts together what the model sees.

    `init(key, variables) -> (trainable, frozen)`: `trainable` is fresh (no leaf is shared with `variables`, so that a
    step may donate it) and float32; `frozen` holds the rest, and what the method itself keeps and does not train under
    the method's name. `bind(trainable, frozen) -> variables`. `config` is plain JSON from which
    `jaxft.methods.from_config` makes the method again.
    """

    init: Callable[[jax.Array, Variables], tuple[Trainable, Variables]]
    bind: Callable[[Trainable, Variables], Variables]
    config: Mapping[str, Any]


def fresh(leaf: jax.Array) -> jax.Array:
    """Copy `leaf` in float32, the precision in which everything is trained."""
    return jnp.array(leaf, dtype=jnp.float32, copy=True)


def refuse_quantised(leaves: Mapping[Path, Any], remedy: str) -> None:
    """Raise `UsageError` if one of `leaves` is a kernel in few bits, which no gradient step can change."""
    for path, leaf in leaves.items():
        if isinstance(leaf, Quantised):
            where = "/".join(map(str, path))
            raise UsageError(f"method: {where} is held as {leaf.name} and cannot be trained itself; {remedy}")


def bound(frozen: Variables, **collections: Any) -> dict[str, Any]:
    """Return what the model sees: `frozen` and the given collections, joined with what is there."""
    return {**frozen, **{name: combine(frozen.get(name, {}), tree) for name, tree in collections.items()}}


def whole_number(value: Any, field: str) -> int:
    """Return `value`; raise `UsageError` naming the setting unless it is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"method.{field}: {value!r} is not a whole number of at least 1")
    return value
